"""The ledger: balanced, written once per key, never changed; and the database says so itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import IntegrityError, connection, transaction

from apps.accounts.models import Organization
from apps.billing import ledger
from apps.billing.grants import charge
from apps.billing.ledger import Line, Movement
from apps.billing.models import AccountKind, LedgerAccount, LedgerLine, LedgerTransaction, TransactionKind
from apps.core.errors import Conflict, InvalidInput
from apps.core.ids import new_id
from tests.billing import books

WALLET, CASH, REVENUE = AccountKind.WALLET, AccountKind.CASH, AccountKind.REVENUE


@pytest.fixture
def owner(db: None) -> Organization:
    return books.organization()


def post(owner: Organization | None, lines: list[Line], key: str, **changes: str) -> LedgerTransaction:
    words = {"reason": "Because", "actor": "test", **changes}
    owner_id = owner.id if owner else None
    return ledger.post(TransactionKind.ADJUSTMENT, lines, organization_id=owner_id, idempotency_key=key, **words)


def both(amount: int) -> list[Line]:
    return [Line(WALLET, amount), Line(CASH, -amount)]


def test_a_posted_transaction_moves_the_balance(owner: Organization) -> None:
    assert ledger.balance_nanos(owner.id) == 0
    post(owner, both(70), "a")
    post(owner, both(-100), "b")
    assert ledger.balance_nanos(owner.id) == -30
    assert [movement.amount_nanos for movement in ledger.movements(owner.id, limit=9)] == [-100, 70]


def test_the_same_key_and_content_returns_the_first_transaction(owner: Organization) -> None:
    first = post(owner, both(70), "a")
    again = post(owner, list(reversed(both(70))), "a", actor="somebody else")
    assert (again.id, ledger.balance_nanos(owner.id)) == (first.id, 70)


@pytest.mark.parametrize("difference", ["reason", "amount", "account", "organization", "nobody"])
def test_the_same_key_for_anything_else_is_a_conflict(owner: Organization, difference: str) -> None:
    post(owner, both(70), "a")
    lines = {"amount": both(71), "account": [Line(WALLET, 70), Line(REVENUE, -70)]}.get(difference, both(70))
    whose: Organization | None = books.organization("Other") if difference == "organization" else owner
    if difference == "nobody":
        whose, lines = None, [Line(CASH, 70), Line(REVENUE, -70)]
    with pytest.raises(Conflict):
        post(whose, lines, "a", reason="Other" if difference == "reason" else "Because")
    assert LedgerTransaction.objects.count() == 1


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [Line(WALLET, 5)],
        [Line(WALLET, 5), Line(CASH, -4)],
        [Line(WALLET, 5), Line(CASH, -5), Line(REVENUE, 0)],
        [Line(WALLET, 10**18 + 1), Line(CASH, -(10**18) - 1)],
    ],
)
def test_lines_that_can_never_be_a_transaction_are_refused(owner: Organization, lines: list[Line]) -> None:
    with pytest.raises(InvalidInput):
        post(owner, lines, "a")
    assert not LedgerTransaction.objects.exists()


@pytest.mark.parametrize("change", [{"reason": ""}, {"reason": "  "}, {"actor": ""}, {"reason": "x" * 501}])
def test_a_transaction_without_reason_or_actor_is_refused(owner: Organization, change: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        post(owner, both(5), "a", **change)


def test_a_wallet_needs_its_owner(db: None) -> None:
    with pytest.raises(InvalidInput, match="needs its organization"):
        post(None, both(5), "a")
    assert post(None, [Line(CASH, 5), Line(REVENUE, -5)], "b").organization_id is None


def test_movements_come_in_pages_and_only_of_their_owner(owner: Organization) -> None:
    made = [post(owner, both(amount), str(amount)) for amount in (1, 2, 3)]
    post(books.organization("Other"), both(9), "other")
    first = ledger.movements(owner.id, limit=2)
    assert first == [
        Movement(row.id, "adjustment", "Because", row.created_at, amount)
        for row, amount in ((made[2], 3), (made[1], 2))
    ]
    rest = ledger.movements(owner.id, limit=2, before=first[-1].transaction_id)
    assert [movement.amount_nanos for movement in rest] == [1]


def test_the_terms_are_made_on_first_use(owner: Organization) -> None:
    assert ledger.credit_limit_nanos(owner.id) == 0
    assert ledger.billing_account(owner.id).credit_limit_nanos == 0
    assert ledger.billing_account(owner.id).pk == owner.id


# --- what the database refuses, whoever asks ----------------------------------------------------------------------


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(IntegrityError, match=words), transaction.atomic():
        yield


def raw_transaction() -> LedgerTransaction:
    return LedgerTransaction.objects.create(
        kind="adjustment", idempotency_key=new_id("raw"), content_digest="", reason="Raw", actor="test"
    )


def test_d1_a_transaction_that_does_not_sum_to_zero_is_refused_at_commit(owner: Organization) -> None:
    post(owner, [Line(WALLET, 5), Line(CASH, -5)], "accounts")
    cash = LedgerAccount.objects.get(kind=CASH)
    for amounts in ([], [5], [5, -4], [5, -5, 1]):
        with refused("lines that sum to"):
            row = raw_transaction()
            for amount in amounts:
                LedgerLine.objects.create(transaction=row, account=cash, amount_nanos=amount)
            books.settle_constraints()
    row = raw_transaction()
    for amount in (5, -4, -1):
        LedgerLine.objects.create(transaction=row, account=cash, amount_nanos=amount)
    books.settle_constraints()


@pytest.mark.django_db(transaction=True)
def test_d1_the_check_is_made_by_commit_itself() -> None:
    owner = books.organization()
    post(owner, both(5), "accounts")
    cash = LedgerAccount.objects.get(kind=CASH)
    reached_commit = False
    with pytest.raises(IntegrityError, match="1 lines that sum to 7 nano-USD"), transaction.atomic():
        LedgerLine.objects.create(transaction=raw_transaction(), account=cash, amount_nanos=7)
        reached_commit = True
    assert reached_commit
    assert LedgerTransaction.objects.count() == 1
    with pytest.raises(IntegrityError, match="written with their transaction, never later"):
        LedgerLine.objects.bulk_create(
            LedgerLine(transaction=LedgerTransaction.objects.get(), account=cash, amount_nanos=amount)
            for amount in (9, -9)
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_ledgertransaction SET reason = 'other'",
        "DELETE FROM billing_ledgertransaction",
        "UPDATE billing_ledgerline SET amount_nanos = amount_nanos * 2",
        "DELETE FROM billing_ledgerline",
        "UPDATE billing_grant SET amount_nanos = amount_nanos + 1",
        "UPDATE billing_grant SET source = 'purchased'",
        "UPDATE billing_grant SET expires_at = now()",
        "UPDATE billing_grant SET remaining_nanos = remaining_nanos - 1",
        "DELETE FROM billing_grant",
        "UPDATE billing_ledgeraccount SET kind = 'cash', organization_id = NULL, balance_nanos = NULL",
        "UPDATE billing_ledgeraccount SET balance_nanos = balance_nanos + 1",
        "DELETE FROM billing_ledgeraccount",
    ],
)
def test_d27_the_ledger_refuses_to_be_changed(owner: Organization, statement: str) -> None:
    books.credit(owner, 100)
    charge(owner.id, 30, idempotency_key="charge", reason="Used")
    books.settle_constraints()
    with refused("append-only"), connection.cursor() as cursor:
        cursor.execute(statement)
    assert books.failed_proofs() == []


def test_d2_a_balance_cannot_be_corrected_without_lines(owner: Organization) -> None:
    books.credit(owner, 100)
    with refused("append-only"):
        LedgerAccount.objects.for_organization(owner.id).update(balance_nanos=7)
    assert ledger.balance_nanos(owner.id) == 100 == books.account_total(WALLET, owner)


def test_a_grant_is_never_used_on_the_wallet_of_somebody_else(owner: Organization) -> None:
    other = books.organization("Other")
    grant = books.credit(owner, 100)
    with refused("its own organization"):
        post(other, [Line(WALLET, -10, grant.id), Line(REVENUE, 10)], "theft")


def test_a_grant_is_never_used_beyond_its_amount(owner: Organization) -> None:
    grant = books.credit(owner, 100)
    with refused("grant_never_used_beyond_amount"):
        post(owner, [Line(WALLET, -101, grant.id), Line(REVENUE, 101)], "more")
    with refused("grant_never_used_beyond_amount"):
        post(owner, [Line(WALLET, 1, grant.id), Line(REVENUE, -1)], "less")
