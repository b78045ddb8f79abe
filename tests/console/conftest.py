"""The cast of the console's tests: an operator, a customer and their rows; strangers need no fixture."""

from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from apps.accounts.models import Plan, User
from apps.accounts.organizations import create_organization, default_project
from apps.billing.alerts.raising import raise_alert
from apps.billing.grants import Credit, grant_credit
from apps.billing.invoices.amounts import Item
from apps.billing.invoices.credit_notes import CreditNoteDraft, issue_credit_note
from apps.billing.invoices.issuing import Draft, issue
from apps.billing.models import (
    AlertKind,
    GrantSource,
    InvoiceKind,
    PriceRule,
    ProviderKeyFee,
    ReconciliationRun,
    Rerating,
    SellerProfile,
    TaxRate,
    VendorReport,
    WebhookInbox,
)
from apps.billing.payments.top_ups import Transfer, record_bank_transfer
from apps.catalog.models import Model, Provider, Route
from apps.core.ids import new_id
from apps.core.money import NANOS_PER_USD
from apps.keys.issuing import create_key
from apps.policies.credentials import Terms, add_credential
from apps.policies.models import GuardrailRule
from apps.usage.models import ShadowRecord
from tests.announcements import listening
from tests.console.cast import Rows, add_price, add_record, add_review
from tests.console.upstream import ListingServer, running_listing


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_user("operator@example.com", is_staff=True)


@pytest.fixture
def customer(db: None) -> User:
    return made_customer()


def made_customer() -> User:
    return User.objects.create_user("ada@acme.example", first_name="Ada")


@pytest.fixture
def console(operator: User) -> Client:
    """A browser in which the operator is logged in."""
    client = Client()
    client.force_login(operator)
    return client


@pytest.fixture(scope="module")
def lasting_rows(module_db: DjangoDbBlocker) -> Rows:
    """Made once: it takes longer than a page does. A module with a test that commits has `rows` of its own."""
    with module_db.unblock():
        return made_rows(made_customer())


@pytest.fixture
def rows(lasting_rows: Rows, db: None) -> Rows:
    return deepcopy(lasting_rows)


def made_rows(customer: User) -> Rows:
    organization = create_organization("Acme", owner=customer)
    project = default_project(organization)
    key = create_key(project, name="Production", created_by=customer).key
    provider = Provider.objects.create(id="local", name="Local", base_url="http://127.0.0.1:9/v1")
    model = Model.objects.create(
        id="acme/small-1", name="Small", vendor="Acme", context_length=8000, max_output_tokens=1000
    )
    Route.objects.create(model=model, provider=provider, upstream_model="small-upstream")
    price = add_price(model, starts_at=timezone.now() - timedelta(days=10))
    plan = Plan.objects.create(id="starter", name="Starter", requests_per_minute=60)
    record = add_record(key, model, price)
    review = add_review(record)
    payment = record_bank_transfer(
        create_organization("Payer").id, Transfer(10 * NANOS_PER_USD, "SEPA 1"), actor="cast"
    )
    event = WebhookInbox.objects.create(provider="stripe", event_id="evt_1", type="charge.refunded", payload="{}")
    credit = Credit(5 * NANOS_PER_USD, GrantSource.MANUAL)
    grant = grant_credit(organization.id, credit, idempotency_key="cast", reason="Bank transfer 17")
    run = ReconciliationRun.objects.create(cause="nightly", actor="system")
    vendor_report = VendorReport.objects.create(
        digest="0" * 64, provider=provider, name="costs.json", first_day=run.asked_at.date(),
        last_day=run.asked_at.date(), new_rows=1, changed_rows=0, known_rows=0, imported_by="test",
    )  # fmt: skip
    seller = SellerProfile.objects.create(name="Crunch GmbH", address="Hauptstr. 1", country="DE")
    tax_rate = TaxRate.objects.create(country="DE", name="VAT", percent=19, valid_from="2020-01-01", created_by="test")
    draft = Draft(organization.id, InvoiceKind.MANUAL, "cast", [Item("Setup", 5 * NANOS_PER_USD)])
    invoice = issue(draft)
    credit_note = issue_credit_note(CreditNoteDraft(invoice.id, 100, "cast", "Outage"))
    alert = raise_alert(organization.id, AlertKind.CREDIT_LOW, key="cast", subject="Credit is low at Acme")
    price_rule = PriceRule.objects.create(organization=organization, model=model, percent=-10)
    guardrail = GuardrailRule.objects.create(
        organization=organization, name="No birds", kind="keywords", check_settings={"words": ["canary"]}
    )
    rerating = Rerating.objects.create(
        model=model.pk, starts_at=run.asked_at - timedelta(hours=1), ends_at=run.asked_at, reason="cast",
        status="applied", created_by="test",
    )  # fmt: skip
    terms = Terms(label="Brought along")
    provider_key = add_credential(organization.id, provider, "sk-own-canary-0123456789", terms, actor="cast")
    shadow = ShadowRecord.objects.create(
        id=new_id("shadow"), created_at=run.asked_at, organization=organization, request_id=record.pk, model=model.pk,
        provider=provider.pk, upstream_model="new", status="failed", error_code="upstream_failed", input_tokens=1_200,
        cache_read_tokens=0, output_tokens=3, duration_ms=5,
    )  # fmt: skip
    return Rows(
        plan, organization, project, customer, key, provider, model, price, record, grant, grant.transaction, payment,
        event, review, run, vendor_report, alert, invoice, credit_note, tax_rate, seller,
        price_rule, rerating, provider_key, ProviderKeyFee.objects.create(percent=4), guardrail, shadow,
    )  # fmt: skip


@pytest.fixture
def announcements() -> Iterator[Any]:
    """What gateways are told: call it to get the messages since the last call."""
    with listening() as heard:
        yield heard


@pytest.fixture
def listing() -> Iterator[ListingServer]:
    """A provider that lists its models, or fails to in the ways that the address names."""
    with running_listing() as server:
        yield server
