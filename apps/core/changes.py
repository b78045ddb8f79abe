"""Announcing changes to the running gateways. Losing an announcement delays it; it never loses the change."""

import logging

import redis
from django.db import transaction

from apps.core.redis import changes_channel, sync_client

log = logging.getLogger(__name__)


def announce_on_commit(message: str) -> None:
    """Publish `message` once the current transaction has committed.

    Redis away: logged only, because every listener also reads the database again after a bounded time
    (keys 10 s, catalog 1 s)."""
    transaction.on_commit(lambda: _publish(message))


def _publish(message: str) -> None:
    client = sync_client()
    try:
        client.publish(changes_channel(client), message)
    except redis.RedisError as error:
        log.warning("change not announced", extra={"change": message.partition(":")[0], "reason": str(error)})
    finally:
        client.close()
