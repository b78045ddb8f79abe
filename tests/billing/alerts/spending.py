"""Makers of posted spending at any moment, and of what was raised because of it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from apps.accounts.models import Membership, Organization, User
from apps.accounts.organizations import default_project
from apps.accounts.roles import Role
from apps.billing.models import Alert
from apps.billing.posting import post_batch
from apps.catalog.contracts import Price
from apps.core.limits import Limits
from apps.core.money import NANOS_PER_USD
from apps.keys.issuing import create_key
from apps.keys.models import ApiKey
from apps.usage.contracts import TokenCounts
from apps.usage.recording import record
from tests import factories

USD = NANOS_PER_USD
_serial = count(1)


@dataclass(frozen=True)
class Customer:
    """An organization with an owner, a key, and a price of one nano-dollar a token."""

    organization: Organization
    key: ApiKey
    price: Price


def customer(name: str = "Acme", *, limits: Limits | None = None) -> Customer:
    """A new customer whose owner is `owner@<name>.example`."""
    project = factories.project(name)
    organization = project.organization
    owner = User.objects.create_user(f"owner@{organization.slug}.example")
    Membership.objects.create(organization=organization, user=owner, role=Role.OWNER)
    price = factories.stored_price(f"{organization.slug}-model", input="0.001", output="0.001")
    key = create_key(default_project(organization), name="Backend", limits=limits or Limits()).key
    return Customer(organization, key, price)


def spend(who: Customer, nanos: int, *, at: datetime | None = None, key: ApiKey | None = None, **ends: Any) -> None:
    """A request of the customer that began at `at` and cost `nanos`, recorded and posted. It took a millisecond, or
    ended as `ends` says."""
    moment = at or datetime.now(UTC)
    key = key or who.key
    opened = factories.opened(
        request_id=f"req_{int(moment.timestamp() * 1000):012x}{next(_serial):020x}",
        organization_id=who.organization.id,
        project_id=key.project_id,
        key_id=key.id,
        model=f"{who.organization.slug}-model",
        price=who.price,
    )
    values = {"tokens": TokenCounts(input=nanos), "cost_nanos": nanos, "duration_ms": 1, **ends}
    record([factories.closed(opened, **values)])
    while post_batch():
        pass


def told(who: Customer | None = None, kind: str | None = None) -> list[str]:
    """The subjects of what was raised, oldest first."""
    rows = Alert.objects.order_by("id")
    if who is not None:
        rows = rows.filter(organization=who.organization)
    if kind is not None:
        rows = rows.filter(kind=kind)
    return list(rows.values_list("subject", flat=True))
