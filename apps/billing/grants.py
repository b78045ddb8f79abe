"""Credit: granting it, charging it in a fixed order, giving it back, expiring it. Amounts are integer nano-USD.

Every function is one database transaction, happens once per idempotency key, and is safe to call at the same time
from anywhere: it holds the lock of the organization's wallet from its first look to its COMMIT."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models import F, QuerySet

from apps.accounts.models import Organization
from apps.billing import ledger
from apps.billing.allocation import Move, Purse, give_back
from apps.billing.ledger import MAX_NANOS, SYSTEM, Entry, Line
from apps.billing.models import (
    AccountKind,
    Grant,
    GrantSource,
    LedgerAccount,
    LedgerLine,
    LedgerTransaction,
    TransactionKind,
)
from apps.core.errors import Conflict, InvalidInput, NotFound
from apps.core.money import format_usd

PRIORITIES: dict[GrantSource, int] = {
    GrantSource.PROMOTIONAL: 10,
    GrantSource.GOODWILL: 20,
    GrantSource.MANUAL: 30,
    GrantSource.PURCHASED: 40,
}
"""What is used first: the smaller number. What was given is used before what was paid for."""

PAID_BY: dict[GrantSource, AccountKind] = {
    GrantSource.PROMOTIONAL: AccountKind.PROMOTIONAL,
    GrantSource.GOODWILL: AccountKind.PROMOTIONAL,
    GrantSource.MANUAL: AccountKind.ADJUSTMENTS,
    GrantSource.PURCHASED: AccountKind.CASH,
}
"""The account on the other side of a grant."""

CHARGES = (TransactionKind.CHARGE, TransactionKind.USAGE)
_DUE = """
SELECT id, organization_id FROM billing_grant credit
WHERE expires_at <= %s AND remaining_nanos > 0 AND NOT EXISTS (
    SELECT FROM usage_unpostedusage JOIN usage_usagerecord record USING (day, request_id)
    WHERE record.organization_id = credit.organization_id AND record.created_at < credit.expires_at)
