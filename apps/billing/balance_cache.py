"""An organization's money in Redis is a cache: what changes the ledger drops it, the next admission rebuilds it."""

import logging

import redis
from django.db import transaction

from apps.core.redis import sync_client

log = logging.getLogger(__name__)


def money_key(organization_id: str) -> str:
    """Where Redis keeps the money state of an organization. The hash tag keeps all of its keys in one slot."""
    return f"crun:{{{organization_id}}}:money"


def invalidate_on_commit(organization_id: str) -> None:
    """Drop the cached money of the organization once the current transaction has committed.

    Redis away: an error in the log; the ledger is right and the cache is stale until it is rebuilt."""
    transaction.on_commit(lambda: _drop(organization_id))


def _drop(organization_id: str) -> None:
    client = sync_client()
    try:
        client.delete(money_key(organization_id))
    except redis.RedisError as error:
        log.error("cached balance not dropped", extra={"organization": organization_id, "reason": str(error)})
    finally:
        client.close()
