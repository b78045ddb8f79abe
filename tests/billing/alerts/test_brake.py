"""The brake: pauses in the moment that is one nano too many, tells once, and counts from anew after a resumption."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.conf import settings

from apps.accounts.limits import assign_plan
from apps.accounts.models import Plan
from apps.billing.alerts.brake import brake
from apps.billing.models import Alert, AlertEmail
from apps.core.crypto import keyed_digests
from apps.core.errors import Conflict, InvalidInput
from apps.keys.issuing import create_key, revoke_key
from apps.keys.models import ApiKey
from apps.keys.pausing import pause_key, resume_key, set_brake
from apps.keys.reading import read_grant
from tests.announcements import listening
from tests.billing.alerts.spending import USD, Customer, customer, spend, told
from tests.billing.books import at_once

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 2, 12, 3, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOON, tick=False) as travelling:
        yield travelling


@pytest.fixture
def acme(clock: time_machine.Traveller) -> Customer:
    return customer()


def look() -> list[str]:
    return brake(datetime.now(UTC))


def is_paused(who: Customer) -> bool:
    who.key.refresh_from_db()
    return who.key.paused_at is not None


def test_without_a_brake_a_key_spends_as_fast_as_it_likes(acme: Customer) -> None:
    spend(acme, 10_000 * USD)
    assert look() == []
    assert not is_paused(acme)


def test_exactly_the_brake_goes_on_and_a_nano_more_pauses(acme: Customer) -> None:
    set_brake(acme.key, 5 * USD, minutes=10)
    spend(acme, 5 * USD)
    assert look() == []
    spend(acme, 1)
    assert look() == [acme.key.id]
    assert is_paused(acme)
    assert told(acme) == ["The key “Backend” is paused: it was spending too fast"]
    alert = Alert.objects.get()
    assert alert.details["spent_nanos"] == 5 * USD + 1
    assert alert.details["resume_url"].endswith("/o/acme/keys/")
    assert AlertEmail.objects.count() == 1


def test_only_the_minutes_of_the_brake_count(acme: Customer, clock: time_machine.Traveller) -> None:
    set_brake(acme.key, 5 * USD, minutes=10)
    spend(acme, 4 * USD)
    clock.shift(10 * MINUTE + timedelta(milliseconds=1))
    spend(acme, 4 * USD)
    assert look() == [], "the first ended exactly ten minutes ago"
    clock.shift(9 * MINUTE)
    spend(acme, 2 * USD)
    assert look() == [acme.key.id]


def test_exactly_the_brake_goes_on_also_after_a_dear_hour(acme: Customer, clock: time_machine.Traveller) -> None:
    set_brake(acme.key, 5 * USD, minutes=10)
    spend(acme, 4 * USD)
    clock.shift(11 * MINUTE)
    spend(acme, 5 * USD)
    assert look() == []


def test_a_long_request_counts_when_it_ends(acme: Customer) -> None:
    set_brake(acme.key, 5 * USD, minutes=1)
    spend(acme, 6 * USD, at=NOON - 9 * MINUTE, duration_ms=9 * 60_000)
    assert look() == [acme.key.id]


def test_the_window_reaches_over_midnight_and_the_hour(acme: Customer, clock: time_machine.Traveller) -> None:
    set_brake(acme.key, 5 * USD, minutes=30)
    clock.move_to(datetime(2026, 3, 2, 23, 50, tzinfo=UTC))
    spend(acme, 3 * USD)
    clock.move_to(datetime(2026, 3, 3, 0, 5, tzinfo=UTC))
    spend(acme, 3 * USD)
    assert look() == [acme.key.id]


def test_another_key_of_the_organization_is_left_alone(acme: Customer) -> None:
    other = create_key(acme.key.project, name="Other").key
    set_brake(acme.key, 5 * USD)
    set_brake(other, 5 * USD)
    spend(acme, 9 * USD, key=other)
    assert look() == [other.id]
    assert not is_paused(acme)


def test_the_plan_gives_a_brake_that_a_key_may_have_otherwise(acme: Customer) -> None:
    plan = Plan.objects.create(id="small", name="Small", brake_nanos=5 * USD, brake_minutes=5)
    assign_plan(acme.organization, plan)
    free = create_key(acme.key.project, name="Free").key
    set_brake(free, 0)
    spend(acme, 9 * USD, key=free)
    spend(acme, 6 * USD)
    assert look() == [acme.key.id]


def test_a_resumed_key_begins_at_nothing(acme: Customer, clock: time_machine.Traveller) -> None:
    set_brake(acme.key, 5 * USD, minutes=10)
    spend(acme, 6 * USD)
    look()
    clock.shift(MINUTE)
    resume_key(acme.key)
    assert not is_paused(acme)
    assert look() == [], "what was spent before does not pause it again"
    clock.shift(MINUTE)
    spend(acme, 4 * USD)
    assert look() == []
    spend(acme, 2 * USD)
    assert look() == [acme.key.id]
    assert len(told(acme)) == 2


def test_a_sandbox_key_spends_nothing(acme: Customer) -> None:
    test_key = create_key(acme.key.project, name="Test", sandbox=True).key
    set_brake(test_key, 1)
    spend(acme, 6 * USD, key=test_key)
    assert look() == []


def test_a_paused_key_is_known_to_gateways_as_such(acme: Customer) -> None:
    issued = create_key(acme.key.project, name="Seen")
    digests = keyed_digests(issued.secret, settings.KEY_PEPPERS)
    with listening() as heard:
        pause_key(issued.key.id, reason="too fast")
        grant = read_grant(digests)
        assert grant is not None
        assert grant.paused_at == NOON.timestamp()
        resume_key(issued.key)
        grant = read_grant(digests)
        assert grant is not None
        assert grant.paused_at is None
        assert callable(heard)


@pytest.mark.django_db(transaction=True)
def test_pausing_and_resuming_are_announced_like_a_revocation(transactional_db: None) -> None:
    key = create_key(customer("Told").key.project, name="Seen").key
    with listening() as heard:
        pause_key(key.id, reason="too fast")
        resume_key(key)
        assert heard() == [f"key:{key.digest}"] * 2


def test_a_revoked_key_is_neither_paused_nor_resumed(acme: Customer) -> None:
    revoke_key(acme.key)
    assert pause_key(acme.key.id, reason="too fast") is None
    with pytest.raises(Conflict):
        resume_key(acme.key)


@pytest.mark.parametrize(("nanos", "minutes"), [(-1, 5), (USD, 0), (USD, 61), (10**18, 5)])
def test_a_brake_that_cannot_be_is_refused(acme: Customer, nanos: int, minutes: int) -> None:
    with pytest.raises(InvalidInput):
        set_brake(acme.key, nanos, minutes=minutes)


def test_one_key_that_cannot_be_paused_stops_no_other(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    later = create_key(acme.key.project, name="Later").key
    for key in (acme.key, later):
        set_brake(key, 5 * USD, minutes=10)
        spend(acme, 6 * USD, key=key)

    def odd(key_id: str, *, reason: str) -> ApiKey | None:
        if key_id == acme.key.id:
            raise ZeroDivisionError
        return pause_key(key_id, reason=reason)

    with monkeypatch.context() as breaking:
        breaking.setattr("apps.billing.alerts.brake.pause_key", odd)
        assert look() == [later.id]
    assert not is_paused(acme)
    assert look() == [acme.key.id], "the next round tries it again"


def test_a_name_of_two_lines_from_before_is_paused_and_told_of(acme: Customer) -> None:
    ApiKey.objects.filter(pk=acme.key.pk).update(name="a\nb" + "x" * 97)
    set_brake(acme.key, 5 * USD, minutes=10)
    spend(acme, 6 * USD)
    assert look() == [acme.key.id]
    assert told(acme)[0].startswith("The key “a bxxx")


@pytest.mark.django_db(transaction=True)
def test_four_workers_at_once_pause_and_tell_once(transactional_db: None) -> None:
    who = customer("Busy")
    set_brake(who.key, USD)
    spend(who, 2 * USD)
    now = datetime.now(UTC)
    jobs: list[Callable[[], list[str]]] = [lambda: brake(now)] * 4
    assert sorted(at_once(jobs)) == [[], [], [], [who.key.id]]
    assert len(told(who)) == 1
