"""Refunds and disputes: only unused credit goes back, in new lines, never more than was paid; disputes move once."""

from functools import partial

import pytest
from django.db import IntegrityError, transaction

from apps.billing import grants, ledger
from apps.billing.models import (
    Alert,
    AutoTopUp,
    LedgerTransaction,
    OddRow,
    Payment,
    PaymentMethod,
    Refund,
    RefundStatus,
    WebhookInbox,
)
from apps.billing.payments import inbox, refunds
from apps.billing.payments.auto_top_ups import Terms, switch_on
from apps.billing.payments.refunds import refund_payment, refundable_nanos
from apps.billing.payments.top_ups import Transfer, record_bank_transfer
from apps.core.errors import Conflict, InvalidInput, NotFound
from apps.usage.recording import record
from tests import factories
from tests.billing import books
from tests.payments.conftest import USD, Till

pytestmark = pytest.mark.django_db
BY = {"reason": "Not needed", "actor": "operator@example.com"}


def use(till: Till, nanos: int) -> None:
    grants.charge(till.owner.id, nanos, idempotency_key=books.key("use"), reason="Used")


def test_unused_credit_goes_back_to_the_card(till: Till) -> None:
    payment = till.paid(10)
    use(till, 3_999_999_999)
    assert refundable_nanos(payment) == 6 * USD
    lines = LedgerTransaction.objects.count()
    refund = refund_payment(payment.id, 6 * USD, **BY)
    assert refund.status == RefundStatus.SUCCEEDED
    assert ledger.balance_nanos(till.owner.id) == 1
    assert LedgerTransaction.objects.count() == lines + 1
    assert refund.transaction.kind == "payment_refund"
    made = till.account.of("refund")[0]
    assert (made["amount"], made["metadata"]) == (600, {"crun_refund": refund.id})
    assert refund.provider_reference == made["id"]
    assert books.account_total("cash") == -4 * USD
    assert books.failed_proofs() == []


@pytest.mark.parametrize("nanos", [6 * USD + 10_000_000, 10 * USD, 11 * USD])
def test_used_credit_does_not_go_back(till: Till, nanos: int) -> None:
    payment = till.paid(10)
    use(till, 4 * USD)
    with pytest.raises(Conflict, match=r"6\.000000000 USD"):
        refund_payment(payment.id, nanos, **BY)
    assert (till.account.of("refund"), Refund.objects.count()) == ([], 0)


def test_usage_that_is_not_posted_yet_is_used_too(till: Till) -> None:
    payment = till.paid(10)
    record([books.used(till.owner, factories.stored_price(), tokens=1_000_000)])
    assert refundable_nanos(payment) == 9_850_000_000
    with pytest.raises(Conflict):
        refund_payment(payment.id, 10 * USD, **BY)


def test_credit_of_another_source_is_not_refunded(till: Till) -> None:
    payment = till.paid(10)
    use(till, 10 * USD)
    books.credit(till.owner, 50 * USD)
    assert refundable_nanos(payment) == 0


@pytest.mark.parametrize("nanos", [0, -USD, 1, USD + 1])
def test_a_refund_is_in_whole_cents(till: Till, nanos: int) -> None:
    with pytest.raises(InvalidInput):
        refund_payment(till.paid(10).id, nanos, **BY)


def test_what_was_not_paid_is_not_refunded(till: Till) -> None:
    with pytest.raises(Conflict):
        refund_payment(till.start(10).id, USD, **BY)
    with pytest.raises(NotFound):
        refund_payment("pay_0", USD, **BY)


def test_the_same_refund_asked_twice_is_one(till: Till) -> None:
    payment = till.paid(10)
    for _ in range(2):
        refund_payment(payment.id, 4 * USD, refund_id="rfd_1", **BY)
    with pytest.raises(Conflict):
        refund_payment(payment.id, 5 * USD, refund_id="rfd_1", **BY)
    assert [each["amount"] for each in till.account.of("refund")] == [400]


def test_its_own_events_change_nothing_more(till: Till) -> None:
    payment = till.paid(10)
    first = len(till.account.events)
    refund_payment(payment.id, 4 * USD, **BY)
    for event in till.account.events[first:] * 2:
        assert till.deliver(event).status_code == 200
    assert (ledger.balance_nanos(till.owner.id), Refund.objects.count()) == (6 * USD, 1)


@pytest.mark.parametrize("how", ["before", "after", "500"])
def test_an_answer_that_got_lost_is_asked_for_again(till: Till, how: str) -> None:
    payment = till.paid(10)
    for _ in range(2):
        till.account.fail_next("/v1/refunds", how)
    refund = refund_payment(payment.id, 10 * USD, **BY)
    assert (refund.status, ledger.balance_nanos(till.owner.id)) == (RefundStatus.PENDING, 0)
    assert refunds.resume_refunds() == 0
    Refund.objects.update(checked_at=refund.created_at - refunds.ASK_AGAIN_AFTER)
    assert refunds.resume_refunds() == 1
    refund.refresh_from_db()
    assert refund.status == RefundStatus.SUCCEEDED
    assert len(till.account.of("refund")) == 1


