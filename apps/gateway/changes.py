"""Listens to announcements of changes. While the connection is away nothing is trusted longer than its own bound."""

import asyncio
import logging
from typing import Final

import redis
import redis.asyncio

from apps.core.redis import changes_channel, listening_client
from apps.gateway.catalog_feed import CatalogFeed
from apps.keys.lookup import KeyLookup

RECONNECT_S: Final = 0.5
READ_S: Final = 2.0
log = logging.getLogger(__name__)


async def listen(keys: KeyLookup, catalog: CatalogFeed) -> None:
    """Apply announcements until cancelled; reconnects for ever."""
    was_connected = True
    while True:
        try:
            await _listen_once(keys, catalog)
        except (redis.RedisError, OSError) as error:
            if was_connected:
                log.warning("announcements cannot be heard: %s", error)
            was_connected = False
            await asyncio.sleep(RECONNECT_S)
        else:
            was_connected = True


async def _listen_once(keys: KeyLookup, catalog: CatalogFeed) -> None:
    client = listening_client()
    try:
        async with client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(changes_channel(client))
            keys.distrust()
            catalog.note_change()
            while True:
                message = await subscription.get_message(timeout=READ_S)
                if message is not None:
                    _apply(message["data"].decode(), keys, catalog)
    finally:
        await client.aclose()


def _apply(change: str, keys: KeyLookup, catalog: CatalogFeed) -> None:
    kind, _, subject = change.partition(":")
    if kind == "key":
        keys.forget(subject)
    elif kind == "keys":
        keys.distrust(subject)
    elif kind == "catalog":
        catalog.note_change()
