"""Hourly sums of posted records."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.db import connection

from apps.usage.contracts import Outcome
from apps.usage.models import TOKEN_COLUMNS

_KEY = ("organization_id", "hour", "project_id", "key_id", "model", "provider")
_SUMS = ("requests", "failed_requests", "estimated_requests", *TOKEN_COLUMNS, "cost_nanos")
_ADD = f"""
INSERT INTO usage_usagerollup ({", ".join((*_KEY, *_SUMS))})
VALUES ({", ".join(["%s"] * (len(_KEY) + len(_SUMS)))})
ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET
    {", ".join(f"{name} = usage_usagerollup.{name} + excluded.{name}" for name in _SUMS)}
"""  # noqa: S608 - only names of this file


def add_to_rollups(rows: Iterable[dict[str, Any]]) -> None:
    """Add records (column name -> value) to their hours. The caller's transaction makes it happen once.

    Hours are updated in one order, so that two workers cannot wait for each other in a circle."""
    sums: dict[tuple[Any, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_SUMS, 0))
    for row in rows:
        hour = row["created_at"].replace(minute=0, second=0, microsecond=0)
        total = sums[tuple(hour if name == "hour" else row[name] for name in _KEY)]
        total["requests"] += 1
        total["failed_requests"] += row["status"] == Outcome.FAILED
        total["estimated_requests"] += bool(row["estimated"])
        for name in (*TOKEN_COLUMNS, "cost_nanos"):
            total[name] += row[name]
    with connection.cursor() as cursor:
        cursor.executemany(_ADD, [(*key, *(sums[key][name] for name in _SUMS)) for key in sorted(sums)])