def test_when_stripe_refuses_the_credit_comes_back(till: Till) -> None:
    payment = till.paid(10)
    till.account.make_refund({"payment_intent": payment.provider_reference, "amount": "1000"})
    refund = refund_payment(payment.id, 10 * USD, **BY)
    assert (refund.status, refund.failure) == (
        RefundStatus.FAILED,
        "Stripe refuses this request (charge_already_refunded).",
    )
    assert ledger.balance_nanos(till.owner.id) == 10 * USD
    assert books.failed_proofs() == []


def test_a_refund_that_fails_later_gives_its_credit_back_once(till: Till) -> None:
    payment = till.paid(10)
    refund_payment(payment.id, 4 * USD, **BY)
    made = till.account.of("refund")[0] | {"status": "failed", "failure_reason": "lost_or_stolen_card"}
    for _ in range(2):
        till.deliver(till.account.emit("refund.failed", made))
    refund = Refund.objects.get()
    assert (refund.status, refund.failure) == (RefundStatus.FAILED, "lost or stolen card")
    assert ledger.balance_nanos(till.owner.id) == 10 * USD
    assert refundable_nanos(payment) == 10 * USD


def test_a_refund_made_at_stripe_takes_used_credit_as_a_debt(till: Till) -> None:
    payment = till.paid(10)
    use(till, 8 * USD)
    for event in till.account.refund_by_hand(payment.provider_reference, 1000):
        assert till.deliver(event).status_code == 200
    assert ledger.balance_nanos(till.owner.id) == -8 * USD
    assert Refund.objects.get().actor == refunds.AT_PROVIDER
    assert books.failed_proofs() == []


def test_more_than_was_paid_is_never_refunded(till: Till) -> None:
    payment = till.paid(10)
    refund_payment(payment.id, 10 * USD, **BY)
    forged = till.account.of("refund")[0] | {"id": "re_other", "metadata": {}}
    assert till.deliver(till.account.emit("refund.created", forged)).status_code == 400
    assert ledger.balance_nanos(till.owner.id) == 0


def test_a_bank_transfer_is_refunded_by_hand(till: Till) -> None:
    payment = record_bank_transfer(till.owner.id, Transfer(10 * USD, "SEPA 1"), actor="operator")
    assert refund_payment(payment.id, 10 * USD, **BY).status == RefundStatus.SUCCEEDED
    assert ledger.balance_nanos(till.owner.id) == 0


def test_a_dispute_takes_the_payment_back_and_a_won_one_returns_it(till: Till) -> None:
    payment = till.paid(10)
    use(till, 3 * USD)
    dispute, events = till.account.dispute(payment.provider_reference)
    for event in events * 2:
        assert till.deliver(event).status_code == 200
    assert ledger.balance_nanos(till.owner.id) == -3 * USD
    with pytest.raises(Conflict, match="disputed"):
        refund_payment(payment.id, USD, **BY)
    for event in till.account.win(dispute) * 2:
        assert till.deliver(event).status_code == 200
    assert ledger.balance_nanos(till.owner.id) == 7 * USD
    assert refundable_nanos(payment) == 7 * USD
    assert books.failed_proofs() == []


def test_a_dispute_takes_other_credit_before_it_becomes_a_debt(till: Till) -> None:
    payment = till.paid(10)
    use(till, 10 * USD)
    gift = books.credit(till.owner, 4 * USD)
    for event in till.account.dispute(payment.provider_reference)[1]:
        till.deliver(event)
    assert books.rest_of(gift) == [0]
    assert ledger.balance_nanos(till.owner.id) == -6 * USD
    assert books.failed_proofs() == []


def test_a_dispute_about_more_than_the_payment_takes_the_payment_and_tells_the_operator(till: Till) -> None:
    """Its money is gone at the bank whatever we think of the amount: the wallet follows, up to the payment."""
    payment = till.paid(10, save_card=True)
    card = PaymentMethod.objects.get()
    switch_on(till.owner.id, Terms(5 * USD, 20 * USD, 100 * USD, card.id), actor="ada")
    dispute, events = till.account.dispute(payment.provider_reference, 1001)
    for event in events * 2:
        assert till.deliver(event).status_code == 200
    assert ledger.balance_nanos(till.owner.id) == 0
    assert AutoTopUp.objects.get().paused_reason == "A payment is disputed."
    alert = Alert.objects.get(organization=None)
    assert (alert.kind, alert.details["payment"]) == ("payment.review", payment.id)
    assert "10.010000000 USD" in alert.text
    for event in till.account.win(dispute):
        assert till.deliver(event).status_code == 200
    assert ledger.balance_nanos(till.owner.id) == 10 * USD
    assert books.failed_proofs() == []


