"""The cast of every portal test: an organization with a member of each role, and a stranger with an own one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import Membership, Organization, Project, User
from apps.accounts.organizations import create_organization, default_project
from apps.accounts.roles import Role
from apps.billing.alerts.endpoints import create_endpoint, send_test
from apps.billing.alerts.raising import raise_alert
from apps.billing.models import Alert, AlertKind, Payment, PaymentMethod, WebhookDelivery, WebhookEndpoint
from apps.catalog.models import PriceVersion, Provider
from apps.core.money import NANOS_PER_USD
from apps.keys.issuing import create_key
from apps.keys.models import ApiKey
from apps.policies.credentials import Terms, add_credential
from apps.policies.models import GuardrailRule, ProviderCredential
from apps.usage.contracts import TokenCounts
from tests.portal.records import closed, offered_model, store

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Cast:
    """Who and what stands on the stage."""

    organization: Organization
    project: Project
    key: ApiKey
    people: dict[str, User]
    stranger_organization: Organization
    stranger_key: ApiKey
    payment: Payment
    card: PaymentMethod
    alert: Alert
    endpoint: WebhookEndpoint
    message: WebhookDelivery
    credential: ProviderCredential
    guardrail: GuardrailRule


@pytest.fixture
def cast(db: None) -> Cast:
    return made_cast()


def made_cast() -> Cast:
    people = {name: User.objects.create_user(f"{name}@example.com") for name in [*Role, "stranger"]}
    organization = create_organization("Acme", owner=people["owner"])
    for role in (Role.DEVELOPER, Role.FINANCE, Role.VIEWER):
        Membership.objects.create(organization=organization, user=people[role], role=role)
    elsewhere = create_organization("Elsewhere", owner=people["stranger"])
    project = default_project(organization)
    vendor = Provider.objects.create(id="vendor", name="Vendor", base_url="https://api.vendor.example/v1")
    credential = add_credential(
        organization.id, vendor, "sk-own-canary-0123456789", Terms(label="Ours"), actor="owner@example.com"
    )
    alert = raise_alert(organization.id, AlertKind.CREDIT_LOW, key="cast", subject="Your credit is low")
    endpoint, _ = create_endpoint(organization, "https://hooks.example.com/crun", kinds=[AlertKind.CREDIT_LOW])
    return Cast(
        organization=organization,
        project=project,
        key=create_key(project, name="Backend").key,
        people=people,
        stranger_organization=elsewhere,
        stranger_key=create_key(default_project(elsewhere), name="Secret plans").key,
        alert=alert,
        endpoint=endpoint,
        message=send_test(endpoint),
        credential=credential,
        guardrail=GuardrailRule.objects.create(
            organization=organization, name="Cast", kind="keywords", mode="off", check_settings={"words": ["cast"]}
        ),
        payment=Payment.objects.create(
            organization=organization, kind="top_up", amount_nanos=10 * NANOS_PER_USD, provider="stripe", actor="owner"
        ),
        card=PaymentMethod.objects.create(
            organization=organization,
            provider="stripe",
            customer_reference="cus_1",
            reference="pm_1",
            brand="visa",
            last4="4242",
            exp_month=12,
            exp_year=2099,
        ),
    )


@pytest.fixture
def client_of(cast: Cast) -> Callable[[str], Client]:
    """A client logged in as someone of the cast, or as nobody for "anonymous"."""

    def client(name: str) -> Client:
        client = Client()
        if name != "anonymous":
            client.force_login(cast.people[name], backend="django.contrib.auth.backends.ModelBackend")
        return client

    return client


@pytest.fixture
def owner(client_of: Callable[[str], Client]) -> Client:
    return client_of("owner")


@pytest.fixture
def price(db: None) -> PriceVersion:
    return made_price()


def made_price() -> PriceVersion:
    """A model whose prices make a cost of less than a nano-dollar visible."""
    return offered_model(
        "swift-1",
        starts_at=datetime(2026, 1, 1, tzinfo=UTC),
        input="0.1234567",
        output="0.6",
        cache_read="0.075",
    )


@pytest.fixture
def request_id(cast: Cast, price: PriceVersion) -> str:
    return made_request(cast, price)


def made_request(cast: Cast, price: PriceVersion) -> str:
    """One request of the organization a minute ago: 100 input, 7 cached and 3 output tokens."""
    tokens = TokenCounts(input=100, cache_read=7, output=3)
    return store([closed(cast.key, price, at=timezone.now() - timedelta(minutes=1), tokens=tokens)])[0]
