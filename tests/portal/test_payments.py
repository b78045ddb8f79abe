"""Adding credit in the portal: the pages say what is known, and only who may touch money can."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from apps.billing.ledger import balance_nanos
from apps.billing.models import AutoTopUp, Payment, PaymentMethod
from tests.payments.stripe_server import KEY, SECRET, StandInStripe, running_stripe, signature
from tests.portal.conftest import Cast

PAGE = "/o/acme/billing/"
CREDIT = f"{PAGE}credit/"
AUTO = f"{PAGE}auto-top-up/"
USD = 10**9


@pytest.fixture
def stripe_account(settings: Settings) -> Iterator[StandInStripe]:
    with running_stripe() as account:
        settings.STRIPE_SECRET_KEY = KEY
        settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
        settings.STRIPE_API_URL = account.url
        settings.PUBLIC_URL = "https://crun.example.com"
        yield account


def newest() -> Payment:
    return Payment.objects.order_by("-id")[0]


def test_without_stripe_it_says_so(cast: Cast, owner: Client) -> None:
    content = owner.get(PAGE).content.decode()
    assert "Payments by card are switched off here" in content
    assert CREDIT not in content
    answer = owner.post(CREDIT, {"top_up-amount": "20"})
    assert answer.status_code == 422
    assert Payment.objects.count() == 1


def test_credit_is_bought_on_the_providers_page(cast: Cast, owner: Client, stripe_account: StandInStripe) -> None:
    answer = owner.post(CREDIT, {"top_up-amount": "20.50", "top_up-save_card": "on"})
    payment = newest()
    assert answer["Location"] == f"/o/acme/billing/payments/{payment.id}/?go=1"
    assert (payment.amount_nanos, payment.actor, payment.saves_card) == (20_500_000_000, "owner@example.com", True)
    page = owner.get(answer["Location"]).content.decode()
    assert f'content="0; url={payment.checkout_url}"' in page
    session = stripe_account.objects[payment.checkout_reference]
    assert session["success_url"] == f"https://crun.example.com/o/acme/billing/payments/{payment.id}/?back=paid"
    assert session["cancel_url"].endswith("?back=left")


def test_being_back_is_no_payment(cast: Cast, owner: Client, stripe_account: StandInStripe) -> None:
    owner.post(CREDIT, {"top_up-amount": "20"})
    address = f"{PAGE}payments/{newest().id}/"
    page = owner.get(f"{address}?back=paid").content.decode()
    assert "Your payment is being confirmed" in page and 'hx-trigger="every 2s"' in page
    assert "You left the payment page" in owner.get(f"{address}?back=left").content.decode()
    assert balance_nanos(cast.organization.id) == 0
    for event in stripe_account.pay(newest().checkout_reference):
        owner.post("/webhooks/stripe", **signed(event))
    page = owner.get(f"{address}?back=paid").content.decode()
    assert "Payment received" in page and "hx-trigger" not in page
    assert balance_nanos(cast.organization.id) == 20 * USD
    content = owner.get(PAGE).content.decode()
    assert "Paid" in content and "$20.00" in content


def signed(event: dict[str, object]) -> dict[str, object]:
    text = json.dumps(event)
    return {"data": text, "content_type": "application/json", "headers": {"Stripe-Signature": signature(text, SECRET)}}


@pytest.mark.parametrize("amount", ["", "4.99", "5000.01", "ten", "-5", "10.001", "NaN", "1e9"])
def test_amounts_that_make_no_sense_are_refused_at_their_field(
    cast: Cast, owner: Client, stripe_account: StandInStripe, amount: str
) -> None:
    answer = owner.post(CREDIT, {"top_up-amount": amount})
    assert answer.status_code == 422
    assert list(answer.context["top_up_form"].errors) == ["amount"]
    assert (Payment.objects.count(), stripe_account.requests) == (1, [])


def test_when_stripe_is_away_it_says_that_nothing_was_charged(
    cast: Cast, owner: Client, stripe_account: StandInStripe
) -> None:
    for _ in range(2):
        stripe_account.fail_next("/v1/customers", "before")
    answer = owner.post(CREDIT, {"top_up-amount": "20"})
    assert answer.status_code == 422
    assert "Nothing was charged" in answer.content.decode()


def test_somebody_elses_payment_and_card_are_not_there(
    cast: Cast, client_of: Callable[[str], Client], stripe_account: StandInStripe
) -> None:
    client = client_of("stranger")
    own = f"/o/{cast.stranger_organization.slug}/billing/"
    assert client.get(f"{own}payments/{cast.payment.id}/").status_code == 404
    assert client.post(f"{own}cards/{cast.card.id}/remove/").status_code == 404
    form = {"auto-threshold": "5", "auto-amount": "20", "auto-ceiling": "100", "auto-card": cast.card.id}
    assert client.post(f"{own}auto-top-up/", form).status_code == 422
    assert not AutoTopUp.objects.exists()
    assert cast.payment.id not in client.get(own).content.decode()


def test_automatic_top_up_is_switched_on_changed_and_off(
    cast: Cast, owner: Client, stripe_account: StandInStripe
) -> None:
    form = {"auto-threshold": "5", "auto-amount": "20", "auto-ceiling": "100.50", "auto-card": cast.card.id}
    assert owner.post(AUTO, form).status_code == 302
    terms = AutoTopUp.objects.get()
    assert (terms.enabled, terms.threshold_nanos, terms.amount_nanos) == (True, 5 * USD, 20 * USD)
    assert (terms.monthly_ceiling_nanos, terms.card, terms.actor) == (100_500_000_000, cast.card, "owner@example.com")
    content = owner.get(PAGE).content.decode()
    assert "of at most" in content and "$100.50" in content and 'value="100.50"' in content
    assert owner.post(AUTO, {"action": "off"}).status_code == 302
    assert AutoTopUp.objects.get().enabled is False


def test_a_paused_top_up_says_why(cast: Cast, owner: Client, stripe_account: StandInStripe) -> None:
    form = {"auto-threshold": "5", "auto-amount": "20", "auto-ceiling": "100", "auto-card": cast.card.id}
    owner.post(AUTO, form)
    AutoTopUp.objects.update(paused_at=timezone.now() - timedelta(hours=1), paused_reason="The <card> was declined.")
    content = owner.get(PAGE).content.decode()
    assert "Paused" in content and "The &lt;card&gt; was declined." in content
    owner.post(AUTO, form)
    assert AutoTopUp.objects.get().paused_at is None


def test_a_ceiling_below_one_top_up_is_refused(cast: Cast, owner: Client, stripe_account: StandInStripe) -> None:
    form = {"auto-threshold": "5", "auto-amount": "20", "auto-ceiling": "19.99", "auto-card": cast.card.id}
    answer = owner.post(AUTO, form)
    assert (answer.status_code, list(answer.context["auto_form"].errors)) == (422, ["ceiling"])


def test_a_card_is_removed_after_a_question(cast: Cast, owner: Client, stripe_account: StandInStripe) -> None:
    stripe_account.objects["pm_1"] = {"id": "pm_1", "object": "payment_method", "customer": "cus_1"}
    address = f"{PAGE}cards/{cast.card.id}/remove/"
    assert "Remove Visa ending in 4242?" in owner.get(address).content.decode()
    assert PaymentMethod.objects.get().removed_at is None
    owner.post(address)
    assert PaymentMethod.objects.get().removed_at is not None
    assert owner.get(address).status_code == 404
    assert "4242" not in owner.get(PAGE).content.decode().replace("Visa ending in 4242 is removed", "")
