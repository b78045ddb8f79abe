"""D13: in every order, with every event twice or more: credited once, refunded at most what was paid, disputed once."""

import json
from itertools import permutations
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.billing import ledger
from apps.billing.models import Dispute, EventStatus, LedgerTransaction, Payment, Refund, WebhookInbox
from apps.billing.payments import inbox
from tests.billing import books
from tests.payments.conftest import USD, Till
from tests.payments.stripe_server import SECRET, Json, signature

pytestmark = pytest.mark.django_db


class Undo(Exception):
    """Ends a trial: its transaction is rolled back."""


def trial(events: list[Json], payment: Payment, *, prove: bool = True) -> dict[str, Any]:
    """Deliver events in this order to a fresh state, let what was parked be tried again; what came of it."""
    result: dict[str, Any] = {}
    try:
        with transaction.atomic():
            for event in events:  # as the webhook does, without the web server around it
                text = json.dumps(event)
                inbox.receive("stripe", text.encode(), signature(text, SECRET))
            WebhookInbox.objects.filter(status="parked").update(next_attempt_at=None, status="received")
            for row in WebhookInbox.objects.filter(status="received"):
                inbox.work_on(row.pk)
            owner = payment.organization_id
            result["balance"] = ledger.balance_nanos(owner)
            result["kinds"] = sorted(LedgerTransaction.objects.for_organization(owner).values_list("kind", flat=True))
            result["refunded"] = sum(Refund.objects.exclude(status="failed").values_list("amount_nanos", flat=True))
            result["statuses"] = set(WebhookInbox.objects.values_list("status", flat=True))
            result["disputes"] = list(Dispute.objects.values_list("status", flat=True))
            result["proofs"] = books.failed_proofs() if prove else []
            raise Undo
    except Undo:
        return result


def story(till: Till) -> tuple[Payment, list[Json]]:
    """Paid 10, 4 refunded in Stripe's dashboard, 6 disputed: five events that move money."""
    payment = till.start(10)
    paid, session = till.account.pay(payment.checkout_reference)
    intent = paid["data"]["object"]["id"]
    refunded, charge = till.account.refund_by_hand(intent, 400)
    _, (_, withdrawn) = till.account.dispute(intent, 600)
    return payment, [paid, session, refunded, charge, withdrawn]


EXPECTED = {
    "balance": 0,
    "kinds": ["dispute", "grant", "payment_refund"],
    "refunded": 4 * USD,
    "statuses": {EventStatus.DONE.value},
    "disputes": ["needs_response"],
    "proofs": [],
}


@pytest.mark.parametrize("first", range(5))
def test_d13_all_orders_of_five_events_with_all_of_them_twice(till: Till, first: int) -> None:
    """The 24 orders that begin with each of the five."""
    payment, events = story(till)
    begin = events.pop(first)
    for number, rest in enumerate(permutations(events)):
        order = [begin, *rest]
        result = trial([*order, *reversed(order)], payment, prove=number % 12 == 0)
        assert result == EXPECTED, [event["type"] for event in order]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(picks=st.lists(st.integers(0, 4), max_size=12))
def test_d13_any_duplicates_in_any_order(till: Till, picks: list[int]) -> None:
    """Whatever came before, once each event has come at least once the end is the same."""
    if not till.account.events:
        story(till)
    events = till.account.events
    story_of = [event for event in events if event["type"] != "charge.dispute.created"][:5]
    payment = Payment.objects.get()
    assert trial([*(story_of[pick] for pick in picks), *story_of], payment) == EXPECTED


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(picks=st.lists(st.integers(0, 6), max_size=14))
def test_d13_what_is_missing_never_makes_more(till: Till, picks: list[int]) -> None:
    """With any of the events, also of a dispute that is won: never more credit than was paid, every proof holds."""
    if not till.account.events:
        payment = till.start(10)
        paid, _ = till.account.pay(payment.checkout_reference)
        intent = paid["data"]["object"]["id"]
        till.account.refund_by_hand(intent, 400)
        dispute, _ = till.account.dispute(intent, 600)
        till.account.win(dispute)
    wanted = [event for event in till.account.events if event["type"] != "charge.dispute.created"]
    result = trial([wanted[pick] for pick in picks], Payment.objects.get())
    assert result["balance"] in (0, 4 * USD, 6 * USD, 10 * USD)
    assert result["refunded"] <= 10 * USD
    assert result["kinds"].count("grant") <= 1
    assert result["kinds"].count("dispute") <= 2
    assert result["proofs"] == []


def test_a_refund_before_its_payment_waits_in_the_inbox(till: Till) -> None:
    _, (paid, _, refunded, _, _) = story(till)
    assert till.deliver(refunded).json() == {"received": True, "status": "parked"}
    row = WebhookInbox.objects.get()
    assert (row.error, row.next_attempt_at is None) == ("the refunded payment has not arrived", False)
    assert till.deliver(paid).json()["status"] == "done"
    row.refresh_from_db()
    assert row.status == "done"
    assert ledger.balance_nanos(till.owner.id) == 6 * USD


def test_what_never_arrives_is_given_up_and_can_be_replayed(till: Till) -> None:
    _, (paid, _, refunded, _, _) = story(till)
    till.deliver(refunded)
    row = WebhookInbox.objects.get()
    due = row.next_attempt_at
    assert inbox.work_on_due() == 0
    WebhookInbox.objects.update(next_attempt_at=row.received_at, received_at=row.received_at - inbox.GIVE_UP_AFTER)
    assert inbox.work_on_due() == 1
    row.refresh_from_db()
    assert (row.status, row.next_attempt_at, due is None) == ("given_up", None, False)
    till.deliver(paid)
    assert inbox.work_on_due() == 0
    assert inbox.replay(refunded["id"]) is EventStatus.DONE
    assert ledger.balance_nanos(till.owner.id) == 6 * USD


def test_an_event_whose_process_died_is_found(till: Till) -> None:
    _, (paid, *_) = story(till)
    WebhookInbox.objects.create(provider="stripe", event_id=paid["id"], type=paid["type"], payload=json.dumps(paid))
    assert inbox.work_on_due() == 0
    WebhookInbox.objects.update(received_at=WebhookInbox.objects.get().received_at - inbox.FIRST_WAIT * 2)
    assert inbox.work_on_due() == 1
    assert ledger.balance_nanos(till.owner.id) == 10 * USD
