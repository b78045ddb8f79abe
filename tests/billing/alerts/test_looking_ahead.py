"""What is looked at each five minutes: ends of credit and unusual spending."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from apps.billing.alerts.anomalies import usual_limit
from apps.billing.alerts.evaluation import look_ahead
from apps.billing.alerts.expiries import due_step
from apps.billing.grants import charge
from apps.billing.models import Alert
from tests.billing.alerts.spending import USD, Customer, customer, spend, told
from tests.billing.books import credit

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOON, tick=False) as travelling:
        yield travelling


@pytest.fixture
def acme(clock: time_machine.Traveller) -> Customer:
    return customer()


def look() -> None:
    look_ahead(datetime.now(UTC))


END = datetime(2026, 5, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("before_end", "step"),
    [
        (30 * DAY + TICK, None),
        (30 * DAY, 30),
        (7 * DAY + TICK, 30),
        (7 * DAY, 7),
        (DAY + TICK, 7),
        (DAY, 1),
        (TICK, 1),
        (timedelta(0), None),
    ],
)
def test_steps_before_an_end_are_exact(before_end: timedelta, step: int | None) -> None:
    assert due_step(END - 90 * DAY, END, END - before_end) == step


def test_credit_for_two_weeks_is_not_told_of_when_it_is_given() -> None:
    given = END - 14 * DAY
    assert due_step(given, END, given) is None
    assert due_step(given, END, END - 7 * DAY) == 7


def test_each_step_is_told_once() -> None:
    acme, given = customer(), datetime.now(UTC)
    credit(acme.organization, 10 * USD, expires_at=given + 100 * DAY)
    seen = []
    for number in range(33):
        with time_machine.travel(given + (69 + number) * DAY, tick=False):
            look()
            look()
        seen.append(len(told(acme, "grant.expiring")))
    assert (seen[0], seen[1], seen[23], seen[24], seen[29], seen[30], seen[-1]) == (0, 1, 1, 2, 2, 3, 3)
    assert told(acme, "grant.expiring")[-1] == "10.00 USD of your credit ends tomorrow"


def test_credit_that_is_used_up_has_no_end_to_tell_of() -> None:
    acme, given = customer(), datetime.now(UTC)
    credit(acme.organization, 10 * USD, expires_at=given + 100 * DAY)
    charge(acme.organization.id, 10 * USD, idempotency_key="all", reason="All of it")
    with time_machine.travel(given + 95 * DAY, tick=False):
        look()
    assert told(acme, "grant.expiring") == []


def test_what_is_usual_follows_the_middle_and_its_spread() -> None:
    least = 10 * USD
    assert usual_limit([USD] * 6, least) is None, "less than a week says nothing"
    assert usual_limit([USD] * 7, least) == least, "small sums are never news"
    assert usual_limit([100 * USD] * 20, least) == 300 * USD
    assert usual_limit([20 * USD, 100 * USD, 180 * USD] * 5, least) == 100 * USD + 6 * 80 * USD
    assert usual_limit([100 * USD] * 20 + [9_000 * USD], least) == 300 * USD, "one wild day changes nothing"


def history(who: Customer, nanos: int, *, days: int = 28) -> None:
    for number in range(1, days + 1):
        spend(who, nanos, at=NOON - number * DAY)


def test_a_day_like_the_others_is_no_news(acme: Customer) -> None:
    history(acme, 20 * USD)
    spend(acme, 60 * USD)
    look()
    assert told(acme, "spend.anomaly") == []


def test_more_than_three_times_the_usual_is_told_once_for_day_and_hour(
    acme: Customer, clock: time_machine.Traveller
) -> None:
    history(acme, 20 * USD)
    spend(acme, 60 * USD + 1)
    look()
    clock.shift(timedelta(hours=2))
    spend(acme, 80 * USD)
    look()
    alerts = Alert.objects.filter(kind="spend.anomaly").order_by("id")
    assert sorted(alert.details["span"] for alert in alerts) == ["day", "hour"]
    assert {alert.details["usual_nanos"] for alert in alerts} == {60 * USD}


def test_the_next_day_is_told_again(acme: Customer, clock: time_machine.Traveller) -> None:
    history(acme, 20 * USD)
    for _ in range(2):
        spend(acme, 70 * USD)
        look()
        clock.shift(DAY)
    assert len(told(acme, "spend.anomaly")) == 4


@pytest.mark.parametrize(("usual", "now"), [(1_000, 4 * USD), (USD, 4 * USD + 900_000_000)])
def test_small_sums_are_quiet_however_much_they_grow(acme: Customer, usual: int, now: int) -> None:
    history(acme, usual)
    spend(acme, now)
    look()
    assert told(acme, "spend.anomaly") == []


def test_a_new_customer_has_no_usual_yet(acme: Customer) -> None:
    history(acme, USD, days=6)
    spend(acme, 500 * USD)
    look()
    assert told(acme, "spend.anomaly") == []


def test_older_than_four_weeks_does_not_count(acme: Customer) -> None:
    for number in range(29, 60):
        spend(acme, 100 * USD, at=NOON - number * DAY)
    history(acme, 10 * USD)
    spend(acme, 31 * USD)
    look()
    assert len(told(acme, "spend.anomaly")) == 2
