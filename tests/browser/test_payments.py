"""Buying credit in a real browser: to the provider's page and back, and what the pages say meanwhile."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from apps.accounts.models import Organization, User
from apps.accounts.organizations import create_organization
from apps.billing.models import AutoTopUp, Payment, PaymentCustomer
from tests.payments.stripe_server import KEY, SECRET, StandInStripe, running_stripe

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PASSWORD = "correct horse battery staple"


@pytest.fixture
def stripe_account(settings: Settings, live_server: LiveServer) -> Iterator[StandInStripe]:
    with running_stripe() as account:
        settings.STRIPE_SECRET_KEY = KEY
        settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
        settings.STRIPE_API_URL = account.url
        settings.PUBLIC_URL = live_server.url
        account.webhook_url = f"{live_server.url}/webhooks/stripe"
        yield account


@pytest.fixture
def billing(page: Page, live_server: LiveServer) -> Page:
    """An owner on the billing page."""
    create_organization("Acme", owner=User.objects.create_user("ada@example.com", PASSWORD))
    page.goto(f"{live_server.url}/o/acme/billing/")
    page.get_by_label("Email").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name=re.compile("Log in|Sign in")).click()
    expect(page.get_by_role("heading", name="Billing", level=1)).to_be_visible()
    return page


def test_credit_is_bought_and_topped_up_from_then_on(stripe_account: StandInStripe, billing: Page) -> None:
    expect(billing.get_by_text("No payments yet")).to_be_visible()
    billing.get_by_label("Amount in USD").fill("20.50")
    billing.get_by_label("Save the card").check()
    billing.get_by_role("button", name="Continue to payment").click()
    expect(billing.get_by_role("heading", name="Pay 20.50 usd")).to_be_visible()
    billing.get_by_label("Tax id").fill("DE123456789")
    billing.get_by_role("button", name="Pay").click()
    expect(billing.get_by_role("heading", name="Payment received")).to_be_visible()
    expect(billing.get_by_role("status")).to_contain_text("$20.50 were credited to Acme")
    assert PaymentCustomer.objects.get().tax_id == "DE123456789"

    billing.get_by_role("link", name="Back to billing").click()
    expect(billing.get_by_role("row").filter(has_text="Card payment")).to_contain_text("Paid")
    expect(billing.get_by_role("list", name="Saved cards")).to_contain_text("Visa ending in 4242")
    billing.get_by_role("button", name="Switch on").click()
    expect(billing.get_by_text("Automatic top-up is on.")).to_be_visible()
    assert AutoTopUp.objects.get().monthly_ceiling_nanos == 500 * 10**9
    billing.get_by_role("button", name="Switch off").click()
    expect(billing.get_by_text("Automatic top-up is off.")).to_be_visible()
    billing.get_by_role("link", name="Remove Visa").click()
    billing.get_by_role("button", name="Remove card").click()
    expect(billing.get_by_text("Visa ending in 4242 is removed.")).to_be_visible()


def test_back_before_the_event_the_page_waits_for_it(
    stripe_account: StandInStripe, billing: Page, live_server: LiveServer
) -> None:
    billing.get_by_label("Amount in USD").fill("20")
    billing.get_by_role("button", name="Continue to payment").click()
    expect(billing.get_by_role("heading", name="Pay 20.00 usd")).to_be_visible()
    payment = Payment.objects.get()
    billing.goto(f"{live_server.url}/o/acme/billing/payments/{payment.id}/?back=paid")
    expect(billing.get_by_role("heading", name="Your payment is being confirmed")).to_be_visible()
    for event in stripe_account.pay(payment.checkout_reference):
        assert stripe_account.deliver(event) == 200
    expect(billing.get_by_role("heading", name="Payment received")).to_be_visible()


def test_who_leaves_can_go_on_later(stripe_account: StandInStripe, billing: Page) -> None:
    billing.get_by_label("Amount in USD").fill("20")
    billing.get_by_role("button", name="Continue to payment").click()
    billing.get_by_role("link", name="Back").click()
    expect(billing.get_by_role("heading", name="You left the payment page")).to_be_visible()
    billing.get_by_role("link", name="Continue to payment").click()
    expect(billing.get_by_role("heading", name="Pay 20.00 usd")).to_be_visible()


def test_a_phone_shows_all_of_it(stripe_account: StandInStripe, billing: Page) -> None:
    organization = Organization.objects.get()
    Payment.objects.create(
        organization=organization, kind="top_up", amount_nanos=10**10, provider="stripe", actor="ada", failure="x " * 40
    )
    billing.set_viewport_size({"width": 390, "height": 800})
    billing.reload()
    assert billing.evaluate("document.documentElement.scrollWidth") <= 390
