"""`crun payments`: what it prints, what it refuses; `crun doctor` on payments."""

import pytest
from click.testing import CliRunner, Result
from pytest_django import Settings

from apps.accounts.models import Organization
from apps.accounts.organizations import create_organization
from apps.billing.ledger import balance_nanos
from apps.billing.models import Payment, WebhookInbox
from apps.billing.payments.top_ups import Transfer, record_bank_transfer
from apps.core.errors import Conflict, NotFound
from crun.cli import doctor
from crun.cli.payments import payments

pytestmark = pytest.mark.django_db
USD = 10**9


@pytest.fixture
def acme() -> Organization:
    return create_organization("Acme", slug="acme")


@pytest.fixture
def payment(acme: Organization) -> Payment:
    return record_bank_transfer(acme.id, Transfer(10 * USD, "SEPA 1"), actor="test")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(payments, arguments)


def test_payments_are_listed(payment: Payment) -> None:
    fields = run("list", "--organization", "acme").stdout.rstrip("\n").split("\t")
    assert fields[0] == payment.id
    assert fields[2:] == ["bank_transfer", "paid", "10.000000000", "0.000000000", "SEPA 1"]


def test_unused_credit_is_refunded(payment: Payment, acme: Organization) -> None:
    answer = run("refund", payment.id, "--amount-usd", "2.5", "--reason", "Too much")
    assert answer.stdout.startswith("rfd_") and answer.stdout.endswith("\tsucceeded\n")
    assert balance_nanos(acme.id) == 7_500_000_000
    assert isinstance(run("refund", payment.id, "--amount-usd", "8", "--reason", "x").exception, Conflict)


def test_the_same_refund_on_one_day_is_one_unless_it_has_a_key_of_its_own(payment: Payment, acme: Organization) -> None:
    """A command whose answer got lost can be repeated."""
    command = ["refund", payment.id, "--amount-usd", "2", "--reason", "Too much"]
    first, second = run(*command), run(*command)
    assert first.stdout == second.stdout
    assert (first.stderr, second.stderr) == ("", "this refund was asked for before: nothing more is sent\n")
    assert balance_nanos(acme.id) == 8 * USD
    keyed = [run(*command, "--idempotency-key", "ticket 7") for _ in range(2)]
    assert keyed[0].stdout == keyed[1].stdout != first.stdout
    assert balance_nanos(acme.id) == 6 * USD
    other = run("refund", payment.id, "--amount-usd", "1", "--reason", "x", "--idempotency-key", "ticket 7")
    assert isinstance(other.exception, Conflict)


def test_an_unknown_event_cannot_be_replayed() -> None:
    assert isinstance(run("replay", "evt_0").exception, NotFound)


def test_the_doctor_says_how_customers_pay(settings: Settings) -> None:
    assert [str(finding.verdict) for finding in doctor.payments()] == ["OK"]
    settings.STRIPE_SECRET_KEY = "rk_live_123"
    WebhookInbox.objects.create(provider="stripe", event_id="evt_1", type="x", payload="{}", status="refused")
    mode, left = doctor.payments()
    assert "live mode" in mode.text and "rk_live" not in mode.text
    assert left.text == "1 events were refused or given up"
