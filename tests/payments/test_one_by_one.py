"""One odd row never stops the work for the others: it is noted, waits longer each time, and a person is told."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.billing import grants, ledger, one_by_one
from apps.billing.models import Alert, OddRow, Payment, PaymentMethod, PaymentStatus, Refund, WebhookInbox
from apps.billing.one_by_one import MAX_TRIES
from apps.billing.payments import auto_top_ups, cards, inbox, refunds, tasks, top_ups
from apps.billing.payments.auto_top_ups import Terms, begin, switch_on, top_up_all
from apps.billing.payments.contracts import ProviderAway
from apps.core.errors import Conflict
from tests.billing import books
from tests.payments.conftest import USD, Till

pytestmark = pytest.mark.django_db


def thirsty(till: Till, name: str) -> Till:
    """Another organization whose saved card is to be charged."""
    other = Till(till.account, books.organization(name))
    other.paid(10, save_card=True)
    card = PaymentMethod.objects.get(organization=other.owner)
    switch_on(other.owner.id, Terms(5 * USD, 20 * USD, 100 * USD, card.id), actor="ada@acme.example")
    grants.charge(other.owner.id, 9 * USD, idempotency_key=books.key("spend"), reason="Used")
    return other


def failing_for(odd: object, real: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """The real function, but for one first argument."""

    def act(first: object, *rest: Any, **named: Any) -> Any:
        if first == odd:
            raise error
        return real(first, *rest, **named)

    return act


def later(**fields: Any) -> None:
    OddRow.objects.update(next_attempt_at=timezone.now(), **fields)


def test_one_odd_top_up_does_not_stop_the_others(till: Till) -> None:
    """The customer of the first is gone at Stripe, and its payment is one that Stripe does not know."""
    one, two = thirsty(till, "One"), thirsty(till, "Two")
    pending = begin(one.owner.id)
    assert pending is not None
    past = timezone.now() - timedelta(minutes=5)
    Payment.objects.filter(pk=pending.pk).update(provider_reference="pi_gone", created_at=past)
    for _ in range(2):
        top_up_all()
        Payment.objects.filter(pk=pending.pk).update(checked_at=past)
    assert ledger.balance_nanos(two.owner.id) == 21 * USD
    (odd,) = OddRow.objects.all()
    assert (odd.subject, odd.tries) == (pending.id, 1)  # the second time it was not its turn
    Payment.objects.filter(pk=pending.pk).update(created_at=timezone.now() - timedelta(days=1))
    later()
    top_up_all()
    pending.refresh_from_db()
    assert (pending.status, pending.is_open_at_provider) == (PaymentStatus.FAILED, False)
    assert OddRow.objects.count() == 0


def test_a_decision_that_fails_for_one_is_made_for_the_others(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = sorted([thirsty(till, "One"), thirsty(till, "Two")], key=lambda each: each.owner.id)
    monkeypatch.setattr(auto_top_ups, "begin", failing_for(one.owner.id, begin, RuntimeError("odd")))
    assert top_up_all() == 1
    assert ledger.balance_nanos(two.owner.id) == 21 * USD


def test_three_without_an_answer_are_enough_for_one_run(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def nobody_answers(owner: str) -> None:
        tried.append(owner)
        raise ProviderAway("nobody answers")

    with pytest.raises(ProviderAway):
        one_by_one.one_by_one("x", [f"org_{number}" for number in range(9)], nobody_answers, away=ProviderAway)
    assert len(tried) == 3


def test_who_fails_often_waits_longer_and_the_operator_is_told_once(till: Till) -> None:
    def odd(subject: str) -> None:
        raise Conflict("it does not add up")

    waits = []
    for _ in range(MAX_TRIES + 1):
        one_by_one.one_by_one("x", ["pay_1"], odd)
        waits.append(round((OddRow.objects.get().next_attempt_at - timezone.now()) / timedelta(minutes=1)))
        assert one_by_one.one_by_one("x", ["pay_1"], odd) == 0  # not its turn
        later()
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 1440, 1440]
    alert = Alert.objects.get()
    assert (alert.organization_id, alert.kind) == (None, "payment.review")
    assert "it does not add up" in alert.text


def test_a_provider_that_is_away_is_no_news_for_the_operator(till: Till) -> None:
    def away(subject: str) -> None:
        raise ProviderAway("nobody answers")

    for _ in range(MAX_TRIES + 2):
        one_by_one.one_by_one("x", ["pay_1"], away, away=ProviderAway)
        later()
    assert not Alert.objects.exists()


def test_an_event_with_an_unexpected_error_waits_is_given_up_and_told(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = till.start(10)
    old = timezone.now() - timedelta(minutes=10)
    odd = WebhookInbox.objects.create(provider="stripe", event_id="evt_odd", type="payout.paid", payload="{}")
    for event in till.account.pay(payment.checkout_reference):
        WebhookInbox.objects.create(
            provider="stripe", event_id=event["id"], type=event["type"], payload=json.dumps(event)
        )
    WebhookInbox.objects.update(received_at=old)
    monkeypatch.setattr(inbox, "work_on", failing_for(odd.pk, inbox.work_on, RuntimeError("odd")))
    assert inbox.work_on_due() == 3
    assert ledger.balance_nanos(till.owner.id) == 10 * USD
    assert inbox.work_on_due() == 0
    for _ in range(inbox.MAX_TRIES):
        WebhookInbox.objects.filter(status="parked").update(next_attempt_at=timezone.now())
        inbox.work_on_due()
    odd.refresh_from_db()
    assert (odd.status, odd.attempts) == ("given_up", inbox.MAX_TRIES)
    assert odd.error.endswith("RuntimeError")
    assert Alert.objects.get().details["event"] == "evt_odd"


def test_one_odd_refund_does_not_stop_the_others(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = till.paid(10)
    made = []
    for number in range(2):
        for _ in range(2):
            till.account.fail_next("/v1/refunds", "before")
        made.append(refunds.refund_payment(payment.id, (1 + number) * USD, reason="x", actor="y"))
    Refund.objects.update(checked_at=timezone.now() - timedelta(minutes=2))
    monkeypatch.setattr(refunds, "send", failing_for(made[0], refunds.send, RuntimeError("odd")))
    assert refunds.resume_refunds() == 1
    assert [each["amount"] for each in till.account.of("refund")] == [200]


def test_one_odd_card_or_page_does_not_stop_the_others(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    save = cards.save_card_of
    monkeypatch.setattr(cards, "save_card_of", failing_for("nobody", lambda payment: None, RuntimeError()))
    first, second = till.paid(10, save_card=True), till.paid(11, save_card=True)
    monkeypatch.setattr(cards, "save_card_of", failing_for(first, save, RuntimeError("odd")))
    cards.save_missing_cards()
    second.refresh_from_db()
    assert second.card is not None
    open_pages = [till.start(10), till.start(11)]
    Payment.objects.filter(status="pending").update(created_at=timezone.now() - timedelta(minutes=5))
    till.account.expire(open_pages[1].checkout_reference)
    del till.account.objects[open_pages[0].checkout_reference]
    assert top_ups.follow_checkouts() == 1
    assert Payment.objects.get(pk=open_pages[1].pk).status == PaymentStatus.EXPIRED


@pytest.mark.django_db(transaction=True)  # tasks close their connections
def test_a_step_that_fails_does_not_stop_the_next(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = till.start(10)
    till.account.pay(payment.checkout_reference)
    Payment.objects.update(created_at=timezone.now() - timedelta(minutes=5))

    def odd() -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(tasks, "work_on_due", odd)
    tasks.follow_payments()
    assert ledger.balance_nanos(till.owner.id) == 10 * USD
