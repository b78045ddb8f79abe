"""Credit: used in one order, paid back where it came from, expiring to the nano-dollar."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.accounts.models import Organization
from apps.billing import grants, ledger
from apps.billing.grants import Credit
from apps.billing.models import Grant, GrantSource, LedgerTransaction
from apps.core.errors import Conflict, InvalidInput, NotFound
from tests.billing import books

DAY = datetime(2026, 6, 1, tzinfo=UTC)
BY = {"reason": "Because", "actor": "test"}


@pytest.fixture
def owner(db: None) -> Organization:
    return books.organization()


def charge(owner: Organization, amount: int, key: str | None = None) -> LedgerTransaction:
    return grants.charge(owner.id, amount, idempotency_key=key or books.key(), reason="Used")


def refund(charged: LedgerTransaction, amount: int, key: str | None = None) -> LedgerTransaction:
    return grants.refund(charged.id, amount, idempotency_key=key or books.key(), **BY)


def test_d22_credit_is_used_by_priority_then_expiry_then_age(owner: Organization) -> None:
    bought = books.credit(owner, 10, source=GrantSource.PURCHASED, expires_at=DAY)
    endless = books.credit(owner, 10, source=GrantSource.PROMOTIONAL)
    late = books.credit(owner, 10, source=GrantSource.PROMOTIONAL, expires_at=DAY + timedelta(days=1))
    soon = books.credit(owner, 10, source=GrantSource.PROMOTIONAL, expires_at=DAY)
    younger = books.credit(owner, 10, source=GrantSource.PROMOTIONAL, expires_at=DAY)
    goodwill = books.credit(owner, 10, source=GrantSource.GOODWILL)
    order = [soon, younger, late, endless, goodwill, bought]

    assert list(grants.in_order_of_use(Grant.objects.for_organization(owner.id))) == order
    left = [10] * len(order)
    for spent in range(5, 61, 5):
        charge(owner, 5)
        left = [max(0, min(10, 10 * (place + 1) - spent)) for place in range(len(order))]
        assert books.rest_of(*order) == left
    assert left == [0] * len(order)


def test_d22_expiry_moves_exactly_the_unused_rest(owner: Organization) -> None:
    ending = books.credit(owner, 100, source=GrantSource.PROMOTIONAL, expires_at=DAY)
    staying = books.credit(owner, 50, expires_at=DAY + timedelta(days=1))
    charge(owner, 37)

    assert grants.expire_due(DAY - timedelta(microseconds=1)) == 0
    assert grants.expire_due(DAY) == 1
    assert grants.expire_due(DAY) == 0
    assert books.rest_of(ending, staying) == [0, 50]
    assert books.account_total("breakage") == 63
    assert ledger.balance_nanos(owner.id) == 50
    books.settle_constraints()
    assert books.failed_proofs() == []


def test_a_used_up_grant_expires_without_a_trace(owner: Organization) -> None:
    books.credit(owner, 10, expires_at=DAY)
    charge(owner, 10)
    assert grants.expire_due(DAY) == 0
    assert not LedgerTransaction.objects.filter(kind="expiry").exists()


def test_what_comes_back_to_an_expired_grant_expires_again(owner: Organization) -> None:
    books.credit(owner, 10, expires_at=DAY)
    charged = charge(owner, 8)
    for expected in (2, 5, 10):
        assert grants.expire_due(DAY) == 1
        assert books.account_total("breakage") == expected
        if expected < 10:
            refund(charged, 3 if expected == 2 else 5)
    assert ledger.balance_nanos(owner.id) == 0


@pytest.mark.parametrize(
    ("source", "account"),
    [("promotional", "promotional"), ("goodwill", "promotional"), ("manual", "adjustments"), ("purchased", "cash")],
)
def test_each_source_has_its_account(owner: Organization, source: str, account: str) -> None:
    books.credit(owner, 10, source=GrantSource(source))
    assert books.account_total(account) == -10


def test_a_charge_beyond_all_credit_is_a_debt_that_the_next_grant_pays_first(owner: Organization) -> None:
    first = books.credit(owner, 10)
    charge(owner, 25)
    assert (ledger.balance_nanos(owner.id), books.rest_of(first)) == (-15, [0])
    second = books.credit(owner, 9)
    third = books.credit(owner, 20)
    assert (ledger.balance_nanos(owner.id), books.rest_of(second, third)) == (14, [0, 14])
    assert third.remaining_nanos == 14
    assert books.failed_proofs() == []


def test_d7_the_same_charge_again_changes_nothing_and_returns_the_first(owner: Organization) -> None:
    books.credit(owner, 100)
    first = charge(owner, 30, "once")
    charge(owner, 50)
    assert charge(owner, 30, "once").id == first.id
    assert ledger.balance_nanos(owner.id) == 20
    with pytest.raises(Conflict):
        charge(owner, 31, "once")
    with pytest.raises(Conflict):
        charge(books.organization("Other"), 30, "once")


def test_a_grant_again_returns_the_first_and_another_is_a_conflict(owner: Organization) -> None:
    first = books.credit(owner, 100, key="once")
    assert books.credit(owner, 100, key="once") == first
    assert ledger.balance_nanos(owner.id) == 100
    for changes in ({"amount_nanos": 101}, {"source": GrantSource.PURCHASED}, {"expires_at": DAY}):
        wanted = {"amount_nanos": 100, "source": GrantSource.MANUAL, "expires_at": None, **changes}
        with pytest.raises(Conflict):
            books.credit(owner, wanted.pop("amount_nanos"), key="once", **wanted)


def test_d15_refunds_go_back_to_where_the_charge_was_taken_from(owner: Organization) -> None:
    given = books.credit(owner, 10, source=GrantSource.PROMOTIONAL)
    bought = books.credit(owner, 10, source=GrantSource.PURCHASED)
    charged = charge(owner, 25)
    refund(charged, 7)
    assert (books.rest_of(given, bought), ledger.balance_nanos(owner.id)) == ([0, 2], 2)
    refund(charged, 18)
    assert (books.rest_of(given, bought), ledger.balance_nanos(owner.id)) == ([10, 10], 20)
    assert charged.lines.count() == 4
    assert books.account_total("revenue") == 0


def test_d15_all_refunds_together_are_never_more_than_the_charge(owner: Organization) -> None:
    books.credit(owner, 10)
    charged = charge(owner, 10)
    first = refund(charged, 6, "first")
    with pytest.raises(Conflict, match="4 nano-USD are left to refund, not 5"):
        refund(charged, 5)
    assert refund(charged, 6, "first").id == first.id
    refund(charged, 4)
    with pytest.raises(Conflict):
        refund(charged, 1)
    assert ledger.balance_nanos(owner.id) == 10


def test_a_refund_pays_a_debt_before_it_can_be_used(owner: Organization) -> None:
    grant = books.credit(owner, 10)
    charged = charge(owner, 10)
    charge(owner, 6)
    refund(charged, 4)
    assert (books.rest_of(grant), ledger.balance_nanos(owner.id)) == ([0], -2)
    refund(charged, 6)
    assert (books.rest_of(grant), ledger.balance_nanos(owner.id)) == ([4], 4)
    assert books.failed_proofs() == []


def test_only_charges_can_be_refunded(owner: Organization) -> None:
    grant = books.credit(owner, 10)
    for wrong in (grant.transaction_id, "txn_nobody"):
        with pytest.raises(NotFound):
            grants.refund(wrong, 1, idempotency_key=books.key(), **BY)


def test_an_adjustment_gives_or_takes(owner: Organization) -> None:
    grant = books.credit(owner, 10)
    grants.adjust(owner.id, -4, idempotency_key="minus", **BY)
    assert books.rest_of(grant) == [6]
    first = grants.adjust(owner.id, 5, idempotency_key="plus", **BY)
    assert grants.adjust(owner.id, 5, idempotency_key="plus", **BY) == first
    assert (ledger.balance_nanos(owner.id), books.rest_of(grant)) == (11, [6])
    charge(owner, 8)
    assert (ledger.balance_nanos(owner.id), books.rest_of(grant)) == (3, [0])
    assert books.account_total("adjustments") == -10 + 4 - 5


def test_a_write_off_gives_up_the_whole_debt_once(owner: Organization) -> None:
    with pytest.raises(Conflict, match="no debt"):
        grants.write_off(owner.id, idempotency_key="early", **BY)
    charge(owner, 12)
    first = grants.write_off(owner.id, idempotency_key="once", **BY)
    charge(owner, 3)
    assert grants.write_off(owner.id, idempotency_key="once", **BY) == first
    assert (ledger.balance_nanos(owner.id), books.account_total("write_offs")) == (-3, -12)


@pytest.mark.parametrize("amount", [0, -1, 10**18 + 1])
def test_amounts_out_of_range_are_refused(owner: Organization, amount: int) -> None:
    with pytest.raises(InvalidInput):
        charge(owner, amount)
    with pytest.raises(InvalidInput):
        books.credit(owner, amount)
    if amount != -1:
        with pytest.raises(InvalidInput):
            grants.adjust(owner.id, amount, idempotency_key="a", **BY)
    assert not LedgerTransaction.objects.exists()


def test_an_adjustment_needs_a_reason_and_somebody(owner: Organization) -> None:
    for words in ({"reason": " ", "actor": "test"}, {"reason": "Because", "actor": ""}):
        with pytest.raises(InvalidInput):
            grants.adjust(owner.id, 5, idempotency_key="a", **words)


def test_nobody_gets_no_credit(db: None) -> None:
    with pytest.raises(NotFound):
        grants.grant_credit("org_nobody", Credit(5, GrantSource.MANUAL), idempotency_key="a", **BY)
