"""What was billed of a model in a window, read as a stream: any number of records in bounded memory."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection

from apps.billing.pricing.book import as_fee, at_share
from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Price
from apps.usage.contracts import TokenCounts
from apps.usage.models import TOKEN_COLUMNS

CHUNK_ROWS = 2_000
_BUCKETS = tuple(column.removesuffix("_tokens") for column in TOKEN_COLUMNS)


@dataclass(frozen=True)
class Window:
    """The requests of a model that began from `start` on and before `end` (UTC)."""

    model_id: str
    start: datetime
    end: datetime


class BilledRequest(NamedTuple):
    """A posted live request. Money in nano-USD; `corrected_nanos` is what re-ratings have added to its cost so far.

    `began` is in Unix seconds. `hold_nanos` is None where it was not noted, `fee_ppm` where the operator's credential
    served it."""

    organization_id: str
    request_id: str
    began: float
    tokens: TokenCounts
    images: int
    service_tier: str
    cost_nanos: int
    overage_nanos: int
    hold_nanos: int | None
    corrected_nanos: int
    fee_ppm: int | None
    cache_share_ppm: int | None

    @property
    def standing_nanos(self) -> int:
        """What it costs as of now."""
        return self.cost_nanos + self.corrected_nanos

    def at(self, price: Price) -> int:
        """What it would cost where a request costs this price, in nano-USD, whatever was held for it."""
        own = price if self.fee_ppm is None else as_fee(price, self.fee_ppm)
        return cost_nanos(
            self.tokens,
            at_share(own, self.cache_share_ppm),
            request_id=self.request_id,
            service_tier=self.service_tier,
            images=self.images,
        )


_OF_WINDOW = """
FROM usage_usagerecord record
WHERE record.model = %(model)s AND NOT record.sandbox
    AND record.day BETWEEN (%(start)s AT TIME ZONE 'UTC')::date AND (%(end)s AT TIME ZONE 'UTC')::date
    AND record.created_at >= %(start)s AND record.created_at < %(end)s
"""
_UNPOSTED = "EXISTS (SELECT FROM usage_unpostedusage waiting WHERE waiting.request_id = record.request_id)"
_OWNERS = f"SELECT DISTINCT record.organization_id {_OF_WINDOW} ORDER BY 1"
_WAITING = f"SELECT count(*) {_OF_WINDOW} AND {_UNPOSTED}"
_REQUESTS = f"""
SELECT record.organization_id, record.request_id, extract(epoch FROM record.created_at)::float8, record.images,
    record.service_tier, record.cost_nanos, record.overage_nanos, record.hold_nanos,
    coalesce((SELECT sum(delta_nanos)::bigint FROM billing_reratedusage earlier
              WHERE earlier.request_id = record.request_id), 0),
    record.fee_ppm, record.cache_share_ppm, {", ".join(TOKEN_COLUMNS)}
{_OF_WINDOW} AND NOT {_UNPOSTED}
"""  # noqa: S608 - only constants of this file and of the table


def organizations_in(window: Window) -> list[str]:
    """The ids of the organizations that have live records in the window, in order."""
    with connection.cursor() as cursor:
        cursor.execute(_OWNERS, _values(window))
        return [owner for (owner,) in cursor.fetchall()]


def unposted_in(window: Window) -> int:
    """How many live records of the window wait for posting: they are not charged yet."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, _values(window))
        return int(cursor.fetchone()[0])


def billed_in(window: Window, *, organization_id: str | None = None) -> Iterator[BilledRequest]:
    """The posted live requests of the window, of all organizations or of one, in no order, as they are now.

    One statement, so one consistent view; the rows come through a cursor of the database."""
    query, values = _REQUESTS, _values(window)
    if organization_id is not None:
        query, values = f"{query} AND record.organization_id = %(owner)s", {**values, "owner": organization_id}
    with closing(connection.chunked_cursor()) as cursor:
        cursor.execute(query, values)
        while rows := cursor.fetchmany(CHUNK_ROWS):
            yield from map(_request, rows)


def _values(window: Window) -> dict[str, Any]:
    return {"model": window.model_id, "start": window.start, "end": window.end}


def _request(row: tuple[Any, ...]) -> BilledRequest:
    owner, request_id, began, images, tier, cost, overage, hold, corrected, fee, share, *counts = row
    tokens = TokenCounts(**dict(zip(_BUCKETS, counts, strict=True)))
    return BilledRequest(owner, request_id, began, tokens, images, tier, cost, overage, hold, corrected, fee, share)
