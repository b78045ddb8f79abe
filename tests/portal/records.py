"""Usage records for tests, written the way the system writes them: recorded, then posted into the rollups."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import count

from apps.billing.posting import post_batch
from apps.billing.rating import cost_nanos
from apps.catalog.models import Model, PriceVersion, Provider, Route
from apps.catalog.snapshot import price_from_version
from apps.keys.models import ApiKey
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, TokenCounts
from apps.usage.recording import record

_serial = count(1)


def request_id_at(moment: datetime) -> str:
    """An id as if a request had been made at `moment`; later calls sort after earlier ones."""
    return f"req_{int(moment.timestamp() * 1000):012x}{next(_serial):020x}"


def offered_model(model_id: str, *, starts_at: datetime, **prices: str) -> PriceVersion:
    """A callable model with one price version; `prices` are USD per million tokens."""
    provider, _ = Provider.objects.get_or_create(
        id="upstream-house", defaults={"name": "Upstream house", "base_url": "http://127.0.0.1:9/v1"}
    )
    model = Model.objects.create(
        id=model_id, name=model_id.title(), vendor="Vendor", context_length=128_000, max_output_tokens=16_384
    )
    Route.objects.create(model=model, provider=provider, upstream_model=f"hidden-{model_id}")
    amounts = {name: Decimal(amount) for name, amount in prices.items()}
    return PriceVersion.objects.create(model=model, starts_at=starts_at, **amounts)


def closed(
    key: ApiKey,
    version: PriceVersion,
    *,
    at: datetime,
    tokens: TokenCounts,
    outcome: Outcome = Outcome.COMPLETED,
) -> RequestClosed:
    """The end of a request of `key`, rated at `version`."""
    price = price_from_version(version)
    opened = RequestOpened(
        request_id=request_id_at(at),
        organization_id=key.organization_id,
        project_id=key.project_id,
        key_id=key.id,
        model=version.model_id,
        provider="upstream-house",
        upstream_model=f"hidden-{version.model_id}",
        streamed=True,
        price=price,
        input_estimate=0,
    )
    completed = outcome is Outcome.COMPLETED
    return RequestClosed(
        opened=opened,
        outcome=outcome,
        http_status=200 if completed else 502,
        tokens=tokens,
        cost_nanos=cost_nanos(tokens, price),
        estimated=outcome is Outcome.CANCELLED,
        duration_ms=1_240,
        first_byte_ms=310,
        finish_reason="stop" if completed else "",
    )


def store(entries: Iterable[RequestClosed]) -> list[str]:
    """Record and post; returns the request ids."""
    entries = list(entries)
    record(entries)
    while post_batch():
        pass
    return [entry.opened.request_id for entry in entries]
