"""Automatic top-ups: below the threshold, one at a time, never above the month's ceiling, paused after failures."""

import time
from datetime import UTC, timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from apps.billing import grants, ledger
from apps.billing.models import Alert, AutoTopUp, OddRow, Payment, PaymentMethod, PaymentStatus
from apps.billing.payments import auto_top_ups, cards, tasks
from apps.billing.payments.auto_top_ups import Terms, begin, switch_off, switch_on, top_up, top_up_all
from apps.billing.payments.contracts import ProviderAway
from apps.core.errors import InvalidInput
from tests.billing import books
from tests.payments.conftest import USD, Till

pytestmark = pytest.mark.django_db


def set_up(till: Till, *, threshold: int = 5, amount: int = 20, ceiling: int = 100) -> AutoTopUp:
    """A saved card from a paid page of 10 USD, and terms in USD."""
    till.paid(10, save_card=True)
    card = PaymentMethod.objects.get()
    terms = Terms(threshold * USD, amount * USD, ceiling * USD, card.id)
    return switch_on(till.owner.id, terms, actor="ada@acme.example")


def spend(till: Till, usd: int) -> None:
    grants.charge(till.owner.id, usd * USD, idempotency_key=books.key("spend"), reason="Used")


def automatic() -> list[Payment]:
    return list(Payment.objects.filter(kind="auto_top_up").order_by("created_at"))


def test_below_the_threshold_the_card_is_charged_at_once(till: Till) -> None:
    set_up(till)
    assert top_up(till.owner.id) is None
    spend(till, 5)
    assert top_up(till.owner.id) is None  # exactly the threshold is not below it
    spend(till, 1)
    payment = top_up(till.owner.id)
    assert payment is not None and payment.status == PaymentStatus.PAID
    assert ledger.balance_nanos(till.owner.id) == 24 * USD
    _, _, params, headers = till.account.requests[-1]
    assert (params["off_session"], params["confirm"], params["amount"]) == ("true", "true", "2000")
    assert headers["idempotency-key"] == f"charge:{payment.id}"
    assert top_up(till.owner.id) is None
    assert books.failed_proofs() == []


def test_its_events_credit_nothing_more(till: Till) -> None:
    set_up(till)
    spend(till, 9)
    first = len(till.account.events)
    top_up(till.owner.id)
    for event in till.account.events[first:] * 2:
        assert till.deliver(event).status_code == 200
    assert ledger.balance_nanos(till.owner.id) == 21 * USD


@pytest.mark.django_db(transaction=True)  # tasks close their connections
def test_the_task_finds_who_needs_it(till: Till) -> None:
    set_up(till)
    spend(till, 9)
    other = books.organization("Other")
    tasks.auto_top_up()
    tasks.auto_top_up()
    assert [payment.organization_id for payment in automatic()] == [till.owner.id]
    assert not Payment.objects.for_organization(other.id).exists()


@pytest.mark.django_db(transaction=True)  # tasks close their connections
def test_switched_off_or_without_a_key_nothing_is_charged(till: Till, settings: Settings) -> None:
    set_up(till)
    spend(till, 9)
    settings.STRIPE_SECRET_KEY = ""
    tasks.auto_top_up()
    settings.STRIPE_SECRET_KEY = "sk_test_" + "x" * 24
    switch_off(till.owner.id, actor="ada")
    tasks.auto_top_up()
    assert automatic() == []


def test_the_ceiling_is_never_exceeded(till: Till) -> None:
    set_up(till, amount=20, ceiling=50)
    for _ in range(5):
        spend(till, 25)
        top_up(till.owner.id)
    assert len(automatic()) == 2
    assert auto_top_ups.spent_this_month(till.owner.id) == 40 * USD
    alerts = Alert.objects.filter(kind="auto_top_up.failed")
    assert [alert.subject for alert in alerts] == ["Automatic top-up has reached its monthly ceiling"]


def test_a_top_up_that_the_bank_wants_confirmed_is_cancelled_at_stripe(till: Till) -> None:
    """Nobody is there to confirm it; left open it could be charged weeks later, beyond the ceiling."""
    set_up(till)
    spend(till, 9)
    till.account.asks_bank = True
    payment = top_up(till.owner.id)
    assert payment is not None
    assert (payment.status, payment.is_open_at_provider) == (PaymentStatus.FAILED, False)
    assert till.account.objects[payment.provider_reference]["status"] == "canceled"
    assert auto_top_ups.spent_this_month(till.owner.id) == 0


