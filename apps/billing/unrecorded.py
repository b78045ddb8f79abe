"""What was settled and has no record yet: Redis remembers it for machines that cannot read its journal."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import redis
from django.db import connection

from apps.billing.admission import key_prefix
from apps.core.ids import utc_day

SCAN: Final = 1_000
LEFTOVERS: Final = 100
"""So many others are looked at with every batch: a settlement that came after its record leaves one behind."""

_RECORDED = "SELECT request_id FROM usage_usagerecord WHERE day = ANY(%s) AND request_id = ANY(%s)"


def recorded_among(request_ids: Iterable[str]) -> set[str]:
    """Those of the requests that have a record."""
    wanted = list(request_ids)
    if not wanted:
        return set()
    days = sorted({utc_day(request_id) for request_id in wanted})
    with connection.cursor() as cursor:
        cursor.execute(_RECORDED, [days, wanted])
        return {request_id for (request_id,) in cursor.fetchall()}


def unrecorded_key(organization_id: str) -> str:
    """A hash: request to cost|key|project|day|week|month."""
    return f"{key_prefix(organization_id)}unrecorded"


def read_unrecorded(client: "redis.Redis", organization_id: str) -> dict[str, str]:
    """Requests that were settled, and what they cost as the scripts write it; some may have records by now.

    Never long in one step: the store serves others meanwhile."""
    found = client.hscan_iter(unrecorded_key(organization_id), count=SCAN)
    return {request_id.decode(): packed.decode() for request_id, packed in found}


def add_packed(spend: Counter[str], packed: str) -> int:
    """Add a packed cost to the fields of the spend hash; returns its nano-dollars."""
    cost, key, project, day, week, month = packed.split("|")
    for name in (f"k:{key}", f"p:{project}", "o"):
        for field in (f"day|{day}", f"week|{week}", f"month|{month}", "lifetime|0"):
            spend[f"{name}|{field}"] += int(cost)
    return int(cost)


def forget_recorded(client: "redis.Redis", organization_id: str, request_ids: Iterable[str]) -> None:
    """These have records now; a few of the others may have had them for longer."""
    key = unrecorded_key(organization_id)
    client.hdel(key, *request_ids)
    rest: list[bytes] = client.hrandfield(key, LEFTOVERS) or []  # type: ignore[assignment]  # redis-py types it as perhaps awaitable; this client is not
    if late := recorded_among(request_id.decode() for request_id in rest):
        client.hdel(key, *late)