ORDER BY id
"""


@dataclass(frozen=True)
class Credit:
    """Credit to be granted. Without `expires_at` it never ends; without `priority` its source decides."""

    amount_nanos: int
    source: GrantSource
    expires_at: datetime | None = None
    priority: int | None = None


@dataclass(frozen=True)
class UsageCharge:
    """What one batch of posted records costs one organization."""

    organization_id: str
    amount_nanos: int
    idempotency_key: str
    reason: str


@dataclass(frozen=True)
class Withdrawal:
    """Paid money that leaves again, with the credit it had become: `kind` is PAYMENT_REFUND or DISPUTE.

    `unused_only` takes no more than is left of the grant; otherwise other credit pays what it lacks, then a debt."""

    grant_id: str
    amount_nanos: int
    kind: TransactionKind
    unused_only: bool


def in_order_of_use(grants: QuerySet[Grant]) -> QuerySet[Grant]:
    """Grants in the order in which they are used: priority, then expiry (never is last), then age."""
    return grants.order_by("priority", F("expires_at").asc(nulls_last=True), "created_at", "id")


@transaction.atomic
def grant_credit(
    organization_id: str, credit: Credit, *, idempotency_key: str, reason: str, actor: str = SYSTEM
) -> Grant:
    """Give the organization credit; a debt is paid from it at once. Returns the grant, the first one for a used key.

    Raises InvalidInput for an amount that is not positive, NotFound for an unknown organization and Conflict for a
    key that was used for something else. An end in the past is allowed: the next expiry run takes what is left."""
    _check_amount(credit.amount_nanos)
    end = credit.expires_at.isoformat() if credit.expires_at else None
    priority = PRIORITIES[credit.source] if credit.priority is None else credit.priority
    content = (credit.amount_nanos, credit.source.value, end, priority)
    entry = Entry(TransactionKind.GRANT, organization_id, idempotency_key, reason, actor, content=content)
    if not Organization.objects.filter(pk=organization_id).exists():
        raise NotFound(f"there is no organization with the id {organization_id!r}")
    purse = _locked_purse(organization_id)
    if earlier := ledger.find(entry):
        return Grant.objects.get(transaction=earlier)
    written = ledger.open_transaction(entry)
    grant = Grant.objects.create(
        organization_id=organization_id,
        source=credit.source,
        priority=priority,
        amount_nanos=credit.amount_nanos,
        expires_at=credit.expires_at,
        transaction=written,
    )
    moves = purse.give(credit.amount_nanos, grant.id)
    ledger.add_lines({written: _lines(moves, PAID_BY[credit.source])})
    grant.refresh_from_db()
    return grant


@transaction.atomic
def charge(
    organization_id: str, amount_nanos: int, *, idempotency_key: str, reason: str, actor: str = SYSTEM
) -> LedgerTransaction:
    """Charge the wallet (> 0 nano-USD): grants in the order of use, then credit without a grant, then debt.

    Never refused for want of credit: what was used must be paid. Raises InvalidInput for an amount that is not
    positive and Conflict for a key that was used for something else."""
    _check_amount(amount_nanos)
    content = (amount_nanos,)
    entry = Entry(TransactionKind.CHARGE, organization_id, idempotency_key, reason, actor, content=content)
    purse = _locked_purse(organization_id)
    return ledger.find(entry) or ledger.write(entry, _lines(purse.take(amount_nanos), AccountKind.REVENUE))


@transaction.atomic
def correct_usage(
    organization_id: str, difference_nanos: int, *, idempotency_key: str, reason: str, actor: str
) -> LedgerTransaction:
    """Correct what usage cost: above zero is charged as any charge is; below zero comes back as credit without an end,
    after a debt is paid, because which grants paid for one request of a posted batch is not kept.

    Raises InvalidInput for zero and Conflict for a key that was used for something else."""
    if difference_nanos > 0:
        return charge(organization_id, difference_nanos, idempotency_key=idempotency_key, reason=reason, actor=actor)
    _check_amount(-difference_nanos)
    content = (difference_nanos,)
    entry = Entry(TransactionKind.REFUND, organization_id, idempotency_key, reason, actor, content=content)
    purse = _locked_purse(organization_id)
    if earlier := ledger.find(entry):
        return earlier
    return ledger.write(entry, _lines(purse.give(-difference_nanos, None), AccountKind.REVENUE))


@transaction.atomic
def charge_usage(charges: Sequence[UsageCharge]) -> None:
    """Charge posted usage, one transaction an organization, in the database transaction that posts it.

    Raises django.db.IntegrityError when one of the keys was used: the records were posted before, so nothing may
    be posted now."""
    purses = _locked_purses({charge.organization_id for charge in charges})
    entries = []
    for usage in charges:
        _check_amount(usage.amount_nanos)
        entry = Entry(TransactionKind.USAGE, usage.organization_id, usage.idempotency_key, usage.reason)
        moves = purses[usage.organization_id].take(usage.amount_nanos)
        entries.append((entry, _lines(moves, AccountKind.REVENUE)))
    ledger.write_usage(entries)


@transaction.atomic
def refund(charge_id: str, amount_nanos: int, *, idempotency_key: str, reason: str, actor: str) -> LedgerTransaction:
    """Give back a part or all of a charge: to where it was taken from, last taken first; a debt is paid before.

    All refunds of a charge together are never more than the charge: Conflict. A part that came from a grant which
    has expired meanwhile expires again with the next run. Raises NotFound when there is no such charge."""
    _check_amount(amount_nanos)
    charged = LedgerTransaction.objects.filter(pk=charge_id, kind__in=CHARGES).first()
    if charged is None or charged.organization_id is None:
        raise NotFound(f"there is no charge with the id {charge_id!r}")
    purse = _locked_purse(charged.organization_id)
    entry = Entry(
        TransactionKind.REFUND, charged.organization_id, idempotency_key, reason, actor, charge_id, (amount_nanos,)
    )
    if earlier := ledger.find(entry):
        return earlier
    taken = _wallet_moves(charged)
    returned = [move for reversal in charged.reversals.all() for move in _returned(reversal)]
    rest = -sum(move.amount_nanos for move in taken) - sum(move.amount_nanos for move in returned)
    if amount_nanos > rest:
        raise Conflict(f"of the charge {charge_id} {rest} nano-USD are left to refund, not {amount_nanos}")
    moves = [
        move
        for back in give_back(taken, returned, amount_nanos)
        for move in purse.give(back.amount_nanos, back.grant_id)
    ]
    return ledger.write(entry, _lines(moves, AccountKind.REVENUE))


@transaction.atomic
def adjust(
    organization_id: str, amount_nanos: int, *, idempotency_key: str, reason: str, actor: str
) -> LedgerTransaction:
    """Correct a balance by hand: above zero gives credit without an end, below zero takes as a charge does.

    Raises InvalidInput for an amount of zero or an empty reason and Conflict for a key that was used otherwise."""
    _check_amount(abs(amount_nanos))
    content = (amount_nanos,)
    entry = Entry(TransactionKind.ADJUSTMENT, organization_id, idempotency_key, reason, actor, content=content)
    purse = _locked_purse(organization_id)
    if earlier := ledger.find(entry):
        return earlier
    moves = purse.give(amount_nanos, None) if amount_nanos > 0 else purse.take(-amount_nanos)
    return ledger.write(entry, _lines(moves, AccountKind.ADJUSTMENTS))


@transaction.atomic
def write_off(organization_id: str, *, idempotency_key: str, reason: str, actor: str) -> LedgerTransaction:
    """Give up the organization's whole debt. Raises Conflict when it has none, or the key was used otherwise."""
    entry = Entry(TransactionKind.WRITE_OFF, organization_id, idempotency_key, reason, actor)
    purse = _locked_purse(organization_id)
    if earlier := ledger.find(entry):
        return earlier
    if not purse.debt_nanos:
        raise Conflict("the organization has no debt")
    return ledger.write(entry, _lines(purse.give(purse.debt_nanos, None), AccountKind.WRITE_OFFS))