@pytest.mark.parametrize("asks_bank", [True, False])
def test_what_failed_counts_until_it_is_cancelled(till: Till, asks_bank: bool) -> None:
    set_up(till, amount=20, ceiling=30)
    spend(till, 9)
    till.account.asks_bank, till.account.declines = asks_bank, not asks_bank
    for _ in range(2):
        till.account.fail_next("/v1/payment_intents/pi", "before")
    first = top_up(till.owner.id)
    assert first is not None
    assert (first.status, first.is_open_at_provider) == (PaymentStatus.FAILED, True)
    AutoTopUp.objects.update(next_attempt_at=None)
    assert begin(till.owner.id) is None  # 20 more could be charged: the ceiling has no room
    assert auto_top_ups.spent_this_month(till.owner.id) == 20 * USD
    till.account.asks_bank = till.account.declines = False
    OddRow.objects.update(next_attempt_at=timezone.now())
    top_up_all()
    assert till.account.objects[first.provider_reference]["status"] == "canceled"
    assert till.account.charged_cents() == 1000 + 2000
    assert auto_top_ups.spent_this_month(till.owner.id) == 20 * USD


def test_a_failed_top_up_that_was_paid_before_it_could_be_cancelled_is_credited(till: Till) -> None:
    set_up(till)
    spend(till, 9)
    till.account.asks_bank = True
    for _ in range(2):
        till.account.fail_next("/v1/payment_intents/pi", "before")
    payment = top_up(till.owner.id)
    assert payment is not None and payment.is_open_at_provider
    till.account.confirm(till.account.objects[payment.provider_reference])
    OddRow.objects.update(next_attempt_at=timezone.now())
    assert auto_top_ups.cancel_open() == 1
    payment.refresh_from_db()
    assert (payment.status, payment.is_open_at_provider) == (PaymentStatus.PAID, False)
    assert ledger.balance_nanos(till.owner.id) == 21 * USD


def test_a_new_month_begins_anew(till: Till) -> None:
    set_up(till, amount=20, ceiling=20)
    spend(till, 9)
    top_up(till.owner.id)
    spend(till, 20)
    assert top_up(till.owner.id) is None
    month = timezone.now().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    Payment.objects.filter(kind="auto_top_up").update(created_at=month)
    assert top_up(till.owner.id) is None
    Payment.objects.filter(kind="auto_top_up").update(created_at=month - timedelta(microseconds=1))
    assert top_up(till.owner.id) is not None


def test_failures_are_told_wait_longer_and_pause_at_the_third(till: Till) -> None:
    set_up(till)
    spend(till, 9)
    till.account.declines = True
    for failures, hours in ((1, 1), (2, 2), (3, 4)):
        payment = top_up(till.owner.id)
        assert payment is not None
        assert (payment.status, payment.failure) == (PaymentStatus.FAILED, "Your card was declined.")
        terms = AutoTopUp.objects.get()
        assert terms.failures == failures
        assert terms.next_attempt_at is not None
        assert abs(terms.next_attempt_at - timezone.now() - timedelta(hours=hours)) < timedelta(minutes=1)
        assert top_up(till.owner.id) is None
        AutoTopUp.objects.update(next_attempt_at=None)
    terms.refresh_from_db()
    assert terms.paused_reason == "3 payments in a row failed. The last one: Your card was declined."
    assert top_up(till.owner.id) is None
    assert Alert.objects.filter(kind="auto_top_up.failed").count() == 3
    assert ledger.balance_nanos(till.owner.id) == USD


def test_its_events_of_failure_count_no_second_failure(till: Till) -> None:
    set_up(till)
    spend(till, 9)
    till.account.declines = True
    first = len(till.account.events)
    top_up(till.owner.id)
    for event in till.account.events[first:] * 2:
        assert till.deliver(event).status_code == 200
    assert AutoTopUp.objects.get().failures == 1


def test_saving_the_terms_again_resumes(till: Till) -> None:
    terms = set_up(till)
    spend(till, 9)
    AutoTopUp.objects.update(paused_at=timezone.now(), paused_reason="x", failures=3, next_attempt_at=timezone.now())
    switch_on(till.owner.id, Terms(5 * USD, 20 * USD, 100 * USD, str(terms.card_id)), actor="ada")
    assert top_up(till.owner.id) is not None


def test_success_forgets_failures(till: Till) -> None:
    set_up(till)
    spend(till, 9)
    AutoTopUp.objects.update(failures=2)
    top_up(till.owner.id)
    assert AutoTopUp.objects.get().failures == 0


