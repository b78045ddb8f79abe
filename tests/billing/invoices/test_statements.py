"""Monthly statements: opening balance + movements = closing balance, which is where the next month opens."""

import random
from datetime import timedelta
from itertools import pairwise

import pytest
from django.utils import timezone

from apps.accounts.models import Organization
from apps.billing.grants import adjust, charge, expire_due, refund, write_off
from apps.billing.invoices.months import Month
from apps.billing.invoices.statements import BOUGHT, GIVEN, SECTIONS, Statement, rows, statement
from apps.billing.ledger import balance_nanos
from apps.billing.models import GrantSource, LedgerTransaction, TransactionKind
from apps.core.errors import NotFound
from tests.billing import books
from tests.billing.invoices import documents

pytestmark = pytest.mark.django_db
USD = 10**9


def shown(owner: Organization, month: Month) -> Statement:
    made = statement(owner.id, month, now=timezone.now() + timedelta(days=400))
    assert made.adds_up
    return made


def totals(made: Statement) -> dict[str, int]:
    return {section.name: section.total_nanos for section in made.sections}


def test_every_sort_of_movement_stands_in_its_section() -> None:
    owner, month = books.organization(), documents.this_month()
    books.credit(owner, 10 * USD, source=GrantSource.PURCHASED)
    books.credit(owner, 5 * USD, source=GrantSource.PROMOTIONAL, expires_at=timezone.now())
    charged = charge(owner.id, USD, idempotency_key="charge", reason="Setup")
    refund(charged.id, USD // 2, idempotency_key="refund", reason="Half of it", actor="test")
    expire_due(timezone.now())
    adjust(owner.id, 7, idempotency_key="adjust", reason="Found", actor="test")
    documents.use(owner, month.start, 20 * USD, model="m", project_id="proj_1")
    write_off(owner.id, idempotency_key="off", reason="Gone", actor="test")
    made = shown(owner, month)
    assert (made.opening_nanos, made.closing_nanos) == (0, balance_nanos(owner.id))
    found = totals(made)
    assert (found[BOUGHT], found[GIVEN]) == (10 * USD, 5 * USD)
    assert (found["Charges"], found["Refunds of charges"], found["Adjustments"]) == (-USD, USD // 2, 7)
    assert found["Expired credit"] == -(5 * USD - USD // 2)
    assert found["Debts given up"] == 10 * USD - 7
    (line,) = made.usage
    assert (line.project, line.model, line.requests, line.cost_nanos) == ("proj_1", "m", 1, 20 * USD)


def test_usage_counts_in_the_month_in_which_it_was_asked_for() -> None:
    """The last request of a month is posted in the next one."""
    owner, month = books.organization(), documents.this_month()
    documents.use(owner, month.start - timedelta(milliseconds=1), 3)
    documents.use(owner, month.start, 5)
    documents.use(owner, month.start, 100, sandbox=True)
    before, now = shown(owner, month.previous()), shown(owner, month)
    assert (before.opening_nanos, before.usage_nanos, before.closing_nanos) == (0, 3, -3)
    assert (now.opening_nanos, now.usage_nanos, now.closing_nanos) == (-3, 5, -8)


def test_any_history_adds_up_month_by_month() -> None:
    dice = random.Random(20261122)
    owner, last = books.organization(), documents.this_month()
    months = [last.plus(-back) for back in range(5, -1, -1)]
    for place in range(60):
        month = dice.choice(months)
        moment = month.start + dice.random() * min(month.end - month.start, timezone.now() - month.start)
        if dice.random() < 0.4:
            documents.use(owner, moment, dice.randrange(1, 10**9), model=dice.choice("abc"))
            continue
        if dice.random() < 0.5:
            written = books.credit(owner, dice.randrange(1, 10**10)).transaction
        else:
            written = charge(owner.id, dice.randrange(1, 10**9), idempotency_key=f"c{place}", reason="Charge")
        documents.backdate(written, moment)
    made = [shown(owner, month) for month in months]
    assert made[0].opening_nanos == 0
    for earlier, later in pairwise(made):
        assert earlier.closing_nanos == later.opening_nanos
    assert made[-1].closing_nanos == balance_nanos(owner.id)
    assert (
        sum(len(section.movements) for row in made for section in row.sections)
        == LedgerTransaction.objects.exclude(kind="usage").count()
    )


def test_the_file_sums_to_the_difference_of_the_balances() -> None:
    owner, month = books.organization(), documents.this_month()
    documents.use(owner, month.previous().start, 4 * USD)
    books.credit(owner, 3 * USD)
    documents.use(owner, month.start, 1)
    first, *between, last = list(rows(shown(owner, month)))
    assert (first["amount_usd"], last["amount_usd"]) == ("-4.000000000", "-1.000000001")
    assert [row["amount_usd"] for row in between] == ["3.000000000", "-0.000000001"]


def test_others_are_not_in_it() -> None:
    owner, other = books.organization(), books.organization("Other")
    books.credit(other, USD)
    documents.use(other, documents.this_month().start, 5)
    made = shown(owner, documents.this_month())
    assert (made.opening_nanos, made.closing_nanos, made.sections, made.usage) == (0, 0, (), ())


def test_the_running_month_is_preliminary_and_a_later_one_does_not_exist() -> None:
    owner, month, now = books.organization(), documents.this_month(), timezone.now()
    assert statement(owner.id, month, now=now).is_preliminary
    assert statement(owner.id, month, now=month.end).is_preliminary
    assert not statement(owner.id, month, now=documents.after(month)).is_preliminary
    with pytest.raises(NotFound):
        statement(owner.id, month.next(), now=now)


def test_a_month_is_preliminary_while_usage_of_it_waits_for_posting() -> None:
    owner, month = books.organization(), documents.this_month()
    documents.use(owner, month.start, 5, post=False)
    assert statement(owner.id, month, now=documents.after(month)).is_preliminary


def test_every_kind_of_movement_has_a_name() -> None:
    assert set(SECTIONS) == set(TransactionKind) - {TransactionKind.GRANT, TransactionKind.USAGE}


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "1999-01", "2026-1", "2026-11-01", "", "٢٠٢٦-11"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no month"):
        Month.parse(text)


def test_months_know_their_neighbours() -> None:
    december = Month.parse("2026-12")
    assert (str(december.next()), str(december.plus(-12)), december.name) == ("2027-01", "2025-12", "December 2026")
    assert december.end - december.start == timedelta(days=31)
