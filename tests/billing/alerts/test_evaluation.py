"""Budgets and balances: told exactly at the step, once for a period, and again in the next one."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.accounts.limits import assign_plan, set_limits
from apps.accounts.models import Plan
from apps.accounts.organizations import default_project
from apps.billing.alerts.budgets import evaluate_budgets, reached_step
from apps.billing.alerts.evaluation import LOOK_AGAIN, OVERLAP, evaluate, moved_since
from apps.billing.ledger import billing_account
from apps.billing.models import Alert, AlertEmail, AlertPass, AlertSettings
from apps.core.limits import Limits
from apps.keys.issuing import create_key
from apps.keys.issuing import set_limits as set_key_limits
from tests.billing.alerts.spending import USD, Customer, customer, spend, told
from tests.billing.books import at_once, credit

pytestmark = pytest.mark.django_db

MONDAY = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(MONDAY, tick=False) as travelling:
        yield travelling


@pytest.fixture
def acme(clock: time_machine.Traveller) -> Customer:
    return customer()


def look() -> int:
    return evaluate(datetime.now(UTC))


def budget_alerts(who: Customer) -> list[tuple[str, int]]:
    rows = Alert.objects.filter(organization=who.organization, kind="budget.reached").order_by("id")
    return sorted((row.details["owner"], row.details["step_percent"]) for row in rows)


@pytest.mark.parametrize(
    ("spent", "step"),
    [(0, None), (49_999, None), (50_000, 50), (79_999, 50), (80_000, 80), (99_999, 80), (100_000, 100), (250_000, 100)],
)
def test_steps_are_exact(spent: int, step: int | None) -> None:
    assert reached_step(spent, 100_000) == step


def test_a_budget_of_nothing_reaches_no_step() -> None:
    assert reached_step(0, 0) is None


def test_a_key_tells_at_exactly_half_and_not_a_nano_before(acme: Customer) -> None:
    set_key_limits(acme.key, Limits(budget_nanos=10 * USD, budget_period="day"))
    spend(acme, 5 * USD - 1)
    look()
    assert budget_alerts(acme) == []
    spend(acme, 1)
    look()
    assert budget_alerts(acme) == [("key", 50)]
    assert told(acme, "budget.reached") == ["50 % of the budget of the key “Backend” is spent"]


def test_each_step_is_told_once_and_the_highest_of_several(acme: Customer) -> None:
    set_key_limits(acme.key, Limits(budget_nanos=10 * USD, budget_period="day"))
    for amount, expected in [(5, [50]), (1, [50]), (3, [50, 80]), (1, [50, 80, 100]), (4, [50, 80, 100])]:
        spend(acme, amount * USD)
        look()
        look()
        assert [step for _, step in budget_alerts(acme)] == expected


def test_a_jump_over_two_steps_tells_the_higher_only(acme: Customer) -> None:
    set_key_limits(acme.key, Limits(budget_nanos=10 * USD, budget_period="day"))
    spend(acme, 9 * USD)
    look()
    assert budget_alerts(acme) == [("key", 80)]


@pytest.mark.parametrize(
    ("period", "last_moment"),
    [
        ("day", datetime(2026, 3, 2, 23, 59, 59, 999_000, tzinfo=UTC)),
        ("week", datetime(2026, 3, 8, 23, 59, 59, 999_000, tzinfo=UTC)),
        ("month", datetime(2026, 3, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
    ],
)
def test_the_next_period_begins_at_nothing_and_tells_again(
    acme: Customer, clock: time_machine.Traveller, period: str, last_moment: datetime
) -> None:
    set_key_limits(acme.key, Limits(budget_nanos=10 * USD, budget_period=period))  # type: ignore[arg-type]  # parametrized
    clock.move_to(last_moment)
    spend(acme, 5 * USD)
    look()
    assert budget_alerts(acme) == [("key", 50)]
    clock.move_to(last_moment + timedelta(milliseconds=1))
    spend(acme, 5 * USD - 1)
    look()
    assert budget_alerts(acme) == [("key", 50)]
    spend(acme, 1)
    look()
    assert budget_alerts(acme) == [("key", 50)] * 2


def test_a_lifetime_budget_counts_everything_and_tells_once(acme: Customer, clock: time_machine.Traveller) -> None:
    set_key_limits(acme.key, Limits(budget_nanos=10 * USD, budget_period="lifetime"))
    spend(acme, 4 * USD, at=MONDAY - timedelta(days=200))
    spend(acme, USD)
    look()
    clock.shift(timedelta(days=60))
    spend(acme, 1)
    look()
    assert budget_alerts(acme) == [("key", 50)]


def test_projects_organizations_and_plans_have_budgets_too(acme: Customer) -> None:
    project = default_project(acme.organization)
    set_limits(project, Limits(budget_nanos=10 * USD, budget_period="week"))
    plan = Plan.objects.create(id="small", name="Small", budget_nanos=20 * USD, budget_period="month")
    assign_plan(acme.organization, plan)
    other = create_key(project, name="Other").key
    spend(acme, 5 * USD)
    spend(acme, 5 * USD, key=other)
    look()
    assert sorted(budget_alerts(acme)) == [("organization", 50), ("project", 100)]


def test_another_budget_in_the_same_period_is_told_anew(acme: Customer) -> None:
    set_key_limits(acme.key, Limits(budget_nanos=10 * USD, budget_period="day"))
    spend(acme, 6 * USD)
    look()
    set_key_limits(acme.key, Limits(budget_nanos=7 * USD, budget_period="day"))
    spend(acme, 1)
    look()
    assert [step for _, step in budget_alerts(acme)] == [50, 80]


def test_spending_of_one_customer_is_no_news_for_another(acme: Customer) -> None:
    other = customer("Other", limits=Limits(budget_nanos=10 * USD, budget_period="day"))
    spend(acme, 50 * USD)
    spend(other, 1)
    look()
    assert budget_alerts(other) == []


def test_low_credit_is_told_at_the_mark_and_once(acme: Customer) -> None:
    credit(acme.organization, 10 * USD)
    look()
    assert told(acme) == []
    spend(acme, 5 * USD - 1)
    look()
    assert told(acme) == []
    spend(acme, 1)
    look()
    spend(acme, USD)
    look()
    assert told(acme) == ["Your credit is low: 5.00 USD are left"]


def test_low_credit_is_told_again_after_it_was_higher(acme: Customer, clock: time_machine.Traveller) -> None:
    credit(acme.organization, 6 * USD)
    spend(acme, 2 * USD)
    look()
    clock.shift(timedelta(minutes=1))
    credit(acme.organization, 10 * USD)
    look()
    clock.shift(timedelta(minutes=1))
    spend(acme, 10 * USD)
    look()
    look()
    assert len(told(acme, "credit.low")) == 2


def test_credit_that_may_be_owed_counts(acme: Customer) -> None:
    account = billing_account(acme.organization.id)
    account.credit_limit_nanos = 100 * USD
    account.save()
    spend(acme, 20 * USD)
    look()
    assert told(acme) == []
    spend(acme, 75 * USD)
    look()
    assert told(acme) == ["Your credit is low: 5.00 USD are left"]


def test_a_mark_of_ones_own_counts_and_none_is_never(acme: Customer) -> None:
    settings = AlertSettings.objects.create(organization=acme.organization, low_balance_nanos=50 * USD)
    credit(acme.organization, 60 * USD)
    spend(acme, 10 * USD)
    look()
    assert len(told(acme)) == 1
    settings.refresh_from_db()
    settings.low_balance_nanos = None
    settings.save()
    spend(acme, 49 * USD)
    look()
    assert len(told(acme)) == 1
    settings.refresh_from_db()
    assert settings.low_since is None


def test_only_those_whose_money_moved_are_looked_at(acme: Customer, clock: time_machine.Traveller) -> None:
    credit(acme.organization, USD)
    assert look() == 1
    clock.shift(OVERLAP + timedelta(seconds=1))
    assert look() == 1, "the overlap with the pass before"
    assert look() == 0
    spend(acme, 1)
    assert moved_since(datetime.now(UTC)) == [acme.organization.id]
    assert look() == 1


def test_a_long_pause_of_the_worker_loses_nothing(acme: Customer, clock: time_machine.Traveller) -> None:
    look()
    credit(acme.organization, 6 * USD)
    spend(acme, 2 * USD)
    clock.shift(timedelta(hours=9))
    look()
    assert len(told(acme)) == 1


def test_what_fails_for_one_is_looked_at_again_and_stops_nobody(
    acme: Customer, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [customer(name, limits=Limits(budget_nanos=10 * USD, budget_period="day")) for name in ("Aa", "Zz")]
    look()
    before = AlertPass.objects.get(name="balances").seen_until
    for who in (acme, *others):
        credit(who.organization, 4 * USD)
    for who in others:
        spend(who, 9 * USD)
    seen: list[str] = []

    def broken(organization_ids: Collection[str], now: datetime) -> None:
        if acme.organization.id in organization_ids:
            raise ZeroDivisionError
        seen.extend(organization_ids)

    with monkeypatch.context() as breaking:
        breaking.setattr("apps.billing.alerts.evaluation.evaluate_balances", broken)
        assert look() == 3
        assert sorted(seen) == sorted(who.organization.id for who in others)
        assert [budget_alerts(who) for who in others] == [[("key", 80)]] * 2
        assert AlertPass.objects.get(name="balances").seen_until == before, "the same is looked at again"
        clock.shift(timedelta(days=1))
        look()
        seen_until = AlertPass.objects.get(name="balances").seen_until
        assert seen_until == datetime.now(UTC) - LOOK_AGAIN, "and not for ever more"
    assert told(acme) == []
    spend(acme, 1)
    look()
    assert told(acme) == ["Your credit is low: 3.999999999 USD are left"]


def test_a_budget_that_was_told_in_full_is_not_summed_and_no_step_is_written_twice(acme: Customer) -> None:
    set_key_limits(acme.key, Limits(budget_nanos=10 * USD, budget_period="day"))
    spend(acme, 8 * USD)
    look()
    with CaptureQueriesContext(connection) as queries:
        evaluate_budgets([acme.organization.id], datetime.now(UTC))
    assert not [query for query in queries if "INSERT" in query["sql"] or "SAVEPOINT" in query["sql"]]
    spend(acme, 2 * USD)
    look()
    with CaptureQueriesContext(connection) as queries:
        evaluate_budgets([acme.organization.id], datetime.now(UTC))
    assert not [query for query in queries if "usage_usagerollup" in query["sql"]]
    assert [step for _, step in budget_alerts(acme)] == [80, 100]


def test_the_long_past_of_a_lifetime_budget_is_summed_once_a_day(acme: Customer, clock: time_machine.Traveller) -> None:
    set_key_limits(acme.key, Limits(budget_nanos=10 * USD, budget_period="lifetime"))
    spend(acme, 4 * USD, at=MONDAY - timedelta(days=200))
    look()
    with CaptureQueriesContext(connection) as queries:
        evaluate_budgets([acme.organization.id], datetime.now(UTC))
    (sums,) = [query["sql"] for query in queries if "usage_usagerollup" in query["sql"]]
    assert "2026-02-28" in sums, "what is older than two days is remembered"
    spend(acme, 1 * USD, at=MONDAY - timedelta(days=100))
    look()
    assert budget_alerts(acme) == [], "a record that comes months late is counted"
    clock.move_to(datetime(2026, 3, 3, 0, 0, 1, tzinfo=UTC))
    spend(acme, 1)
    look()
    assert budget_alerts(acme) == [("key", 50)], "from the next day on"
    clock.shift(timedelta(days=5))
    spend(acme, 3 * USD)
    look()
    assert budget_alerts(acme) == [("key", 50), ("key", 80)]


@pytest.mark.django_db(transaction=True)
def test_four_workers_at_once_tell_once(transactional_db: None) -> None:
    who = customer(limits=Limits(budget_nanos=10 * USD, budget_period="day"))
    credit(who.organization, 10 * USD)
    spend(who, 8 * USD)
    now = datetime.now(UTC)
    assert all(isinstance(result, int) for result in at_once([lambda: evaluate(now)] * 4))
    assert sorted(told(who)) == [
        "80 % of the budget of the key “Backend” is spent",
        "Your credit is low: 2.00 USD are left",
    ]
    assert AlertEmail.objects.count() == 2
