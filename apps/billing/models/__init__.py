"""The tables of billing, one module a subject; everybody imports them from here."""

from apps.billing.models.ledger import (
    ACTOR_LENGTH,
    KEY_LENGTH,
    REASON_LENGTH,
    AccountKind,
    BillingAccount,
    Grant,
    GrantSource,
    LedgerAccount,
    LedgerLine,
    LedgerTransaction,
    TransactionKind,
    new_grant_id,
    new_transaction_id,
)

__all__ = [
    "ACTOR_LENGTH",
    "KEY_LENGTH",
    "REASON_LENGTH",
    "AccountKind",
    "BillingAccount",
    "Grant",
    "GrantSource",
    "LedgerAccount",
    "LedgerLine",
    "LedgerTransaction",
    "TransactionKind",
    "new_grant_id",
    "new_transaction_id",
]