def test_an_event_that_is_refused_is_told_to_the_operator_once(till: Till) -> None:
    payment = till.paid(10)
    refund_payment(payment.id, 10 * USD, **BY)
    forged = till.account.of("refund")[0] | {"id": "re_other", "metadata": {}}
    event = till.account.emit("refund.created", forged)
    assert [till.deliver(event).status_code for _ in range(2)] == [400, 400]
    alert = Alert.objects.get()
    assert (alert.organization_id, alert.kind, alert.details["event"]) == (None, "payment.review", event["id"])
    assert "more would be refunded than was paid" in alert.text


def test_a_refund_at_stripe_beside_one_that_waits_is_tried_again(till: Till) -> None:
    """Stripe has room for one of them only: which one is known when ours has come to its end."""
    payment = till.paid(10)
    for _ in range(2):
        till.account.fail_next("/v1/refunds", "before")
    ours = refund_payment(payment.id, 6 * USD, **BY)
    by_hand, _ = till.account.refund_by_hand(payment.provider_reference, 1000)
    assert till.deliver(by_hand).json()["status"] == "parked"
    Refund.objects.update(checked_at=ours.created_at - refunds.ASK_AGAIN_AFTER)
    refunds.resume_refunds()  # Stripe refuses ours: nothing is left
    ours.refresh_from_db()
    assert ours.status == RefundStatus.FAILED
    WebhookInbox.objects.filter(status="parked").update(next_attempt_at=ours.created_at)
    inbox.work_on_due()
    assert ledger.balance_nanos(till.owner.id) == 0
    assert sorted(Refund.objects.values_list("amount_nanos", "status")) == [
        (6 * USD, "failed"),
        (10 * USD, "succeeded"),
    ]
    assert books.failed_proofs() == []


@pytest.mark.parametrize(("end", "status"), [("succeeded", "succeeded"), ("failed", "failed"), ("pending", "pending")])
def test_a_refund_that_was_accepted_is_asked_about_each_hour(till: Till, end: str, status: str) -> None:
    """Its event may get lost. It is never sent anew."""
    payment = till.paid(10)
    till.account.refunds_wait = True
    refund = refund_payment(payment.id, 4 * USD, **BY)
    assert (refund.status, refund.provider_reference != "") == (RefundStatus.PENDING, True)
    till.account.of("refund")[0]["status"] = end
    assert refunds.resume_refunds() == 0
    Refund.objects.update(checked_at=refund.created_at - refunds.POLL_AFTER)
    assert [refunds.resume_refunds(), refunds.resume_refunds()] == [1, 0]
    refund.refresh_from_db()
    assert refund.status == status
    assert len(till.account.of("refund")) == 1


@pytest.mark.parametrize("gone", ["refund", "payment"])
def test_a_refund_that_stripe_lists_no_more_is_not_sent_again_and_not_failed(till: Till, gone: str) -> None:
    payment = till.paid(10)
    till.account.refunds_wait = True
    refund = refund_payment(payment.id, 4 * USD, **BY)
    del till.account.objects[refund.provider_reference if gone == "refund" else payment.provider_reference]
    asked = len(till.account.of("refund"))
    Refund.objects.update(checked_at=refund.created_at - refunds.POLL_AFTER)
    refunds.resume_refunds()
    refund.refresh_from_db()
    if gone == "refund":
        assert OddRow.objects.get().error == "the provider does not list the refund"
    assert (refund.status, len(till.account.of("refund"))) == (RefundStatus.PENDING, asked)
    assert ledger.balance_nanos(till.owner.id) == 6 * USD


@pytest.mark.django_db(transaction=True)
def test_d15_twenty_full_refunds_at_once_are_one(till: Till) -> None:
    payment = till.paid(10)
    results = books.at_once([partial(refund_payment, payment.id, 10 * USD, **BY)] * 20)
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 19 + ["Refund"]
    assert [each["amount"] for each in till.account.of("refund")] == [1000]
    assert ledger.balance_nanos(till.owner.id) == 0
    assert books.failed_proofs() == []


@pytest.mark.django_db(transaction=True)
def test_partial_refunds_beside_usage_never_return_what_was_used(till: Till) -> None:
    payment = till.paid(10)
    jobs = [partial(refund_payment, payment.id, 2 * USD, **BY) for _ in range(8)]
    results = books.at_once([*jobs, *(partial(use, till, USD) for _ in range(6))])
    sent = sum(each["amount"] for each in till.account.of("refund")) * 10_000_000
    assert sent <= 10 * USD
    assert sent == sum(Refund.objects.values_list("amount_nanos", flat=True))
    assert ledger.balance_nanos(till.owner.id) == 10 * USD - 6 * USD - sent
    assert {type(result).__name__ for result in results} <= {"NoneType", "Conflict", "Refund"}
    assert books.failed_proofs() == []


def test_the_database_keeps_payments_as_they_were(till: Till) -> None:
    payment = till.paid(10)
    for change in ({"amount_nanos": 20 * USD}, {"status": "pending"}, {"provider_reference": "pi_other"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Payment.objects.filter(pk=payment.pk).update(**change)
    with pytest.raises(IntegrityError), transaction.atomic():
        Payment.objects.filter(pk=payment.pk).delete()
