"""Money in: payments with their refunds and disputes, saved cards, automatic top-ups, and events as they came in."""

from enum import StrEnum
from functools import partial

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from apps.billing.models.ledger import ACTOR_LENGTH, REASON_LENGTH, Grant, LedgerTransaction
from apps.core.ids import ID_LENGTH, new_id
from apps.core.models import OrganizationScoped
from apps.core.money import NANOS_PER_CENT

REFERENCE_LENGTH = 255

new_payment_id = partial(new_id, "pay")
new_card_id = partial(new_id, "card")
new_refund_id = partial(new_id, "rfd")


class PaymentKind(StrEnum):
    """How a payment began."""

    TOP_UP = "top_up"
    """A person pays on the provider's page."""
    AUTO_TOP_UP = "auto_top_up"
    """The saved card is charged because credit ran low."""
    BANK_TRANSFER = "bank_transfer"
    """An operator saw the money on a bank account."""


class PaymentStatus(StrEnum):
    """Where a payment stands. `paid` is for ever; money that arrives late turns any other state into it."""

    PENDING = "pending"
    PAID = "paid"
    FAILED = "failed"
    EXPIRED = "expired"
    """Nobody paid before the provider's page closed."""


class RefundStatus(StrEnum):
    """Where a refund stands. Its credit is taken when it is asked for, and comes back when it fails."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class EventStatus(StrEnum):
    """What became of an event in the inbox."""

    RECEIVED = "received"
    DONE = "done"
    IGNORED = "ignored"
    """Nothing that concerns us."""
    PARKED = "parked"
    """It speaks of something that has not happened here yet, and is tried again."""
    REFUSED = "refused"
    """It contradicts our own records."""
    GIVEN_UP = "given_up"
    """What it waited for never came; an operator can replay it."""


def _choices(kinds: type[StrEnum]) -> list[tuple[str, str]]:
    return [(kind.value, kind.value.replace("_", " ").capitalize()) for kind in kinds]


def _whole_cents(column: str, name: str) -> models.CheckConstraint:
    return models.CheckConstraint(
        condition=Q(**{f"{column}__gt": 0}) & Q(**{column: NANOS_PER_CENT * (F(column) / NANOS_PER_CENT)}), name=name
    )


class PaymentCustomer(OrganizationScoped):
    """An organization as a payment provider knows it, and what it said about itself while paying."""

    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.PROTECT, related_name="payment_customers"
    )
    provider = models.CharField(max_length=30)
    reference = models.CharField(max_length=REFERENCE_LENGTH)
    billing_name = models.CharField(max_length=300, blank=True)
    billing_email = models.CharField(max_length=320, blank=True)
    country = models.CharField(max_length=2, blank=True)
    tax_id_type = models.CharField(max_length=40, blank=True)
    tax_id = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "provider"], name="payment_customer_once_a_provider"),
            models.UniqueConstraint(fields=["provider", "reference"], name="payment_customer_reference_unique"),
        ]

    def __str__(self) -> str:
        return self.reference


class PaymentMethod(OrganizationScoped):
    """A saved card: the provider's references, and as much as a person needs to know it again. Never its number."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_card_id, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="payment_methods")
    provider = models.CharField(max_length=30)
    customer_reference = models.CharField(max_length=REFERENCE_LENGTH)
    reference = models.CharField(max_length=REFERENCE_LENGTH)
    brand = models.CharField(max_length=40)
    last4 = models.CharField(max_length=4)
    exp_month = models.PositiveSmallIntegerField()
    exp_year = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(db_default=Now())
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["provider", "reference"], name="payment_method_unique")]

    def __str__(self) -> str:
        return f"{self.brand.replace('_', ' ').title()} ending in {self.last4}"


