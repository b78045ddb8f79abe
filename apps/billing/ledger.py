"""The ledger: writing balanced transactions once, and reading balances. Amounts are integer nano-USD.

Who writes holds the locks of the wallets it moves (`lock_wallets`), taken in one order; the database adds the lines up
and refuses at COMMIT what does not sum to zero."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import IntegrityError, connection, transaction
from django.db.models import Sum

from apps.billing.balance_cache import invalidate_on_commit
from apps.billing.models import (
    ACTOR_LENGTH,
    KEY_LENGTH,
    REASON_LENGTH,
    AccountKind,
    BillingAccount,
    LedgerAccount,
    LedgerLine,
    LedgerTransaction,
    TransactionKind,
)
from apps.core.errors import Conflict, InvalidInput

MAX_NANOS: Final = 10**18
"""A thousand million dollars: no single line is larger, so that sums of lines fit into the database's 64 bits."""
SYSTEM: Final = "system"
"""The actor of what nobody asked for by hand."""

_MAKE_WALLETS = """
INSERT INTO billing_ledgeraccount (kind, organization_id, balance_nanos)
SELECT 'wallet', wanted, 0 FROM unnest(%s::varchar[]) wanted ORDER BY wanted
ON CONFLICT (organization_id) DO UPDATE SET kind = excluded.kind
"""


@dataclass(frozen=True)
class Line:
    """An amount for an account: of the organization's wallet, or of the one account of another kind."""

    account: AccountKind
    amount_nanos: int
    grant_id: str | None = None


@dataclass(frozen=True)
class Entry:
    """What a transaction is about. `content` says what its idempotency key stands for."""

    kind: TransactionKind
    organization_id: str | None
    idempotency_key: str
    reason: str
    actor: str = SYSTEM
    reverses_id: str | None = None
    content: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        for name, value, longest in (
            ("idempotency key", self.idempotency_key, KEY_LENGTH),
            ("reason", self.reason.strip(), REASON_LENGTH),
            ("actor", self.actor, ACTOR_LENGTH),
        ):
            if not 1 <= len(value) <= longest:
                raise InvalidInput(f"{name}: 1 to {longest} characters are required")

    def digest(self) -> str:
        """A hash of everything that the same key must repeat. Who asks again does not matter."""
        said = [self.kind.value, self.organization_id, self.reason.strip(), self.reverses_id, *self.content]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True)
class Movement:
    """A transaction as its organization sees it: what it did to the wallet, in nano-USD."""

    transaction_id: str
    kind: str
    reason: str
    created_at: datetime
    amount_nanos: int


@transaction.atomic
def post(
    kind: TransactionKind,
    lines: Sequence[Line],
    *,
    organization_id: str | None,
    idempotency_key: str,
    reason: str,
    actor: str,
) -> LedgerTransaction:
    """Write one transaction, once. The same key with the same content returns the first one.

    Raises InvalidInput for lines that do not balance and Conflict for a key that was used for something else."""
    entry = Entry(kind, organization_id, idempotency_key, reason, actor, content=_said(lines))
    check_lines(lines, organization_id)
    if organization_id is not None:
        lock_wallets([organization_id])
    else:
        _lock_key(idempotency_key)
    return find(entry) or write(entry, lines)


def find(entry: Entry) -> LedgerTransaction | None:
    """The transaction that this idempotency key made already. Raises Conflict when it was for something else.

    Only under the lock of the wallet is None an answer that stays true."""
    earlier: LedgerTransaction | None = LedgerTransaction.objects.filter(idempotency_key=entry.idempotency_key).first()
    if earlier is not None and earlier.content_digest != entry.digest():
        raise Conflict(f"the idempotency key {entry.idempotency_key!r} was used for something else: {earlier.id}")
    return earlier


def write(entry: Entry, lines: Sequence[Line]) -> LedgerTransaction:
    """Write a transaction whose wallet the caller has locked. Raises Conflict as `find` does."""
    written = open_transaction(entry)
    add_lines({written: lines})
    return written


def open_transaction(entry: Entry) -> LedgerTransaction:
    """The transaction without its lines, for who needs its id first; the lines must follow before COMMIT.

    Raises Conflict for a key that another organization has used; the same organization waits for its lock before."""
    row = _row(entry)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        if find(entry) is None:
            raise
        raise Conflict(f"the idempotency key {entry.idempotency_key!r} is being used elsewhere") from None
    if entry.organization_id is not None:
        invalidate_on_commit(entry.organization_id)
    return row


def write_usage(entries: Sequence[tuple[Entry, Sequence[Line]]]) -> None:
    """Write many transactions at once, each with a key that was never used. The wallets must be locked.

    The cached balances stay: they learn of usage when it is settled, not when it is posted."""
    rows = LedgerTransaction.objects.bulk_create([_row(entry) for entry, _ in entries])
    add_lines({row: lines for row, (_, lines) in zip(rows, entries, strict=True)})


