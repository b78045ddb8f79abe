"""Top-ups on the provider's page: one credit for one payment, to whom and as much as our own row says."""

from datetime import timedelta

import pytest
from pytest_django import Settings

from apps.billing.ledger import balance_nanos
from apps.billing.models import (
    Grant,
    Payment,
    PaymentCustomer,
    PaymentMethod,
    PaymentStatus,
    WebhookInbox,
)
from apps.billing.payments.contracts import ProviderAway, ProviderDisabled
from apps.billing.payments.stripe import API_VERSION
from apps.billing.payments.top_ups import Transfer, follow_checkouts, record_bank_transfer
from apps.core.errors import Conflict, InvalidInput
from tests.billing import books
from tests.payments.conftest import USD, Till

pytestmark = pytest.mark.django_db


def test_a_paid_page_becomes_credit_once(till: Till) -> None:
    payment = till.start(10)
    assert payment.checkout_url.startswith(f"{till.account.url}/pay/cs_test_")
    assert balance_nanos(till.owner.id) == 0
    for event in till.account.pay(payment.checkout_reference) * 3:
        assert till.deliver(event).status_code == 200
    payment.refresh_from_db()
    assert (payment.status, payment.paid_at is None) == (PaymentStatus.PAID, False)
    assert balance_nanos(till.owner.id) == 10 * USD
    grant = Grant.objects.get()
    assert (payment.grant, grant.source, grant.transaction.kind) == (grant, "purchased", "grant")
    assert books.account_total("cash") == -10 * USD
    assert books.failed_proofs() == []


def test_stripe_is_asked_as_it_documents(till: Till) -> None:
    payment = till.start(10, save_card=True)
    method, path, params, headers = till.account.requests[-1]
    assert (method, path, headers["stripe-version"]) == ("POST", "/v1/checkout/sessions", API_VERSION)
    assert headers["idempotency-key"] == f"checkout:{payment.id}"
    assert params["metadata"] == {"crun_payment": payment.id, "crun_organization": till.owner.id}
    assert params["payment_intent_data"]["metadata"] == params["metadata"]
    assert params["payment_intent_data"]["setup_future_usage"] == "off_session"
    assert params["tax_id_collection"] == {"enabled": "true"}
    assert params["line_items"]["0"]["price_data"]["unit_amount"] == "1000"
    assert params["adaptive_pricing"] == {"enabled": "false"}


def test_the_payers_tax_id_and_card_are_kept(till: Till) -> None:
    payment = till.start(10, save_card=True)
    for event in till.account.pay(payment.checkout_reference, tax_id="DE123456789"):
        till.deliver(event)
    customer = PaymentCustomer.objects.get()
    assert (customer.tax_id_type, customer.tax_id, customer.country) == ("eu_vat", "DE123456789", "DE")
    assert customer.billing_name == "Acme Ltd"
    card = PaymentMethod.objects.get()
    assert (str(card), card.exp_year, card.organization) == ("Visa ending in 4242", 2099, till.owner)
    payment.refresh_from_db()
    assert payment.card == card


def test_a_card_is_kept_only_when_asked_for(till: Till) -> None:
    till.paid()
    assert not PaymentMethod.objects.exists()


def test_an_organization_is_one_customer_at_stripe(till: Till) -> None:
    till.start()
    till.start()
    assert len(till.account.of("customer")) == PaymentCustomer.objects.count() == 1


@pytest.mark.parametrize("nanos", [0, -5 * USD, 5 * USD - 1, 4 * USD, 5001 * USD, 5 * USD + 1])
def test_amounts_outside_the_limits_are_refused(till: Till, nanos: int) -> None:
    with pytest.raises(InvalidInput):
        till.start_nanos(nanos)
    assert not Payment.objects.exists()


def test_without_an_answer_the_payment_is_marked_as_failed(till: Till) -> None:
    till.start()
    for _ in range(2):  # the library tries twice
        till.account.fail_next("/v1/checkout", "before")
    with pytest.raises(ProviderAway):
        till.start()
    assert sorted(Payment.objects.values_list("status", flat=True)) == ["failed", "pending"]


def test_a_lost_answer_is_asked_for_again_with_the_same_key(till: Till) -> None:
    till.start()
    till.account.fail_next("/v1/checkout", "after")
    till.start()
    assert len(till.account.of("checkout.session")) == 2
    keys = [headers["idempotency-key"] for _, path, _, headers in till.account.requests if "checkout" in path]
    assert len(keys) == 3 and keys[1] == keys[2]


def test_without_a_key_nothing_can_be_started(till: Till, settings: Settings) -> None:
    settings.STRIPE_SECRET_KEY = ""
    with pytest.raises(ProviderDisabled):
        till.start()
    assert not Payment.objects.exists()


def test_a_page_that_nobody_paid_expires_and_money_that_comes_late_still_counts(till: Till) -> None:
    payment = till.start()
    assert till.deliver(till.account.expire(payment.checkout_reference)).status_code == 200
    payment.refresh_from_db()
    assert payment.status == PaymentStatus.EXPIRED
    for event in till.account.pay(payment.checkout_reference):
        till.deliver(event)
    payment.refresh_from_db()
    assert payment.status == PaymentStatus.PAID


def test_a_failed_try_on_the_page_is_not_the_end_of_it(till: Till) -> None:
    payment = till.start()
    intent = till.account._intent(1000, "usd", PaymentCustomer.objects.get().reference)
    intent["metadata"] = till.account.objects[payment.checkout_reference]["metadata"]
    intent["last_payment_error"] = {"message": "Your card was declined.", "code": "card_declined"}
    till.deliver(till.account.emit("payment_intent.payment_failed", intent))
    payment.refresh_from_db()
    assert (payment.status, payment.failure) == (PaymentStatus.PENDING, "Your card was declined.")


def test_an_event_that_got_lost_is_made_up_for(till: Till) -> None:
    payment = till.start()
    till.account.pay(payment.checkout_reference)
    assert follow_checkouts() == 0
    age(payment)
    assert follow_checkouts() == 1
    assert balance_nanos(till.owner.id) == 10 * USD
    assert not WebhookInbox.objects.exists()
    assert follow_checkouts() == 0


def test_an_open_page_is_not_asked_about_all_the_time(till: Till) -> None:
    payment = till.start()
    age(payment)
    assert [follow_checkouts(), follow_checkouts()] == [1, 0]
    payment.refresh_from_db()
    assert payment.status == PaymentStatus.PENDING


def test_a_bank_transfer_is_recorded_once(till: Till) -> None:
    payment = record_bank_transfer(till.owner.id, Transfer(12_340_000_000, "SEPA 17"), actor="operator")
    assert (payment.status, balance_nanos(till.owner.id)) == (PaymentStatus.PAID, 12_340_000_000)
    with pytest.raises(Conflict):
        record_bank_transfer(till.owner.id, Transfer(12_340_000_000, " SEPA  17 "), actor="operator")
    with pytest.raises(InvalidInput):
        record_bank_transfer(till.owner.id, Transfer(12_345_000_001, "SEPA 18"), actor="operator")
    assert balance_nanos(till.owner.id) == 12_340_000_000
    assert books.failed_proofs() == []


def age(payment: Payment, minutes: int = 5) -> None:
    """As if the payment had begun some minutes ago."""
    Payment.objects.filter(pk=payment.pk).update(created_at=payment.created_at - timedelta(minutes=minutes))