@pytest.mark.parametrize("how", ["before", "after"])
def test_without_an_answer_the_payment_waits_and_is_charged_once(till: Till, how: str) -> None:
    set_up(till)
    spend(till, 9)
    for _ in range(2):
        till.account.fail_next("/v1/payment_intents", how)
    with pytest.raises(ProviderAway):
        top_up(till.owner.id)
    (payment,) = automatic()
    assert payment.status == PaymentStatus.PENDING
    assert top_up(till.owner.id) is None  # one is running
    past = timezone.now() - timedelta(minutes=2)
    Payment.objects.filter(pk=payment.pk).update(created_at=past, checked_at=past)
    top_up_all()
    payment.refresh_from_db()
    assert payment.status == PaymentStatus.PAID
    assert till.account.charged_cents() == 3000
    assert ledger.balance_nanos(till.owner.id) == 21 * USD


def test_a_payment_that_nobody_heard_of_for_a_day_is_given_up(till: Till) -> None:
    set_up(till)
    spend(till, 9)
    payment = begin(till.owner.id)
    assert payment is not None
    Payment.objects.filter(pk=payment.pk).update(created_at=timezone.now() - timedelta(days=1))
    AutoTopUp.objects.update(threshold_nanos=0)
    top_up_all()
    payment.refresh_from_db()
    assert payment.status == PaymentStatus.FAILED
    assert till.account.charged_cents() == 1000


def test_a_removed_card_is_charged_no_more(till: Till) -> None:
    terms = set_up(till)
    spend(till, 9)
    cards.remove_card(till.owner.id, str(terms.card_id))
    terms.refresh_from_db()
    assert terms.paused_reason == "Visa ending in 4242 was removed."
    assert top_up(till.owner.id) is None
    assert till.account.of("payment_method")[0]["customer"] is None


def test_a_dispute_pauses(till: Till) -> None:
    set_up(till)
    for event in till.account.dispute(Payment.objects.get().provider_reference)[1]:
        till.deliver(event)
    assert AutoTopUp.objects.get().paused_reason == "A payment is disputed."
    assert top_up(till.owner.id) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_nanos": USD},
        {"amount_nanos": 20 * USD + 1},
        {"threshold_nanos": -1},
        {"card_id": "card_0"},
        {"monthly_ceiling_nanos": 19 * USD},
    ],
)
def test_terms_that_make_no_sense_are_refused(till: Till, changes: dict[str, Any]) -> None:
    terms = set_up(till)
    usual: dict[str, Any] = {
        "threshold_nanos": 5 * USD,
        "amount_nanos": 20 * USD,
        "monthly_ceiling_nanos": 100 * USD,
        "card_id": terms.card_id,
    }
    with pytest.raises(InvalidInput):
        switch_on(till.owner.id, Terms(**(usual | changes)), actor="ada")


def test_the_card_of_another_organization_cannot_be_used(till: Till) -> None:
    terms = set_up(till)
    other = books.organization("Other")
    with pytest.raises(InvalidInput):
        switch_on(other.id, Terms(5 * USD, 20 * USD, 100 * USD, str(terms.card_id)), actor="mallory")


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_are_one_payment(till: Till) -> None:
    set_up(till)
    spend(till, 9)
    results = books.at_once([partial(top_up, till.owner.id)] * 20)
    assert [result for result in results if isinstance(result, Exception)] == []
    assert (len(automatic()), till.account.charged_cents()) == (1, 3000)
    assert ledger.balance_nanos(till.owner.id) == 21 * USD


@pytest.mark.django_db(transaction=True)
def test_the_ceiling_is_exact_under_concurrency(till: Till) -> None:
    """Eight threads that want more and more: five times 20 of a ceiling of 100, and not a cent beyond."""
    set_up(till, threshold=100_000, amount=20, ceiling=119)

    def keep_asking() -> None:
        deadline = time.monotonic() + 60
        while till.account.charged_cents() < 11_000 and time.monotonic() < deadline:
            top_up(till.owner.id)
        for _ in range(3):
            top_up(till.owner.id)

    results = books.at_once([keep_asking] * 8)
    assert [result for result in results if isinstance(result, Exception)] == []
    assert till.account.charged_cents() == 1000 + 5 * 2000
    assert ledger.balance_nanos(till.owner.id) == 110 * USD
    assert len([payment for payment in automatic() if payment.status == PaymentStatus.PAID]) == 5
    assert books.failed_proofs() == []