def add_lines(lines_of: Mapping[LedgerTransaction, Sequence[Line]]) -> None:
    """Add the lines of transactions that were opened in this database transaction, in one statement."""
    for row, lines in lines_of.items():
        check_lines(lines, row.organization_id)
    wallets = lock_wallets({row.organization_id for row in lines_of if row.organization_id is not None})
    shared = _shared_accounts({line.account for lines in lines_of.values() for line in lines})
    LedgerLine.objects.bulk_create(
        LedgerLine(
            transaction=row,
            account_id=wallets[row.organization_id] if line.account is AccountKind.WALLET else shared[line.account],
            amount_nanos=line.amount_nanos,
            grant_id=line.grant_id,
        )
        for row, lines in lines_of.items()
        for line in lines
    )


def check_lines(lines: Sequence[Line], organization_id: str | None) -> None:
    """Raises InvalidInput for what can never be a transaction; the database checks the same again."""
    if len(lines) < 2:
        raise InvalidInput("a ledger transaction has at least two lines")
    if any(line.amount_nanos == 0 or abs(line.amount_nanos) > MAX_NANOS for line in lines):
        raise InvalidInput(f"the amount of a ledger line is 1 to {MAX_NANOS} nano-USD, or its negative")
    if sum(line.amount_nanos for line in lines) != 0:
        raise InvalidInput("the lines of a ledger transaction sum to zero")
    if organization_id is None and any(line.account is AccountKind.WALLET for line in lines):
        raise InvalidInput("a line on a wallet needs its organization")


def lock_wallets(organization_ids: Collection[str]) -> dict[str | None, int]:
    """Lock the wallets of these organizations until the end of the database transaction; returns their account ids.

    Missing wallets are made. Locks are taken by ascending organization id, in one pass, so that two writers cannot
    wait for each other in a circle: call it once, with all the wallets that will be moved."""
    wanted = set(organization_ids)
    wallets = LedgerAccount.objects.filter(kind=AccountKind.WALLET, organization_id__in=wanted)
    if wallets.count() < len(wanted):
        with connection.cursor() as cursor:
            cursor.execute(_MAKE_WALLETS, [list(wanted)])
    locked = wallets.order_by("organization_id").select_for_update(no_key=True)
    return dict(locked.values_list("organization_id", "id"))


def balance_nanos(organization_id: str) -> int:
    """The organization's balance in nano-USD: above zero it has credit, below it owes; 0 before its first movement."""
    balance = LedgerAccount.objects.for_organization(organization_id).values_list("balance_nanos", flat=True).first()
    return balance or 0


def credit_limit_nanos(organization_id: str) -> int:
    """How far below zero the organization's balance may go, in nano-USD; 0 when nobody has set it."""
    terms = BillingAccount.objects.for_organization(organization_id)
    return terms.values_list("credit_limit_nanos", flat=True).first() or 0


def billing_account(organization_id: str) -> BillingAccount:
    """On what terms the organization pays; made with the defaults on first use."""
    account: BillingAccount = BillingAccount.objects.get_or_create(organization_id=organization_id)[0]
    return account


def movements(organization_id: str, *, limit: int, before: str | None = None) -> list[Movement]:
    """The latest movements on the organization's wallet, newest first, at most `limit`.

    `before` is the id of the last transaction of the page before this one."""
    rows = LedgerTransaction.objects.for_organization(organization_id)
    if before is not None:
        rows = rows.filter(id__lt=before)
    page = list(rows.order_by("-id")[:limit])
    amounts = dict(
        LedgerLine.objects.filter(transaction__in=page, account__organization_id=organization_id)
        .values_list("transaction_id")
        .annotate(amount=Sum("amount_nanos"))
    )
    return [Movement(row.id, row.kind, row.reason, row.created_at, int(amounts.get(row.id, 0))) for row in page]


def _lock_key(idempotency_key: str) -> None:
    """Twins without a wallet wait for each other here."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [idempotency_key])


def _row(entry: Entry) -> LedgerTransaction:
    return LedgerTransaction(
        kind=entry.kind,
        organization_id=entry.organization_id,
        idempotency_key=entry.idempotency_key,
        content_digest=entry.digest(),
        reason=entry.reason.strip(),
        actor=entry.actor,
        reverses_id=entry.reverses_id,
    )


def _said(lines: Sequence[Line]) -> tuple[object, ...]:
    return tuple(sorted((line.account.value, line.amount_nanos, line.grant_id or "") for line in lines))


def _shared_accounts(kinds: Collection[AccountKind]) -> dict[str, int]:
    wanted = sorted(set(kinds) - {AccountKind.WALLET})
    rows = LedgerAccount.objects.filter(organization=None, kind__in=wanted)
    found = dict(rows.values_list("kind", "id"))
    if len(found) < len(wanted):
        missing = [LedgerAccount(kind=kind) for kind in wanted if kind not in found]
        LedgerAccount.objects.bulk_create(missing, ignore_conflicts=True)
        found = dict(rows.values_list("kind", "id"))
    return found