@transaction.atomic
def withdraw(wanted: Withdrawal, *, idempotency_key: str, reason: str, actor: str = SYSTEM) -> LedgerTransaction:
    """Take credit that was paid for out of the wallet again, because its money goes back to who paid.

    Raises NotFound for an unknown grant, and Conflict when `unused_only` asks for more than is left of it, or for a key
    that was used for something else."""
    _check_amount(wanted.amount_nanos)
    owner = Grant.objects.filter(pk=wanted.grant_id).values_list("organization_id", flat=True).first()
    if owner is None:
        raise NotFound(f"there is no grant with the id {wanted.grant_id!r}")
    content = (wanted.grant_id, wanted.amount_nanos)
    entry = Entry(wanted.kind, owner, idempotency_key, reason, actor, content=content)
    purse = _locked_purse(owner)
    if earlier := ledger.find(entry):
        return earlier
    rest = purse.rests.get(wanted.grant_id, 0)
    if wanted.unused_only and wanted.amount_nanos > rest:
        raise Conflict(f"of this credit {format_usd(rest)} USD are unused, not {format_usd(wanted.amount_nanos)}")
    own = min(rest, wanted.amount_nanos)
    moves = [Move(-own, wanted.grant_id)] if own else []
    if own:
        purse.rests[wanted.grant_id] = rest - own
    if own < wanted.amount_nanos:
        moves += purse.take(wanted.amount_nanos - own)
    return ledger.write(entry, _lines(moves, AccountKind.CASH))


