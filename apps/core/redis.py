"""How CRUN connects to Redis or Valkey: short timeouts, and no connection with an unread reply is ever reused."""

from typing import Final

import redis
import redis.asyncio
from django.conf import settings
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

CALL_TIMEOUT_S: Final = 0.1
CONNECT_TIMEOUT_S: Final = 0.5
PROTOCOL: Final = 2
"""RESP2: with RESP3's maintenance notifications redis-py skips the check for unread bytes in pooled connections."""

DRIVER: Final = redis.DriverInfo()
"""What connections say of themselves. By itself redis-py looks its version up on the disk for each of them."""


def changes_channel(client: "redis.Redis | redis.asyncio.Redis") -> str:
    """Where every gateway worker listens: `key:DIGEST` drops a cached key, `catalog` reloads the snapshot.

    Channels ignore database numbers, so the name has it: installations that share a server do not hear each other."""
    return f"crun:changes:{client.connection_pool.connection_kwargs.get('db') or 0}"


def listening_client() -> "redis.asyncio.Redis":
    """A client for a subscription: it may be silent for long, so reads have no timeout of their own."""
    return redis.asyncio.Redis.from_url(
        settings.REDIS_URL,
        protocol=PROTOCOL,
        driver_info=DRIVER,
        socket_timeout=None,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        health_check_interval=5,
    )


def sync_client() -> "redis.Redis":
    """A client for web pages, commands and tasks; its caller closes it."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        protocol=PROTOCOL,
        driver_info=DRIVER,
        socket_timeout=CALL_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
    )


def path_connection(url: str = "") -> "redis.asyncio.Connection":
    """One connection for the data path, not connected yet; `url` names another store than that of money. It never tries
    again by itself; its user bounds every wait and closes it after the first failure. A timeout of its own would count
    while this process is busy elsewhere."""
    pool = redis.asyncio.ConnectionPool.from_url(
        url or settings.REDIS_URL,
        protocol=PROTOCOL,
        driver_info=DRIVER,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    connection: redis.asyncio.Connection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
    return connection


def single_try_client(url: str = "") -> "redis.Redis":
    """A client for steps that must not be repeated behind their caller's back; its caller closes it. `url` names
    another store than that of money."""
    return redis.Redis.from_url(
        url or settings.REDIS_URL,
        protocol=PROTOCOL,
        driver_info=DRIVER,
        socket_timeout=CALL_TIMEOUT_S * 5,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
