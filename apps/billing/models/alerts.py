"""Alerts, whom they are sent to, and the work tables of their delivery."""

from datetime import timedelta
from enum import StrEnum
from functools import partial

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from apps.core.ids import ID_LENGTH, new_id
from apps.core.limit_fields import NanosField
from apps.core.models import OrganizationScoped
from apps.core.money import NANOS_PER_USD

DEDUPE_LENGTH = 200
SUBJECT_LENGTH = 200
TEXT_LENGTH = 2_000
URL_LENGTH = 500
ERROR_LENGTH = 200
LOW_BALANCE_NANOS = 5 * NANOS_PER_USD
SECRET_OVERLAP = timedelta(hours=24)
"""After a rotation both secrets sign for so long."""

new_alert_id = partial(new_id, "alert")
new_endpoint_id = partial(new_id, "hook")
new_message_id = partial(new_id, "msg")


class AlertKind(StrEnum):
    """What can be worth telling. The value is the `type` of the webhook event."""

    CREDIT_LOW = "credit.low"
    BUDGET_REACHED = "budget.reached"
    GRANT_EXPIRING = "grant.expiring"
    AUTO_TOP_UP_FAILED = "auto_top_up.failed"
    SPEND_ANOMALY = "spend.anomaly"
    KEY_PAUSED = "key.paused"
    INVOICE_ISSUED = "invoice.issued"
    WEBHOOK_DISABLED = "webhook.disabled"
    LEDGER_PROOF_FAILED = "ledger.proof_failed"
    """For the operator, as the next one."""
    USAGE_REVIEW = "usage.review"
    VENDOR_DRIFT = "vendor.drift"
    PAYMENT_REVIEW = "payment.review"


OPERATOR_KINDS = (
    AlertKind.LEDGER_PROOF_FAILED,
    AlertKind.USAGE_REVIEW,
    AlertKind.VENDOR_DRIFT,
    AlertKind.PAYMENT_REVIEW,
)
CUSTOMER_KINDS = tuple(kind for kind in AlertKind if kind not in OPERATOR_KINDS)
TEST_EVENT = "webhook.test"


class DeliveryState(StrEnum):
    """Where a message stands on its way."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Every try failed; it can be sent again by hand."""


def _states() -> list[tuple[str, str]]:
    return [(state.value, state.value.title()) for state in DeliveryState]


class Alert(OrganizationScoped):
    """Something that somebody should know, raised once for its key. Without an organization it is the operator's.

    `details` is what webhooks send as `data`; money stands there in USD as text and in nano-USD."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_alert_id, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization", null=True, on_delete=models.CASCADE, related_name="alerts", db_index=False
    )
    kind = models.CharField(max_length=40, choices=[(kind.value, kind.value) for kind in AlertKind])
    subject = models.CharField(max_length=SUBJECT_LENGTH)
    text = models.CharField(max_length=TEXT_LENGTH, blank=True)
    details = models.JSONField(default=dict)
    dedupe_key = models.CharField(max_length=DEDUPE_LENGTH, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=254, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization", "-id"], name="alert_by_organization"),
            models.Index(fields=["organization"], condition=Q(acknowledged_at=None), name="alert_open"),
        ]

    def __str__(self) -> str:
        return self.subject


class AlertSettings(OrganizationScoped):
    """What an organization is alerted of, and who by e-mail. Without a row the defaults hold.

    `muted_kinds` are not e-mailed; they stand in the list all the same. Without `recipients` the owners and the
    people of finance are told. `low_since` says that the balance is below its mark and was told of."""

    organization = models.OneToOneField(
        "accounts.Organization", on_delete=models.CASCADE, primary_key=True, related_name="alert_settings"
    )
    low_balance_nanos = NanosField(null=True, blank=True, default=LOW_BALANCE_NANOS)
    recipients = ArrayField(models.EmailField(), default=list, blank=True)
    muted_kinds = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    low_since = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name_plural = "alert settings"

    def __str__(self) -> str:
        return f"alert settings of {self.organization_id}"


class AlertPass(models.Model):
    """One row a kind of evaluation: how far in time it has looked at what moved in the ledger."""

    name = models.CharField(primary_key=True, max_length=40)
    seen_until = models.DateTimeField()

    class Meta:
        verbose_name_plural = "alert passes"

    def __str__(self) -> str:
        return self.name


class WebhookEndpoint(OrganizationScoped):
    """Where an organization wants to be told, and what. Secrets are sealed, bound to the row.

    While a rotation lasts (`previous_until`) messages are signed with both secrets."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_endpoint_id, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.CASCADE, related_name="webhook_endpoints"
    )
    url = models.CharField(max_length=URL_LENGTH)
    description = models.CharField(max_length=100, blank=True)
    sealed_secret = models.TextField(editable=False)
    sealed_previous_secret = models.TextField(blank=True, editable=False)
    previous_until = models.DateTimeField(null=True, editable=False)
    event_kinds = ArrayField(models.CharField(max_length=40), default=list)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=ERROR_LENGTH, blank=True)
    failing_since = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return self.url


class Sendable(models.Model):
    """A row of a work table: due at `next_at`, and leased by moving `next_at` on while somebody tries."""

    state = models.CharField(max_length=10, choices=_states(), default=DeliveryState.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(default=timezone.now)
    last_error = models.CharField(max_length=ERROR_LENGTH, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True
        indexes = [models.Index(fields=["next_at"], condition=Q(state="pending"), name="%(class)s_due")]


class WebhookDelivery(OrganizationScoped, Sendable):
    """One message for one endpoint. The id is its `webhook-id`, the same at every try and replay; so is the body.

    `tries` tells of each try: `{at, code, error, ms}`, the latest ones."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_message_id, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.CASCADE, related_name="+")
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    alert = models.ForeignKey(Alert, null=True, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=40)
    body = models.TextField()
    tries_before = models.PositiveSmallIntegerField(default=0)
    """Tries before it was last sent again by hand: those do not count against the schedule."""
    last_code = models.PositiveSmallIntegerField(null=True)
    tries = models.JSONField(default=list)

    class Meta(Sendable.Meta):
        ordering = ["-id"]
        verbose_name_plural = "webhook deliveries"
        indexes = [
            *Sendable.Meta.indexes,
            models.Index(fields=["endpoint", "-id"], name="webhookdelivery_by_endpoint"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["alert", "endpoint"], condition=Q(alert__isnull=False), name="webhookdelivery_once"
            )
        ]

    def __str__(self) -> str:
        return self.id


class AlertEmail(Sendable):
    """One alert for one address."""

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="emails")
    recipient = models.EmailField()

    class Meta(Sendable.Meta):
        constraints = [models.UniqueConstraint(fields=["alert", "recipient"], name="alertemail_once")]

    def __str__(self) -> str:
        return f"{self.alert_id} to {self.recipient}"
