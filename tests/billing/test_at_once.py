"""Money under real concurrency: threads with connections of their own against one PostgreSQL."""

from datetime import datetime
from functools import partial

import pytest
from django.db import connection

from apps.accounts.models import Organization
from apps.billing import grants, ledger, posting
from apps.billing.models import Grant, LedgerTransaction
from apps.billing.posting import post_batch
from apps.core.errors import Conflict
from apps.usage.models import UnpostedUsage, UsageRollup
from apps.usage.recording import record
from tests import factories
from tests.billing import books

pytestmark = pytest.mark.django_db(transaction=True)
BY = {"reason": "Because", "actor": "test"}


def charging(owner: Organization, amount: int, key: str) -> "partial[LedgerTransaction]":
    return partial(grants.charge, owner.id, amount, idempotency_key=key, reason="Used")


def failures(results: list[object]) -> list[object]:
    return [result for result in results if isinstance(result, Exception)]


def test_twenty_charges_at_once_take_each_nano_once() -> None:
    owner = books.organization()
    credit = [books.credit(owner, 100) for _ in range(3)]
    results = books.at_once([charging(owner, 17, f"charge-{number}") for number in range(20)])
    assert failures(results) == []
    assert ledger.balance_nanos(owner.id) == 300 - 20 * 17
    assert books.rest_of(*credit) == [0, 0, 0]
    assert books.failed_proofs() == []


def test_d15_twenty_full_refunds_at_once_give_back_once() -> None:
    owner = books.organization()
    grant = books.credit(owner, 100)
    charged = grants.charge(owner.id, 60, idempotency_key="charge", reason="Used")
    results = books.at_once(
        [partial(grants.refund, charged.id, 60, idempotency_key=f"refund-{number}", **BY) for number in range(20)]
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 19 + ["LedgerTransaction"]
    assert (ledger.balance_nanos(owner.id), books.rest_of(grant)) == (100, [100])
    assert books.failed_proofs() == []


def test_charges_refunds_and_grants_at_once_add_up() -> None:
    owner = books.organization()
    books.credit(owner, 50)
    charges = [grants.charge(owner.id, 10, idempotency_key=f"before-{n}", reason="Used") for n in range(10)]
    jobs = [
        *(partial(grants.refund, row.id, 10, idempotency_key=f"refund-{row.id}", **BY) for row in charges),
        *(charging(owner, 7, f"charge-{number}") for number in range(10)),
        *(partial(books.credit, owner, 5, key=f"grant-{number}") for number in range(4)),
        partial(grants.adjust, owner.id, -3, idempotency_key="adjust", **BY),
    ]
    assert failures(books.at_once(jobs)) == []
    assert ledger.balance_nanos(owner.id) == 50 - 100 + 100 - 70 + 20 - 3
    assert books.failed_proofs() == []


def test_d7_twenty_twins_of_one_charge_are_one_charge() -> None:
    owner = books.organization()
    results = books.at_once([charging(owner, 9, "once")] * 20)
    assert {result.id for result in results} == {LedgerTransaction.objects.get().id}
    assert ledger.balance_nanos(owner.id) == -9


def test_twins_of_one_grant_are_one_grant() -> None:
    owner = books.organization()
    results = books.at_once([partial(books.credit, owner, 9, key="once")] * 12)
    assert {result.id for result in results} == {Grant.objects.get().id}
    assert ledger.balance_nanos(owner.id) == 9


def test_twins_without_a_wallet_are_one_transaction() -> None:
    lines = [ledger.Line(ledger.AccountKind.CASH, 5), ledger.Line(ledger.AccountKind.REVENUE, -5)]
    job = partial(
        ledger.post, ledger.TransactionKind.ADJUSTMENT, lines, organization_id=None, idempotency_key="once", **BY
    )
    results = books.at_once([job] * 8)
    assert {result.id for result in results} == {LedgerTransaction.objects.get().id}


def test_one_key_wanted_by_many_organizations_goes_to_one() -> None:
    owners = [books.organization(f"Owner {number}") for number in range(8)]
    results = books.at_once([charging(owner, 9, "once") for owner in owners])
    assert sum(isinstance(result, Conflict) for result in results) == 7
    assert LedgerTransaction.objects.count() == 1
    assert sum(ledger.balance_nanos(owner.id) for owner in owners) == -9


def test_an_expiry_beside_charges_takes_exactly_what_they_left() -> None:
    owner = books.organization()
    end = database_now()
    grant = books.credit(owner, 100, expires_at=end)
    jobs = [charging(owner, 7, f"charge-{number}") for number in range(10)]
    results = books.at_once([*jobs, partial(grants.expire_due, end), partial(grants.expire_due, end)])
    assert failures(results) == []
    assert books.rest_of(grant) == [0]
    used_of_grant = -sum(
        grant.lines.filter(amount_nanos__lt=0, transaction__kind="charge").values_list("amount_nanos", flat=True)
    )
    assert books.account_total("breakage") == 100 - used_of_grant
    assert ledger.balance_nanos(owner.id) == used_of_grant - 70
    assert books.failed_proofs() == []


def database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        moment: datetime = cursor.fetchone()[0]
    return moment


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_post_at_once_post_each_record_once(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "BATCH_ROWS", 25)
    price = factories.stored_price()
    owners = [books.organization(f"Owner {number}") for number in range(6)]
    for owner in owners[:3]:
        books.credit(owner, 10_000)
    entries = [books.used(owners[number % 6], price, tokens=number) for number in range(600)]
    record(entries)

    def post_all() -> int:
        return sum(iter(post_batch, 0))

    results = books.at_once([post_all] * workers)
    assert failures(results) == []
    assert sum(results) == 600
    assert not UnpostedUsage.objects.exists()
    assert sum(UsageRollup.objects.values_list("requests", flat=True)) == 600
    for place, owner in enumerate(owners):
        spent = sum(entry.cost_nanos for entry in entries[place::6])
        assert ledger.balance_nanos(owner.id) == (10_000 if place < 3 else 0) - spent
    assert books.failed_proofs() == []


def test_posting_beside_every_other_movement_never_waits_in_a_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "BATCH_ROWS", 10)
    price = factories.stored_price()
    owners = [books.organization(f"Owner {number}") for number in range(5)]
    record([books.used(owners[number % 5], price) for number in range(150)])

    def post_all() -> int:
        return sum(iter(post_batch, 0))

    def spend(turn: int) -> None:
        for number in range(12):
            owner = owners[(number * (turn + 1)) % 5]
            grants.charge(owner.id, 3, idempotency_key=f"charge-{turn}-{number}", reason="Used")
            books.credit(owner, 4, key=f"grant-{turn}-{number}")

    results = books.at_once([post_all, post_all, post_all, *(partial(spend, turn) for turn in range(3))])
    assert failures(results) == []
    assert sum(ledger.balance_nanos(owner.id) for owner in owners) == 36 - 150 * 1_500
    assert books.failed_proofs() == []
