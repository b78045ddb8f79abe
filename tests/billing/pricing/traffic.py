"""Makers of billed traffic, and of the prices and rules that it is billed and corrected by."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from apps.accounts.models import Organization
from apps.billing.models import PriceRule, ReratedUsage
from apps.billing.posting import post_batch
from apps.billing.pricing.records import Window
from apps.billing.pricing.versions import RuleDraft, add_rule, add_version
from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Price
from apps.catalog.price_entries import PriceEntry
from apps.usage.contracts import RequestClosed, TokenCounts
from apps.usage.recording import record
from tests import factories

MODEL = "bench-model"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


def window(**changes: Any) -> Window:
    """The last hour of the model."""
    usual = {"model_id": MODEL, "start": now() - timedelta(hours=1), "end": now() + timedelta(hours=1)}
    return Window(**{**usual, **changes})


def list_price(starts_at: datetime = LONG_AGO, **amounts: Any) -> Price:
    """A price version of the model."""
    return factories.stored_price(MODEL, starts_at=starts_at, **({"cache_read": None} | amounts))


def corrected(amount: str, *, starts_at: datetime | None = None) -> None:
    """A price version that starts in the past: in force for all traffic of the test."""
    entry = PriceEntry(starts_at=starts_at or now() - timedelta(hours=2), input=Decimal(amount), output=Decimal(1))
    add_version(MODEL, entry, actor="test", allow_past=True)


def rule(owner: Organization, percent: str | None = None, **changes: Any) -> PriceRule:
    """A rule of the organization, in force long ago."""
    usual: dict[str, Any] = {"model_id": MODEL, "starts_at": LONG_AGO}
    draft = RuleDraft(
        organization_id=owner.id, percent=None if percent is None else Decimal(percent), **{**usual, **changes}
    )
    return add_rule(draft, actor="test", allow_past=True)


def billed(
    owner: Organization, price: Price, *, tokens: int = 10, hold: int | None = None, **changes: Any
) -> RequestClosed:
    """A request as the gateway would have ended it: never above its hold."""
    counts = TokenCounts(input=tokens)
    cost = cost_nanos(counts, price)
    bill = cost if hold is None else min(cost, hold)
    opened = factories.opened(organization_id=owner.id, price=price, model=MODEL, hold_nanos=hold, **changes)
    return factories.closed(opened, tokens=counts, cost_nanos=bill, overage_nanos=cost - bill)


def post(*requests: RequestClosed) -> None:
    """Record and post them."""
    record(requests)
    while post_batch():
        pass


def deltas(owner: Organization) -> list[int]:
    """What was corrected of the organization's requests, in the order of writing."""
    rows = ReratedUsage.objects.for_organization(owner.id).order_by("id")
    return list(rows.values_list("delta_nanos", flat=True))
