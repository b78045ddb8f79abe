"""Posting: unposted records are rated again, charged to their organizations and added to the hourly rollups."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.db import connection, transaction

from apps.billing.grants import UsageCharge, charge_usage
from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Price
from apps.catalog.models import PriceVersion
from apps.catalog.snapshot import price_from_version
from apps.usage.contracts import TokenCounts
from apps.usage.rollups import add_to_rollups

BATCH_ROWS = 5_000
log = logging.getLogger(__name__)

_CLAIM = """
WITH claimed AS (
    DELETE FROM usage_unpostedusage WHERE request_id IN (
        SELECT request_id FROM usage_unpostedusage ORDER BY request_id LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING day, request_id
)
SELECT record.organization_id, record.project_id, record.key_id, record.model, record.provider, record.created_at,
       record.status, record.estimated, record.input_tokens, record.cache_read_tokens, record.cache_write_tokens,
       record.output_tokens, record.reasoning_tokens, record.price_version_id, record.cost_nanos, record.request_id
FROM usage_usagerecord record JOIN claimed USING (day, request_id)
"""


@transaction.atomic
def post_batch() -> int:
    """Claim up to BATCH_ROWS unposted records and post them in one transaction; returns how many.

    Claim, charges and rollups are committed together or not at all. Any number of workers may run it at the same
    time: a record is claimed by exactly one, wallets are locked before rollups and both in one order."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [BATCH_ROWS])
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
    if rows:
        _check_rating(rows)
        charge_usage(_charges(rows))
        add_to_rollups(rows)
    return len(rows)


def _charges(rows: Iterable[dict[str, Any]]) -> list[UsageCharge]:
    """One charge for each organization whose records cost anything. The key names exactly these records."""
    costs: dict[str, int] = defaultdict(int)
    ids: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        costs[row["organization_id"]] += row["cost_nanos"]
        ids[row["organization_id"]].append(row["request_id"])
    return [
        UsageCharge(owner, cost, _posting_key(sorted(ids[owner])), f"Usage of {len(ids[owner])} requests")
        for owner, cost in costs.items()
        if cost
    ]


def _posting_key(request_ids: list[str]) -> str:
    everyone = hashlib.sha256(" ".join(request_ids).encode()).hexdigest()
    return f"usage:{request_ids[0]}:{request_ids[-1]}:{len(request_ids)}:{everyone}"


def _check_rating(rows: Iterable[dict[str, Any]]) -> None:
    """Rate again what the gateway rated. A difference is never posted away silently."""
    prices: dict[int, Price] = {}
    for row in rows:
        version_id = row["price_version_id"]
        if version_id not in prices:
            prices[version_id] = price_from_version(PriceVersion.objects.get(pk=version_id))
        expected = cost_nanos(_tokens(row), prices[version_id])
        if expected != row["cost_nanos"]:
            log.error(
                "cost differs from its price version",
                extra={"request_id": row["request_id"], "recorded": row["cost_nanos"], "expected": expected},
            )


def _tokens(row: dict[str, Any]) -> TokenCounts:
    return TokenCounts(
        input=row["input_tokens"],
        cache_read=row["cache_read_tokens"],
        cache_write=row["cache_write_tokens"],
        output=row["output_tokens"],
        reasoning=row["reasoning_tokens"],
    )
