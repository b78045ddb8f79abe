"""Payments in the console: transfers are recorded once, refunds go back once, refused events can be tried again."""

import json
from collections.abc import Iterator

import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from apps.billing.grants import charge
from apps.billing.ledger import balance_nanos
from apps.billing.models import Payment, Refund, WebhookInbox
from apps.billing.payments.contracts import Pages
from apps.billing.payments.top_ups import TopUp, start_top_up
from tests.console.cast import Rows
from tests.payments.stripe_server import KEY, SECRET, StandInStripe, running_stripe, signature

PAYMENTS = "/console/billing/payment/"
USD = 10**9
REFUND_ID = "rfd_" + "0" * 32


@pytest.fixture
def stripe_account(settings: Settings) -> Iterator[StandInStripe]:
    with running_stripe() as account:
        settings.STRIPE_SECRET_KEY = KEY
        settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
        settings.STRIPE_API_URL = account.url
        yield account


def refund_page(payment: Payment) -> str:
    return reverse("console:billing_payment_refund", args=[quote(payment.pk)])


def transfer_fields(rows: Rows, **changes: str) -> dict[str, str]:
    usual = {"organization": rows.organization.pk, "amount_usd": "12.34", "reference": "SEPA 17", "note": "Invoice 4"}
    return {**usual, **changes}


def test_a_bank_transfer_is_recorded_once(console: Client, rows: Rows) -> None:
    before = balance_nanos(rows.organization.id)
    answer = console.post(f"{PAYMENTS}add/", transfer_fields(rows), follow=True)
    assert "Acme has $12.340000000 more." in answer.content.decode()
    answer = console.post(f"{PAYMENTS}add/", transfer_fields(rows, reference="SEPA  17"))
    assert "This transfer was recorded before." in answer.content.decode()
    assert balance_nanos(rows.organization.id) == before + 12_340_000_000
    payment = Payment.objects.get(provider_reference="SEPA 17")
    assert (payment.actor, payment.note, payment.kind) == ("operator@example.com", "Invoice 4", "bank_transfer")


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"amount_usd": "0"}, "amount_usd"), ({"amount_usd": "1.001"}, "amount_usd"), ({"reference": " "}, "reference")],
)
def test_transfers_that_make_no_sense_are_refused(
    console: Client, rows: Rows, changes: dict[str, str], field: str
) -> None:
    answer = console.post(f"{PAYMENTS}add/", transfer_fields(rows, **changes))
    assert list(answer.context["adminform"].form.errors) == [field]


def test_a_refund_takes_unused_credit_once(console: Client, rows: Rows) -> None:
    payer = rows.payment.organization
    charge(payer.id, 4 * USD, idempotency_key="used", reason="Used")
    page = console.get(refund_page(rows.payment)).content.decode()
    assert "$6.000000000 can be refunded" in page and 'value="6.00"' in page
    form = {"amount_usd": "2.50", "reason": "Too much", "refund_id": REFUND_ID}
    for _ in range(2):
        answer = console.post(refund_page(rows.payment), form, follow=True)
        assert "$2.500000000 went back." in answer.content.decode()
    assert (Refund.objects.count(), balance_nanos(payer.id)) == (1, 3_500_000_000)
    assert Refund.objects.get().actor == "operator@example.com"


@pytest.mark.parametrize("amount", ["6.01", "10", "0", "-1", "1.005"])
def test_more_than_is_unused_is_refused(console: Client, rows: Rows, amount: str) -> None:
    charge(rows.payment.organization_id, 4 * USD, idempotency_key="used", reason="Used")
    form = {"amount_usd": amount, "reason": "Too much", "refund_id": REFUND_ID}
    assert console.post(refund_page(rows.payment), form).context["form"].errors
    assert not Refund.objects.exists()


def test_a_refund_that_waits_for_stripe_says_so(console: Client, rows: Rows, stripe_account: StandInStripe) -> None:
    payment = start_top_up(
        rows.organization, TopUp(10 * USD, save_card=False, actor="ada"), pages=lambda _: Pages("http://x", "http://x")
    )
    for event in stripe_account.pay(payment.checkout_reference):
        deliver(event)
    for _ in range(2):
        stripe_account.fail_next("/v1/refunds", "before")
    form = {"amount_usd": "10", "reason": "Too much", "refund_id": REFUND_ID}
    answer = console.post(refund_page(payment), form, follow=True)
    assert "asked again until it answers" in answer.content.decode()
    assert balance_nanos(rows.organization.id) == 5 * USD


def deliver(event: dict[str, object]) -> int:
    text = json.dumps(event)
    sent = {"Stripe-Signature": signature(text, SECRET)}
    return Client().post("/webhooks/stripe", text, content_type="application/json", headers=sent).status_code


def test_an_event_that_was_refused_can_be_tried_again(
    console: Client, rows: Rows, stripe_account: StandInStripe
) -> None:
    payment = start_top_up(
        rows.organization, TopUp(10 * USD, save_card=False, actor="ada"), pages=lambda _: Pages("http://x", "http://x")
    )
    intent, _ = stripe_account.pay(payment.checkout_reference)
    wrong = json.loads(json.dumps(intent))
    wrong["data"]["object"]["currency"] = "eur"
    assert deliver(wrong) == 400
    row = WebhookInbox.objects.get(event_id=intent["id"])
    listed = console.get("/console/billing/webhookinbox/").content.decode()
    assert "its currency is not that of our payment" in listed
    address = reverse("console:billing_webhookinbox_replay", args=[row.pk])
    assert "nothing can be credited twice" in console.get(address).content.decode()
    assert "The event is refused." in console.post(address, follow=True).content.decode()
    WebhookInbox.objects.filter(pk=row.pk).update(payload=json.dumps(intent))
    assert "The event is done." in console.post(address, follow=True).content.decode()
    assert balance_nanos(rows.organization.id) == 15 * USD
    assert console.post(address).status_code == 403
