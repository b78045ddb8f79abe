"""Price books: how an organization's prices differ from the list; and re-ratings: corrections of what was billed."""

from enum import StrEnum
from functools import partial
from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from apps.core.ids import ID_LENGTH, new_id
from apps.core.models import OrganizationScoped

LEAST_PERCENT = -100
MOST_PERCENT = 1_000
MOST_FEE_PERCENT = 100
"""With an own key a request never costs more than without, so what is held for the one covers the other."""

new_rule_id = partial(new_id, "rule")
new_rerating_id = partial(new_id, "rerate")
new_fee_id = partial(new_id, "fee")


class PriceRule(OrganizationScoped):
    """One line of an organization's price book, in force from a moment on. Never edited and never deleted: a later rule
    for the same model, or for all models, replaces it; one of 0 % goes back to the list.

    Either `percent` changes every amount of the list price, or `amounts` (USD per million tokens by bucket, per
    request, per image; decimal numbers as text) replace it with its variants. The database refuses UPDATE and
    DELETE."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_rule_id, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="price_rules")
    model = models.ForeignKey(
        "catalog.Model",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="price_rules",
        help_text="Empty: every model. A rule for a model goes before one for all.",
    )
    starts_at = models.DateTimeField(default=timezone.now, help_text="In force from this moment on (UTC).")
    percent = models.DecimalField(
        max_digits=8,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[MinValueValidator(LEAST_PERCENT), MaxValueValidator(MOST_PERCENT)],
        help_text="Change of the list price: -10 is a discount of 10 %, 20 a markup of 20 %, 0 the list price.",
    )
    amounts = models.JSONField(null=True, blank=True, help_text="Fixed prices instead of the list.")
    note = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=254, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["organization", "model", "-starts_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "model", "starts_at"], name="price_rule_start_unique", nulls_distinct=False
            ),
            models.CheckConstraint(
                condition=Q(percent__isnull=True) ^ Q(amounts__isnull=True), name="price_rule_percent_or_amounts"
            ),
            models.CheckConstraint(
                condition=Q(percent__isnull=True) | Q(percent__range=(LEAST_PERCENT, MOST_PERCENT)),
                name="price_rule_percent_in_range",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.model_id or 'every model'} from {self.starts_at:%Y-%m-%d %H:%M}"


class ProviderKeyFee(models.Model):
    """What requests with an organization's own provider key cost from a moment on, in percent of what they would cost
    without one. Never edited and never deleted: a later row for the same organization, or for everybody, replaces it.

    The database refuses UPDATE and DELETE."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_fee_id, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="provider_key_fees",
        help_text="Empty: everybody. A fee of an organization goes before that.",
    )
    starts_at = models.DateTimeField(default=timezone.now, help_text="In force from this moment on (UTC).")
    percent = models.DecimalField(
        max_digits=7,
        decimal_places=4,
        validators=[MinValueValidator(0), MaxValueValidator(MOST_FEE_PERCENT)],
        help_text="Of what the request would cost without the key: 5 is a fee of 5 %, 0 none at all.",
    )
    note = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=254, blank=True, editable=False)

    class Meta:
        verbose_name = "fee for own provider keys"
        verbose_name_plural = "fees for own provider keys"
        ordering: ClassVar[list[str]] = ["organization", "-starts_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "starts_at"], name="provider_key_fee_start_unique", nulls_distinct=False
            ),
            models.CheckConstraint(
                condition=Q(percent__range=(0, MOST_FEE_PERCENT)), name="provider_key_fee_percent_in_range"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id or 'everybody'} from {self.starts_at:%Y-%m-%d %H:%M}"


class ReratingStatus(StrEnum):
    """How far a re-rating is."""

    APPLYING = "applying"
    APPLIED = "applied"


class Rerating(models.Model):
    """A correction of billed usage: the requests of a model in a window, at the prices that are in force for that time
    now. Kept for ever with what it did to each organization."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_rerating_id, editable=False)
    model = models.CharField(max_length=128)
    starts_at = models.DateTimeField(help_text="First moment of the window (UTC).")
    ends_at = models.DateTimeField(help_text="First moment after the window (UTC).")
    reason = models.CharField(max_length=500)
    status = models.CharField(
        max_length=20,
        default=ReratingStatus.APPLYING,
        choices=[(each.value, each.value.title()) for each in ReratingStatus],
    )
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=254)

    class Meta:
        verbose_name = "re-rating"
        ordering: ClassVar[list[str]] = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(starts_at__lt=models.F("ends_at")), name="rerating_window_in_order")
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.starts_at:%Y-%m-%d %H:%M} to {self.ends_at:%Y-%m-%d %H:%M}"


class ReratedUsage(OrganizationScoped):
    """What a re-rating changed of one request, in nano-USD: above zero the organization pays more. Only ever added."""

    rerating = models.ForeignKey(Rerating, on_delete=models.PROTECT, related_name="requests")
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    request_id = models.CharField(max_length=ID_LENGTH, db_index=True)
    delta_nanos = models.BigIntegerField()
    price_version_id = models.BigIntegerField()
    price_rule_id = models.CharField(max_length=ID_LENGTH, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rerating", "request_id"], name="rerated_once"),
            models.CheckConstraint(condition=~Q(delta_nanos=0), name="rerated_changes_something"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id} {self.delta_nanos:+}"
