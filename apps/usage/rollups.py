"""Hourly sums of posted records."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from django.db import connection

from apps.core.ids import created_ms
from apps.usage.contracts import Outcome
from apps.usage.models import TOKEN_COLUMNS

_OWNER = ("organization_id", "project_id", "key_id", "model", "provider", "sandbox", "byok")
_KEY = ("hour", *_OWNER)
_SUMS = (
    "requests",
    "failed_requests",
    "estimated_requests",
    *TOKEN_COLUMNS,
    "cost_nanos",
    "cached_requests",
    "saved_nanos",
)
_ADD = f"""
INSERT INTO usage_usagerollup ({", ".join((*_KEY, *_SUMS))})
VALUES ({", ".join(["%s"] * (len(_KEY) + len(_SUMS)))})
ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET
    {", ".join(f"{name} = usage_usagerollup.{name} + excluded.{name}" for name in _SUMS)}
"""  # noqa: S608 - only names of this file
_HOUR_S: Final = 3_600


def add_to_rollups(rows: Iterable[dict[str, Any]]) -> None:
    """Add records (column name -> value) to their hours. The caller's transaction makes it happen once.

    The hour follows from the request id, as the record's `created_at` does. Hours are updated in one order, so that two
    workers cannot wait for each other in a circle."""
    sums: dict[tuple[Any, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_SUMS, 0))
    for row in rows:
        hour = created_ms(row["request_id"]) // (_HOUR_S * 1000)
        total = sums[hour, *(row[name] for name in _OWNER)]
        total["requests"] += 1
        total["failed_requests"] += row["status"] == Outcome.FAILED
        total["estimated_requests"] += bool(row["estimated"])
        total["cached_requests"] += row["cache_share_ppm"] is not None
        for name in (*TOKEN_COLUMNS, "cost_nanos", "saved_nanos"):
            total[name] += row[name]
    hours = [
        (datetime.fromtimestamp(hour * _HOUR_S, UTC), *owner, *(sums[hour, *owner][name] for name in _SUMS))
        for hour, *owner in sorted(sums)
    ]
    with connection.cursor() as cursor:
        cursor.executemany(_ADD, hours)
