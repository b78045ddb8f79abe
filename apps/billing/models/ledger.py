"""The ledger: accounts, transactions and their lines, and the credit that they move. Nothing here is ever changed."""

from enum import StrEnum
from functools import partial

from django.db import models
from django.db.models.functions import Now

from apps.core.ids import ID_LENGTH, new_id
from apps.core.models import OrganizationScoped

KEY_LENGTH = 200
REASON_LENGTH = 500
ACTOR_LENGTH = 200

new_transaction_id = partial(new_id, "txn")
new_grant_id = partial(new_id, "grant")


class AccountKind(StrEnum):
    """Accounts of the books. Every organization has a wallet; each other kind exists once."""

    WALLET = "wallet"
    """What the installation owes an organization: above zero the organization has credit, below it has a debt."""
    CASH = "cash"
    PROMOTIONAL = "promotional"
    ADJUSTMENTS = "adjustments"
    REVENUE = "revenue"
    BREAKAGE = "breakage"
    """Credit that expired unused."""
    WRITE_OFFS = "write_offs"
    """Debts that nobody will pay."""


class TransactionKind(StrEnum):
    """Why money moved."""

    GRANT = "grant"
    USAGE = "usage"
    """Posted usage records: the sum of these per organization equals its posted records."""
    CHARGE = "charge"
    """Anything else that is charged."""
    REFUND = "refund"
    ADJUSTMENT = "adjustment"
    EXPIRY = "expiry"
    WRITE_OFF = "write_off"
    PAYMENT_REFUND = "payment_refund"
    """Paid money goes back to who paid it; positive when that failed."""
    DISPUTE = "dispute"
    """Paid money is taken from us because its payer disputes it; positive when we get it back."""


class GrantSource(StrEnum):
    """Where credit came from; decides its priority and the account that paid for it."""

    PROMOTIONAL = "promotional"
    GOODWILL = "goodwill"
    MANUAL = "manual"
    PURCHASED = "purchased"


def _choices(kinds: type[StrEnum]) -> list[tuple[str, str]]:
    return [(kind.value, kind.value.replace("_", " ").capitalize()) for kind in kinds]


class BillingAccount(OrganizationScoped):
    """On what terms an organization pays. Made on first use; without a row the defaults hold."""

    organization = models.OneToOneField(
        "accounts.Organization", on_delete=models.PROTECT, primary_key=True, related_name="billing_account"
    )
    credit_limit_nanos = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(credit_limit_nanos__gte=0), name="billing_credit_limit_not_negative"
            )
        ]

    def __str__(self) -> str:
        return f"terms of {self.organization_id}"


class LedgerAccount(OrganizationScoped):
    """An account of the books.

    `balance_nanos` is kept by the database for wallets, in the statement that adds the lines; it is null for the
    shared accounts, where it would be one row that everybody waits for. No foreign key in the database: usage of an
    organization that is gone must not stop the posting of all others, and the ledger outlives everything it names."""

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=20, choices=_choices(AccountKind))
    organization = models.OneToOneField(
        "accounts.Organization",
        null=True,
        on_delete=models.PROTECT,
        db_constraint=False,
        related_name="wallet",
    )
    balance_nanos = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind"], condition=models.Q(organization=None), name="ledger_account_shared_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(kind=AccountKind.WALLET, organization__isnull=False, balance_nanos__isnull=False)
                | (
                    ~models.Q(kind=AccountKind.WALLET) & models.Q(organization__isnull=True, balance_nanos__isnull=True)
                ),
                name="ledger_account_wallet_has_owner",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.organization_id}" if self.organization_id else self.kind


class LedgerTransaction(OrganizationScoped):
    """One movement of money: at least two lines that sum to zero, which the database checks at COMMIT.

    `content_digest` is what the idempotency key was used for; the same key for something else is a conflict."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_transaction_id, editable=False)
    kind = models.CharField(max_length=20, choices=_choices(TransactionKind))
    organization = models.ForeignKey(
        "accounts.Organization",
        null=True,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="ledger_transactions",
    )
    idempotency_key = models.CharField(max_length=KEY_LENGTH, unique=True)
    content_digest = models.CharField(max_length=64)
    reason = models.CharField(max_length=REASON_LENGTH)
    actor = models.CharField(max_length=ACTOR_LENGTH)
    reverses = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="reversals")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization", "-id"], name="ledger_txn_by_organization"),
            # For statements: there is a posting a second of busy organizations, and few of all the rest.
            models.Index(
                fields=["organization", "created_at"],
                condition=~models.Q(kind=TransactionKind.USAGE),
                name="ledger_txn_beside_usage",
            ),
        ]
        constraints = [models.CheckConstraint(condition=~models.Q(reason=""), name="ledger_transaction_has_reason")]

    def __str__(self) -> str:
        return self.id


class Grant(OrganizationScoped):
    """Credit with a source and perhaps an end. Used in the order priority, expiry (never last), age.

    `remaining_nanos` is kept by the database: the sum of the lines that name the grant. All else never changes."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_grant_id, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.PROTECT, related_name="grants", db_index=False
    )
    source = models.CharField(max_length=20, choices=_choices(GrantSource))
    priority = models.PositiveSmallIntegerField()
    amount_nanos = models.BigIntegerField()
    remaining_nanos = models.BigIntegerField(default=0)
    expires_at = models.DateTimeField(null=True, blank=True)
    transaction = models.OneToOneField(LedgerTransaction, on_delete=models.PROTECT, related_name="grant")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization", "-id"], name="grant_by_organization"),
            models.Index(
                fields=["organization"], condition=models.Q(remaining_nanos__gt=0), name="grant_open_by_organization"
            ),
            models.Index(
                fields=["expires_at"],
                condition=models.Q(remaining_nanos__gt=0, expires_at__isnull=False),
                name="grant_open_by_expiry",
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(amount_nanos__gt=0), name="grant_amount_positive"),
            models.CheckConstraint(
                condition=models.Q(remaining_nanos__gte=0, remaining_nanos__lte=models.F("amount_nanos")),
                name="grant_never_used_beyond_amount",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class LedgerLine(models.Model):
    """An amount on one account. Wallet lines that use or give credit name its grant."""

    id = models.BigAutoField(primary_key=True)
    transaction = models.ForeignKey(LedgerTransaction, on_delete=models.PROTECT, related_name="lines")
    account = models.ForeignKey(LedgerAccount, on_delete=models.PROTECT, related_name="lines", db_index=False)
    amount_nanos = models.BigIntegerField()
    grant = models.ForeignKey(Grant, null=True, on_delete=models.PROTECT, related_name="lines", db_index=False)

    class Meta:
        indexes = [
            models.Index(fields=["account", "id"], name="ledger_line_by_account"),
            models.Index(fields=["grant"], condition=models.Q(grant__isnull=False), name="ledger_line_by_grant"),
        ]
        constraints = [models.CheckConstraint(condition=~models.Q(amount_nanos=0), name="ledger_line_moves_something")]

    def __str__(self) -> str:
        return f"{self.transaction_id} {self.amount_nanos:+d}"
