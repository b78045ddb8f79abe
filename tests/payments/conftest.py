"""An organization, the stand-in Stripe that its payments go to, and a webhook that is reached like Stripe does."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from apps.accounts.models import Organization
from apps.billing.models import Payment
from apps.billing.payments.contracts import Pages
from apps.billing.payments.top_ups import TopUp, start_top_up
from tests.billing import books
from tests.payments.stripe_server import KEY, SECRET, Json, StandInStripe, running_stripe, signature

WEBHOOK = "/webhooks/stripe"
USD = 10**9
CLIENT = Client()
"""Stripe as our web server sees it; one, because each loads the middleware anew."""


@pytest.fixture(scope="session")
def stripe_process() -> Iterator[StandInStripe]:
    with running_stripe() as account:
        yield account


@pytest.fixture
def stripe_account(stripe_process: StandInStripe, settings: Settings) -> StandInStripe:
    """An empty account, and an installation that uses it."""
    url = stripe_process.url
    stripe_process.__init__()  # type: ignore[misc]  # the same server, a new account
    stripe_process.url = url
    settings.STRIPE_SECRET_KEY = KEY
    settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
    settings.STRIPE_API_URL = url
    settings.STRIPE_TIMEOUT_S = 5.0
    return stripe_process


@pytest.fixture
def owner(db: None) -> Organization:
    return books.organization()


@dataclass
class Till:
    """Starts and pays top-ups, and delivers events to the webhook."""

    account: StandInStripe
    owner: Organization

    def start(self, usd: int = 10, *, save_card: bool = False, owner: Organization | None = None) -> Payment:
        return self.start_nanos(usd * USD, save_card=save_card, owner=owner)

    def start_nanos(self, nanos: int, *, save_card: bool = False, owner: Organization | None = None) -> Payment:
        wanted = TopUp(nanos, save_card=save_card, actor="ada@acme.example")
        return start_top_up(owner or self.owner, wanted, pages=lambda payment: Pages("http://x/ok", "http://x/left"))

    def paid(self, usd: int = 10, *, save_card: bool = False) -> Payment:
        """A top-up that was paid, and whose events arrived."""
        payment = self.start(usd, save_card=save_card)
        for event in self.account.pay(payment.checkout_reference):
            assert self.deliver(event).status_code == 200
        payment.refresh_from_db()
        return payment

    def deliver(self, event: Json, **options: Any) -> Any:
        return deliver(json.dumps(event), **options)


def deliver(payload: str | bytes, *, secret: str = SECRET, at: float | None = None, header: str | None = None) -> Any:
    """POST a payload to the webhook with a signature."""
    text = payload.decode("latin-1") if isinstance(payload, bytes) else payload
    sent = signature(text, secret, at=at) if header is None else header
    return CLIENT.post(WEBHOOK, payload, content_type="application/json", headers={"Stripe-Signature": sent})


@pytest.fixture
def till(stripe_account: StandInStripe, owner: Organization) -> Till:
    return Till(stripe_account, owner)


@pytest.fixture
def deliver_all(till: Till) -> Callable[[list[Json]], list[int]]:
    return lambda events: [till.deliver(event).status_code for event in events]
