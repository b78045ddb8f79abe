"""The way of a message: leased to one worker a try, tried again for a day, given up, replayed; and the e-mails."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from smtplib import SMTPException
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.utils import timezone

from apps.billing.alerts import emails, endpoints
from apps.billing.alerts.endpoints import (
    GIVE_UP_AFTER,
    KEEP,
    MAX_TESTS_WAITING,
    PER_ENDPOINT,
    PER_ORGANIZATION,
    PUT_OFF,
    Try,
    conclude,
    create_endpoint,
    lease_deliveries,
    live_secrets,
    postpone,
    prune,
    replay,
    rotate_secret,
    send_test,
    switch,
)
from apps.billing.alerts.raising import raise_alert
from apps.billing.alerts.work_tables import JITTER, LEASE, MAX_TRIES, RETRY_AFTER_S, end_turn, take_turn, wait_after
from apps.billing.models import Alert, AlertEmail, AlertKind, DeliveryState, WebhookDelivery, WebhookEndpoint
from apps.core.errors import Conflict, InvalidInput
from tests.billing.alerts.spending import Customer, customer, told
from tests.billing.books import at_once

pytestmark = pytest.mark.django_db

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
URL = "https://hooks.example.com/crun"
KINDS = (AlertKind.CREDIT_LOW, AlertKind.WEBHOOK_DISABLED)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(START, tick=False) as travelling:
        yield travelling


@pytest.fixture
def acme(clock: time_machine.Traveller) -> Customer:
    return customer()


@pytest.fixture
def endpoint(acme: Customer) -> WebhookEndpoint:
    return create_endpoint(acme.organization, URL, kinds=[AlertKind.CREDIT_LOW])[0]


def lease_all(limit: int = 50) -> list[WebhookDelivery]:
    return lease_deliveries(limit, timezone.now())


def outcome(error: str = "answered 500", code: int | None = 500, *, is_gone: bool = False) -> Try:
    return Try(timezone.now(), code, error, 12, is_gone)


def test_the_schedule_has_eight_tries_over_more_than_a_day() -> None:
    assert MAX_TRIES == 8
    assert sum(RETRY_AFTER_S) >= 24 * 3600
    waits = [wait_after(number).total_seconds() for number in range(1, MAX_TRIES) for _ in range(50)]
    bases = [base for base in RETRY_AFTER_S for _ in range(50)]
    assert all(base <= wait <= base * (1 + JITTER) for base, wait in zip(bases, waits, strict=True))
    assert len(set(waits)) > 300, "jitter"


def test_a_message_that_always_fails_is_tried_eight_times_and_given_up(
    endpoint: WebhookEndpoint, clock: time_machine.Traveller
) -> None:
    message = send_test(endpoint)
    for number in range(1, 9):
        (leased,) = lease_all()
        assert leased.id == message.id
        assert conclude(leased, outcome())
        message.refresh_from_db()
        assert (message.attempts, message.state == DeliveryState.FAILED) == (number, number == 8)
        if number < 8:
            clock.move_to(message.next_at - timedelta(milliseconds=1))
            assert lease_all() == []
            clock.move_to(message.next_at)
    assert message.finished_at is not None
    assert message.finished_at - START >= timedelta(hours=24)
    assert [entry["code"] for entry in message.tries] == [500] * 8
    clock.shift(timedelta(days=3))
    assert lease_all() == []


def test_one_success_ends_it(endpoint: WebhookEndpoint) -> None:
    message = send_test(endpoint)
    (leased,) = lease_all()
    assert conclude(leased, outcome("", 204))
    message.refresh_from_db()
    assert (message.state, message.last_code, message.last_error) == (DeliveryState.DELIVERED, 204, "")
    assert lease_all() == []


def test_a_leased_message_is_nobody_elses_until_the_lease_ends(
    endpoint: WebhookEndpoint, clock: time_machine.Traveller
) -> None:
    send_test(endpoint)
    (first,) = lease_all()
    assert lease_all() == []
    clock.shift(LEASE - timedelta(seconds=1))
    assert lease_all() == []
    clock.shift(timedelta(seconds=1))
    (second,) = lease_all()
    assert not conclude(first, outcome()), "the one that was too slow has no say any more"
    assert conclude(second, outcome("", 200))
    assert WebhookDelivery.objects.get().attempts == 2


def test_a_last_try_that_was_lost_with_its_worker_ends_the_message(
    endpoint: WebhookEndpoint, clock: time_machine.Traveller
) -> None:
    send_test(endpoint)
    for _ in range(MAX_TRIES):
        assert len(lease_all()) == 1
        clock.shift(LEASE)
    assert lease_all() == []
    assert WebhookDelivery.objects.get().state == DeliveryState.FAILED


def test_a_slow_endpoint_gets_a_few_places_and_the_others_theirs(acme: Customer, endpoint: WebhookEndpoint) -> None:
    for number in range(200):
        queued(endpoint, number)
    other, _ = create_endpoint(acme.organization, "https://b.example.com/", kinds=[AlertKind.CREDIT_LOW])
    send_test(other)
    leased = lease_all()
    assert len([each for each in leased if each.endpoint_id == endpoint.id]) == PER_ENDPOINT
    assert len([each for each in leased if each.endpoint_id == other.id]) == 1


def queued(endpoint: WebhookEndpoint, number: int) -> WebhookDelivery:
    """A message of an alert that is due; the higher the number the later."""
    delivery: WebhookDelivery = WebhookDelivery.objects.create(
        organization_id=endpoint.organization_id,
        endpoint=endpoint,
        event=AlertKind.CREDIT_LOW,
        body="{}",
        next_at=timezone.now() - timedelta(hours=1) + timedelta(seconds=number),
    )
    return delivery


def test_a_customer_with_many_endpoints_stands_before_nobody(acme: Customer, endpoint: WebhookEndpoint) -> None:
    """Each organization's first message comes before anybody's second, whoever queued first and more."""
    crowd = customer("Crowd")
    for number in range(20):
        noisy, _ = create_endpoint(crowd.organization, f"{URL}/{number}", kinds=[AlertKind.CREDIT_LOW])
        for _ in range(10):
            queued(noisy, 0)
    mine = [queued(endpoint, 100).id, queued(endpoint, 101).id]
    two = lease_all(2)
    assert {row.organization_id for row in two} == {acme.organization.id, crowd.organization.id}
    assert mine[0] in {row.id for row in two}
    leased = lease_all(200)
    of_crowd = [row for row in leased if row.organization_id == crowd.organization.id]
    assert len(of_crowd) == PER_ORGANIZATION
    assert len({row.endpoint_id for row in of_crowd}) == PER_ORGANIZATION, "and its endpoints take turns, too"
    assert mine[1] in {row.id for row in leased}


def test_who_waits_longest_comes_first(endpoint: WebhookEndpoint) -> None:
    ids = [queued(endpoint, number).id for number in (3, 1, 2)]
    assert [row.id for row in lease_all(2)] == [ids[1], ids[2]]


def test_test_events_that_wait_have_a_bound(endpoint: WebhookEndpoint) -> None:
    for _ in range(MAX_TESTS_WAITING):
        send_test(endpoint)
    with pytest.raises(Conflict, match="on their way"):
        send_test(endpoint)
    conclude(lease_all(1)[0], outcome("", 204))
    assert send_test(endpoint)


def test_a_try_that_could_not_begin_counts_as_none(endpoint: WebhookEndpoint, clock: time_machine.Traveller) -> None:
    send_test(endpoint)
    for _ in range(3 * MAX_TRIES):
        (leased,) = lease_all()
        assert postpone(leased)
        assert lease_all() == []
        clock.shift(PUT_OFF)
    message = WebhookDelivery.objects.get()
    assert (message.state, message.attempts, message.tries) == (DeliveryState.PENDING, 0, [])
    endpoint.refresh_from_db()
    assert endpoint.failing_since is None


def test_a_lost_lease_is_not_put_off(endpoint: WebhookEndpoint, clock: time_machine.Traveller) -> None:
    send_test(endpoint)
    (first,) = lease_all()
    clock.shift(LEASE)
    lease_all()
    assert not postpone(first)


def test_who_may_see_alerts_learns_the_host_and_not_the_secret_path(acme: Customer) -> None:
    endpoint, _ = create_endpoint(acme.organization, f"{URL}/T0/s3cret?token=abc", kinds=list(KINDS))
    send_test(endpoint)
    conclude(lease_all()[0], outcome("answered 410", 410, is_gone=True))
    alert = Alert.objects.get()
    assert alert.details["host"] == "hooks.example.com"
    assert "to your endpoint at hooks.example.com," in alert.text
    everything = (
        f"{alert.subject} {alert.text} {alert.details} {WebhookDelivery.objects.values_list('body', flat=True)}"
    )
    assert "s3cret" not in everything
    assert "token" not in everything


@pytest.mark.django_db(transaction=True)
def test_six_workers_at_once_lease_each_message_once(transactional_db: None) -> None:
    busy = [customer(f"Busy {number}") for number in range(4)]
    for number in range(20):
        who = busy[number % 4]
        endpoint, _ = create_endpoint(who.organization, f"{URL}/{number}", kinds=[AlertKind.CREDIT_LOW])
        for _ in range(3):
            send_test(endpoint)
    taken = [row.id for rows in at_once([lambda: lease_deliveries(50, timezone.now())] * 6) for row in rows]
    for _ in range(3):
        taken += [row.id for rows in at_once([lambda: lease_deliveries(50, timezone.now())] * 6) for row in rows]
    assert len(taken) == len(set(taken)) == 60
    assert set(WebhookDelivery.objects.values_list("attempts", flat=True)) == {1}


def test_an_endpoint_that_failed_for_days_is_switched_off_and_told_of(
    acme: Customer, endpoint: WebhookEndpoint, clock: time_machine.Traveller
) -> None:
    send_test(endpoint)
    conclude(lease_all()[0], outcome())
    clock.shift(GIVE_UP_AFTER - timedelta(seconds=1))
    conclude(lease_all()[0], outcome())
    endpoint.refresh_from_db()
    assert endpoint.enabled
    clock.shift(timedelta(minutes=5))
    conclude(lease_all()[0], outcome())
    endpoint.refresh_from_db()
    assert not endpoint.enabled
    assert "failed since 2026-03-02 12:00 UTC" in endpoint.disabled_reason
    assert told(acme) == ["A webhook endpoint was switched off"]
    clock.shift(timedelta(days=1))
    assert lease_all() == [], "nothing is sent to it"
    switch(endpoint, on=True)
    assert len(lease_all()) == 1, "what waited goes out when it is on again"


def test_a_success_in_between_begins_the_count_anew(endpoint: WebhookEndpoint, clock: time_machine.Traveller) -> None:
    send_test(endpoint)
    conclude(lease_all()[0], outcome())
    clock.shift(timedelta(days=4))
    conclude(lease_all()[0], outcome("", 200))
    send_test(endpoint)
    clock.shift(timedelta(days=4))
    conclude(lease_all()[0], outcome())
    endpoint.refresh_from_db()
    assert endpoint.enabled
    assert endpoint.failing_since == timezone.now()


def test_gone_switches_off_at_once(acme: Customer, endpoint: WebhookEndpoint) -> None:
    send_test(endpoint)
    conclude(lease_all()[0], outcome("answered 410", 410, is_gone=True))
    endpoint.refresh_from_db()
    assert not endpoint.enabled
    assert told(acme) == ["A webhook endpoint was switched off"]


def test_a_replay_is_the_same_message_with_a_schedule_of_its_own(
    endpoint: WebhookEndpoint, clock: time_machine.Traveller
) -> None:
    message = send_test(endpoint)
    with pytest.raises(Conflict):
        replay(message)
    while message.state == DeliveryState.PENDING:
        for leased in lease_all():
            conclude(leased, outcome())
        clock.shift(timedelta(hours=1))
        message.refresh_from_db()
    replay(message)
    (leased,) = lease_all()
    assert (leased.id, leased.body) == (message.id, message.body)
    conclude(leased, outcome())
    message.refresh_from_db()
    assert message.state == DeliveryState.PENDING
    assert message.next_at - timezone.now() <= timedelta(seconds=RETRY_AFTER_S[0] * (1 + JITTER))
    switch(endpoint, on=False)
    with pytest.raises(Conflict):
        send_test(endpoint)


def test_secrets_are_sealed_and_two_live_while_they_change(acme: Customer, clock: time_machine.Traveller) -> None:
    endpoint, first = create_endpoint(acme.organization, URL, kinds=[AlertKind.CREDIT_LOW])
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 32
    second = rotate_secret(endpoint)
    endpoint.refresh_from_db()
    stored = endpoint.sealed_secret + endpoint.sealed_previous_secret
    assert first.removeprefix("whsec_") not in stored
    assert live_secrets(endpoint, timezone.now()) == [second, first]
    with pytest.raises(Conflict):
        rotate_secret(endpoint)
    clock.shift(timedelta(hours=24))
    assert live_secrets(endpoint, timezone.now()) == [second]
    assert rotate_secret(endpoint) not in (first, second)


def test_ended_rotations_leave_one_secret(endpoint: WebhookEndpoint) -> None:
    second = rotate_secret(endpoint)
    endpoints.drop_previous_secret(endpoint)
    endpoint.refresh_from_db()
    assert live_secrets(endpoint, timezone.now()) == [second]


@pytest.mark.parametrize("kinds", [[], ["credit.high"], [AlertKind.LEDGER_PROOF_FAILED]])
def test_kinds_that_no_customer_can_have_are_refused(acme: Customer, kinds: list[str]) -> None:
    with pytest.raises(InvalidInput):
        create_endpoint(acme.organization, URL, kinds=kinds)


def test_there_is_a_bound_on_endpoints(acme: Customer) -> None:
    for number in range(endpoints.MAX_ENDPOINTS):
        create_endpoint(acme.organization, f"{URL}/{number}", kinds=[AlertKind.CREDIT_LOW])
    with pytest.raises(Conflict):
        create_endpoint(acme.organization, URL, kinds=[AlertKind.CREDIT_LOW])


def test_old_messages_are_forgotten_and_waiting_ones_kept(
    endpoint: WebhookEndpoint, clock: time_machine.Traveller
) -> None:
    send_test(endpoint)
    conclude(lease_all()[0], outcome("", 200))
    waiting = send_test(endpoint)
    clock.shift(KEEP + timedelta(seconds=1))
    assert prune(timezone.now()) == 1
    assert WebhookDelivery.objects.get().id == waiting.id


def test_turns_are_taken_by_one_at_a_time_and_end_by_themselves(clock: time_machine.Traveller) -> None:
    assert take_turn("x", 40)
    assert not take_turn("x", 40)
    assert take_turn("y", 40)
    end_turn("x")
    assert take_turn("x", 40)
    clock.shift(timedelta(seconds=40))
    assert take_turn("x", 40), "its owner died"


def raised(who: Customer, subject: str = "Low") -> None:
    text = "2.00 USD can still be spent."
    raise_alert(who.organization.id, AlertKind.CREDIT_LOW, key=subject, subject=subject, text=text)


def test_an_email_says_what_happened_and_where_to_look(acme: Customer) -> None:
    raised(acme)
    assert emails.send_emails() == 1
    assert emails.send_emails() == 0
    (sent,) = mail.outbox
    assert (sent.subject, sent.to) == ("[Acme] Low", ["owner@acme.example"])
    assert "2.00 USD can still be spent." in sent.body
    assert "/o/acme/alerts/" in sent.body


def test_no_name_breaks_into_the_headers(acme: Customer) -> None:
    acme.organization.name = "Acme\r\nBcc: everybody@example.com"
    acme.organization.save()
    raised(acme)
    emails.send_emails()
    assert mail.outbox[0].subject == "[Acme Bcc: everybody@example.com] Low"


def test_a_mail_server_that_is_away_is_tried_again(
    acme: Customer, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise SMTPException("no")

    raised(acme)
    with monkeypatch.context() as away:
        away.setattr("django.core.mail.EmailMessage.send", refuse)
        assert emails.send_emails() == 0
    row = AlertEmail.objects.get()
    assert (row.state, row.attempts, row.last_error) == (DeliveryState.PENDING, 1, "SMTPException: no")
    assert emails.send_emails() == 0
    clock.shift(timedelta(seconds=13))
    assert emails.send_emails() == 1
    assert len(mail.outbox) == 1
