"""Payments in the console: transfers are recorded once, refunds go back once, refused events can be tried again."""

import json
from collections.abc import Iterator
from functools import partial

import pytest
from django.contrib.admin.utils import quote
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from apps.accounts.models import User
from apps.billing.grants import charge
from apps.billing.ledger import balance_nanos
from apps.billing.models import LedgerAccount, Payment, Refund, WebhookInbox
from apps.billing.payments.contracts import Pages
from apps.billing.payments.top_ups import TopUp, Transfer, record_bank_transfer, start_top_up
from apps.core.errors import Conflict
from tests.billing import books
from tests.billing.test_killed_posting import others, wait_for
from tests.console.cast import Rows
from tests.console.conftest import made_rows
from tests.payments.stripe_server import KEY, SECRET, StandInStripe, running_stripe, signature

PAYMENTS = "/console/billing/payment/"
USD = 10**9
REFUND_ID = "rfd_" + "0" * 32


@pytest.fixture
def rows(customer: User) -> Rows:
    """Made anew: one of these tests commits."""
    return made_rows(customer)


@pytest.fixture
def stripe_account(settings: Settings) -> Iterator[StandInStripe]:
    with running_stripe() as account:
        settings.STRIPE_SECRET_KEY = KEY
        settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
        settings.STRIPE_API_URL = account.url
        yield account


def paid_by_card(rows: Rows, account: StandInStripe) -> Payment:
    """A top-up of 10 USD that is paid, and whose events arrived."""
    payment = start_top_up(
        rows.organization, TopUp(10 * USD, save_card=False, actor="ada"), pages=lambda _: Pages("http://x", "http://x")
    )
    for event in account.pay(payment.checkout_reference):
        deliver(event)
    return payment


def refund_page(payment: Payment) -> str:
    return reverse("console:billing_payment_refund", args=[quote(payment.pk)])


def transfer_fields(rows: Rows, **changes: str) -> dict[str, str]:
    usual = {"organization": rows.organization.pk, "amount_usd": "12.34", "reference": "SEPA 17", "note": "Invoice 4"}
    return {**usual, **changes}


def test_a_refund_that_stripe_answers_with_something_else_is_an_error_in_the_form(
    console: Client, rows: Rows, stripe_account: StandInStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = paid_by_card(rows, stripe_account)
    make = stripe_account.make_refund
    monkeypatch.setattr(stripe_account, "make_refund", lambda params: {**make(params), "currency": "eur"})
    form = {"amount_usd": "2.00", "reason": "x", "refund_id": REFUND_ID}
    answer = console.post(refund_page(payment), form)
    assert answer.status_code == 200
    assert "The currency of the refund is not that of its payment." in answer.content.decode()


@pytest.mark.parametrize("amount", ["1E+999999", "99999999999999999999", "NaN"])
def test_a_refund_of_an_absurd_amount_is_an_error_in_the_form(console: Client, rows: Rows, amount: str) -> None:
    transfer = record_bank_transfer(rows.organization.id, Transfer(10 * USD, "SEPA 9"), actor="test")
    form = {"amount_usd": amount, "reason": "x", "refund_id": REFUND_ID}
    assert console.post(refund_page(transfer), form).status_code == 200
    assert not Refund.objects.exists()


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
    payment = paid_by_card(rows, stripe_account)
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


@pytest.mark.django_db(transaction=True)
def test_a_form_that_is_sent_twice_at_the_same_moment_is_told_so(console: Client, rows: Rows) -> None:
    """The first is held at the wallet, its payment written; the second, sent meanwhile, waits for it."""
    before = balance_nanos(rows.organization.pk)
    twin = Client()
    twin.cookies = console.cookies

    def send(client: Client) -> HttpResponse:
        return client.post(f"{PAYMENTS}add/", transfer_fields(rows))

    def let_go() -> None:
        with transaction.atomic():
            list(LedgerAccount.objects.for_organization(rows.organization.pk).select_for_update())
            wait_for(lambda: others(waiting=True) == 2)

    answers = books.at_once([partial(send, console), partial(send, twin), let_go])[:2]
    assert sorted(answer.status_code for answer in answers) == [200, 302]
    [told] = [answer.content.decode() for answer in answers if answer.status_code == 200]
    assert "This transfer was recorded before." in told
    assert balance_nanos(rows.organization.pk) == before + 12_340_000_000


@pytest.mark.parametrize("reference", ["sepa 17", " SEPA   17 ", "Sepa 17"])
def test_a_reference_in_other_letters_is_the_same_transfer(console: Client, rows: Rows, reference: str) -> None:
    record_bank_transfer(rows.organization.pk, Transfer(10 * USD, "SEPA 17"), actor="ada")
    with pytest.raises(Conflict):
        record_bank_transfer(rows.organization.pk, Transfer(10 * USD, reference), actor="ada")
    answer = console.post(f"{PAYMENTS}add/", transfer_fields(rows, reference=reference))
    assert "This transfer was recorded before." in answer.content.decode()
    assert Payment.objects.filter(provider="bank_transfer", provider_reference__iexact="sepa 17").count() == 1


@pytest.mark.parametrize("amount", ["٣", "1_000", "1e3"])
def test_amounts_are_plain_digits(console: Client, rows: Rows, amount: str) -> None:
    answer = console.post(f"{PAYMENTS}add/", transfer_fields(rows, amount_usd=amount))
    assert "is not an amount in USD" in answer.content.decode()