class Payment(OrganizationScoped):
    """Money that an organization pays. This row, not what an event says, decides whose credit it is and how much.

    `provider_reference` is the provider's name of the payment, known when it was tried; `checkout_reference` that of
    the page on which it is made."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_payment_id, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="payments")
    kind = models.CharField(max_length=20, choices=_choices(PaymentKind))
    status = models.CharField(max_length=20, choices=_choices(PaymentStatus), default=PaymentStatus.PENDING)
    amount_nanos = models.BigIntegerField()
    currency = models.CharField(max_length=3, default="usd")
    provider = models.CharField(max_length=30)
    provider_reference = models.CharField(max_length=REFERENCE_LENGTH, blank=True)
    checkout_reference = models.CharField(max_length=REFERENCE_LENGTH, blank=True)
    checkout_url = models.TextField(blank=True)
    saves_card = models.BooleanField(default=False)
    card = models.ForeignKey(PaymentMethod, null=True, on_delete=models.PROTECT, related_name="payments")
    grant = models.OneToOneField(Grant, null=True, on_delete=models.PROTECT, related_name="payment")
    actor = models.CharField(max_length=ACTOR_LENGTH)
    note = models.CharField(max_length=REASON_LENGTH, blank=True)
    failure = models.CharField(max_length=REASON_LENGTH, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    checked_at = models.DateTimeField(null=True, blank=True)
    is_open_at_provider = models.BooleanField(default=False)
    """It failed, but its provider could still charge it: counted like one that runs until it is cancelled there."""
    paid_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization", "-id"], name="payment_by_organization"),
            models.Index(fields=["created_at"], condition=Q(status="pending"), name="payment_pending"),
        ]
        constraints = [
            _whole_cents("amount_nanos", "payment_amount_is_whole_cents"),
            models.CheckConstraint(condition=Q(currency="usd"), name="payment_currency_is_usd"),
            models.CheckConstraint(
                condition=Q(status="paid", grant__isnull=False, paid_at__isnull=False)
                | (~Q(status="paid") & Q(grant__isnull=True, paid_at__isnull=True)),
                name="payment_is_paid_when_credited",
            ),
            models.UniqueConstraint(
                fields=["provider", "provider_reference"],
                condition=~Q(provider_reference=""),
                name="payment_reference_unique",
            ),
            models.UniqueConstraint(
                fields=["provider", "checkout_reference"],
                condition=~Q(checkout_reference=""),
                name="payment_checkout_unique",
            ),
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(kind="auto_top_up", status="pending"),
                name="payment_one_auto_top_up_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class Refund(OrganizationScoped):
    """Money of a payment that goes back to who paid. All that did not fail are never more than the payment."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_refund_id, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="payment_refunds")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="refunds")
    amount_nanos = models.BigIntegerField()
    status = models.CharField(max_length=20, choices=_choices(RefundStatus), default=RefundStatus.PENDING)
    provider_reference = models.CharField(max_length=REFERENCE_LENGTH, blank=True)
    reason = models.CharField(max_length=REASON_LENGTH)
    actor = models.CharField(max_length=ACTOR_LENGTH)
    failure = models.CharField(max_length=REASON_LENGTH, blank=True)
    transaction = models.OneToOneField(LedgerTransaction, on_delete=models.PROTECT, related_name="payment_refund")
    reversal = models.OneToOneField(LedgerTransaction, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    checked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            _whole_cents("amount_nanos", "payment_refund_amount_is_whole_cents"),
            models.CheckConstraint(
                condition=Q(status="failed", reversal__isnull=False) | (~Q(status="failed") & Q(reversal__isnull=True)),
                name="payment_refund_failed_when_reversed",
            ),
            models.UniqueConstraint(
                fields=["payment", "provider_reference"],
                condition=~Q(provider_reference=""),
                name="payment_refund_reference_unique",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class Dispute(OrganizationScoped):
    """A payment that its payer disputes. The provider takes the money at first, and gives it back if we win."""

    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="disputes")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="disputes")
    provider_reference = models.CharField(max_length=REFERENCE_LENGTH)
    amount_nanos = models.BigIntegerField()
    status = models.CharField(max_length=60)
    reason = models.CharField(max_length=100, blank=True)
    withdrawal = models.OneToOneField(LedgerTransaction, null=True, on_delete=models.PROTECT, related_name="+")
    reinstatement = models.OneToOneField(LedgerTransaction, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="dispute_amount_positive"),
            models.CheckConstraint(
                condition=Q(reinstatement__isnull=True) | Q(withdrawal__isnull=False),
                name="dispute_reinstated_after_withdrawal",
            ),
            models.UniqueConstraint(fields=["payment", "provider_reference"], name="dispute_reference_unique"),
        ]

    def __str__(self) -> str:
        return self.provider_reference


class AutoTopUp(OrganizationScoped):
    """When an organization's saved card is charged without asking again, and why that was paused."""

    organization = models.OneToOneField(
        "accounts.Organization", on_delete=models.PROTECT, primary_key=True, related_name="auto_top_up"
    )
    enabled = models.BooleanField(default=False)
    threshold_nanos = models.BigIntegerField()
    amount_nanos = models.BigIntegerField()
    monthly_ceiling_nanos = models.BigIntegerField()
    card = models.ForeignKey(PaymentMethod, null=True, on_delete=models.PROTECT, related_name="+")
    failures = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_reason = models.CharField(max_length=REASON_LENGTH, blank=True)
    actor = models.CharField(max_length=ACTOR_LENGTH)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            _whole_cents("amount_nanos", "auto_top_up_amount_is_whole_cents"),
            models.CheckConstraint(
                condition=Q(threshold_nanos__gte=0, monthly_ceiling_nanos__gte=F("amount_nanos")),
                name="auto_top_up_ceiling_allows_one",
            ),
        ]

    def __str__(self) -> str:
        return f"automatic top-up of {self.organization_id}"


class WebhookInbox(models.Model):
    """An event that a provider sent and signed, kept as it came before it was answered. One row an event."""

    provider = models.CharField(max_length=30)
    event_id = models.CharField(max_length=REFERENCE_LENGTH)
    type = models.CharField(max_length=100)
    payload = models.TextField()
    status = models.CharField(max_length=20, choices=_choices(EventStatus), default=EventStatus.RECEIVED)
    reference = models.CharField(max_length=REFERENCE_LENGTH, blank=True)
    error = models.CharField(max_length=REASON_LENGTH, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    deliveries = models.PositiveIntegerField(default=1)
    received_at = models.DateTimeField(db_default=Now())
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    processed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "incoming event"
        indexes = [
            models.Index(
                fields=["next_attempt_at"], condition=Q(status__in=["received", "parked"]), name="inbox_to_be_tried"
            )
        ]
        constraints = [models.UniqueConstraint(fields=["provider", "event_id"], name="inbox_event_unique")]

    def __str__(self) -> str:
        return self.event_id
