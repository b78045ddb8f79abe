"""An organization's money in Redis is a cache: what changes the ledger drops it, the next admission rebuilds it."""

import logging
from collections.abc import Sequence
from typing import Final

import redis
from django.db import Error, transaction

from apps.billing.models import StaleBalance
from apps.core.redis import single_try_client

BATCH: Final = 500
log = logging.getLogger(__name__)


def money_key(organization_id: str) -> str:
    """Where Redis keeps the money state of an organization. The hash tag keeps all of its keys in one slot."""
    return f"crun:{{{organization_id}}}:money"


def invalidate_on_commit(organization_id: str) -> None:
    """Drop the cached money of the organization once the current transaction has committed.

    That it must be dropped is written down in the same transaction: Redis away, or a process that dies before it can,
    means that `drop_stale` does it."""
    row = StaleBalance.objects.create(organization_id=organization_id)
    transaction.on_commit(lambda: _drop([row]))


def drop_stale() -> int:
    """Drop every cached balance that still must be; how many there were. Redis away: they are tried again next time."""
    rows = list(StaleBalance.objects.order_by("id")[:BATCH])
    if rows:
        _drop(rows)
    return len(rows)


def _drop(rows: Sequence[StaleBalance]) -> None:
    """The rows go last: whoever dies in between only drops the cache once more."""
    client = single_try_client()
    try:
        for owner in {row.organization_id for row in rows}:
            client.delete(money_key(owner))
    except redis.RedisError as error:
        owners = sorted({row.organization_id for row in rows})
        log.error("cached balances not dropped yet", extra={"organizations": owners, "reason": str(error)})
        return
    finally:
        client.close()
    try:
        StaleBalance.objects.filter(id__in=[row.id for row in rows]).delete()
    except Error as error:
        log.warning("cached balances will be dropped again: %s", error)
