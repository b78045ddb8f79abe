"""The cast of the console's tests: an operator, a customer and their rows; strangers need no fixture."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import Plan, User
from apps.accounts.organizations import create_organization, default_project
from apps.billing.grants import Credit, grant_credit
from apps.billing.models import GrantSource
from apps.catalog.models import Model, Provider, Route
from apps.core.money import NANOS_PER_USD
from apps.keys.issuing import create_key
from tests.announcements import listening
from tests.console.cast import Rows, add_price, add_record
from tests.console.upstream import ListingServer, running_listing


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_user("operator@example.com", is_staff=True)


@pytest.fixture
def customer(db: None) -> User:
    return User.objects.create_user("ada@acme.example", first_name="Ada")


@pytest.fixture
def console(operator: User) -> Client:
    """A browser in which the operator is logged in."""
    client = Client()
    client.force_login(operator)
    return client


@pytest.fixture
def rows(customer: User) -> Rows:
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
    credit = Credit(5 * NANOS_PER_USD, GrantSource.MANUAL)
    grant = grant_credit(organization.id, credit, idempotency_key="cast", reason="Bank transfer 17")
    return Rows(plan, organization, project, customer, key, provider, model, price, record, grant, grant.transaction)


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