@transaction.atomic
def return_withdrawn(
    withdrawal_id: str, *, idempotency_key: str, reason: str, actor: str = SYSTEM
) -> LedgerTransaction:
    """Give back all that `withdraw` took, to where it was taken from; a debt is paid before it can be used.

    Raises NotFound for an unknown withdrawal and Conflict for a key that was used otherwise."""
    kinds = (TransactionKind.PAYMENT_REFUND, TransactionKind.DISPUTE)
    taken = LedgerTransaction.objects.filter(pk=withdrawal_id, kind__in=kinds, reverses=None).first()
    if taken is None or taken.organization_id is None:
        raise NotFound(f"there is no withdrawal with the id {withdrawal_id!r}")
    entry = Entry(
        TransactionKind(taken.kind), taken.organization_id, idempotency_key, reason, actor, reverses_id=withdrawal_id
    )
    purse = _locked_purse(taken.organization_id)
    if earlier := ledger.find(entry):
        return earlier
    if taken.reversals.exists():
        raise Conflict(f"the withdrawal {withdrawal_id} was given back already")
    moves = [move for back in reversed(_wallet_moves(taken)) for move in purse.give(-back.amount_nanos, back.grant_id)]
    return ledger.write(entry, _lines(moves, AccountKind.CASH))


def expire_due(now: datetime) -> int:
    """Move the unused rest of every grant that ended at or before `now` to breakage; returns how many grants.

    One database transaction a grant. Until this has run, credit can be used: expiry is an act, not a clock. A grant
    whose organization has usage from before its end that is not posted yet waits for the next time, because it may
    have to pay for that."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE, [now])
        due = cursor.fetchall()
    return sum(_expire(grant_id, organization_id) for grant_id, organization_id in due)


@transaction.atomic
def _expire(grant_id: str, organization_id: str) -> bool:
    rest = _locked_purse(organization_id).rests.get(grant_id, 0)
    if not rest:
        return False
    # A refund can bring something back, which then expires again: the key counts.
    earlier = LedgerTransaction.objects.filter(kind=TransactionKind.EXPIRY, lines__grant=grant_id).count()
    entry = Entry(TransactionKind.EXPIRY, organization_id, f"expiry:{grant_id}:{earlier + 1}", "Credit expired")
    ledger.write(entry, _lines([Move(-rest, grant_id)], AccountKind.BREAKAGE))
    return True


def _locked_purse(organization_id: str) -> Purse:
    return _locked_purses([organization_id])[organization_id]


def _locked_purses(organization_ids: Collection[str]) -> dict[str, Purse]:
    """What the wallets hold, under their locks: nobody else can change it before COMMIT."""
    ledger.lock_wallets(organization_ids)
    wallets = LedgerAccount.objects.filter(organization_id__in=organization_ids)
    purses = {
        str(owner): Purse({}, balance) for owner, balance in wallets.values_list("organization_id", "balance_nanos")
    }
    open_grants = Grant.objects.filter(organization_id__in=organization_ids, remaining_nanos__gt=0)
    for grant in in_order_of_use(open_grants):
        purse = purses[grant.organization_id]
        purse.rests[grant.id] = grant.remaining_nanos
        purse.loose_nanos -= grant.remaining_nanos
    return purses


def _lines(moves: Sequence[Move], other_side: AccountKind) -> list[Line]:
    """The moves on the wallet, and their sum on the other account."""
    wallet = [Line(AccountKind.WALLET, move.amount_nanos, move.grant_id) for move in moves]
    return [*wallet, Line(other_side, -sum(move.amount_nanos for move in moves))]


def _wallet_moves(written: LedgerTransaction) -> list[Move]:
    lines = LedgerLine.objects.filter(transaction=written, account__kind=AccountKind.WALLET)
    return [Move(*values) for values in lines.order_by("id").values_list("amount_nanos", "grant_id")]


def _returned(reversal: LedgerTransaction) -> list[Move]:
    """What a refund gave back, before a part of it paid a debt at once."""
    moves = _wallet_moves(reversal)
    to_grants = [move for move in moves if move.grant_id is not None and move.amount_nanos > 0]
    loose = sum(move.amount_nanos for move in moves) - sum(move.amount_nanos for move in to_grants)
    return [*to_grants, Move(loose, None)]


def _check_amount(amount_nanos: int) -> None:
    if not 1 <= amount_nanos <= MAX_NANOS:
        raise InvalidInput(f"an amount is 1 to {MAX_NANOS} nano-USD")
