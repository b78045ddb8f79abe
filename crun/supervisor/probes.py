"""Asking servers whether they are ready. Each probe answers None, or says what is in the way."""

import asyncio
import os
from http import HTTPStatus

import environ
import psycopg
import redis

from crun.embedded.postgres import ensure_database
from crun.home import Home

LIMIT_S = 5.0


async def database_obstacle(home: Home) -> str | None:
    """Why the database (DATABASE_URL, else the embedded one) cannot be used yet."""
    try:
        await asyncio.to_thread(_connect_to_database, home)
    except psycopg.OperationalError as error:
        return f"the database does not answer: {error}"
    return None


async def redis_obstacle(home: Home) -> str | None:
    """Why Redis (REDIS_URL, else the embedded Valkey) cannot be used yet."""
    try:
        await asyncio.to_thread(_ping_redis, home)
    except redis.RedisError as error:
        return f"Redis does not answer: {error}"
    return None


async def readyz_obstacle(host: str, port: int) -> str | None:
    """Why `GET /readyz` is not answered with 200 yet."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
    try:
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), port)
            try:
                writer.write(request)
                answer = await reader.read(4096)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return f"GET /readyz: {error or 'no answer'}"
    words = answer.split(b"\r\n", 1)[0].split(b" ")
    if len(words) > 1 and words[1] == str(HTTPStatus.OK.value).encode():
        return None
    return f"GET /readyz: {answer.decode(errors='replace').strip() or 'an empty answer'}"


def _connect_to_database(home: Home) -> None:
    url = os.environ.get("DATABASE_URL")
    if not url:
        ensure_database(home)
        return
    settings = environ.Env.db_url_config(url)
    psycopg.connect(
        host=settings["HOST"],
        port=settings["PORT"] or None,
        user=settings["USER"],
        password=settings["PASSWORD"],
        dbname=settings["NAME"],
        connect_timeout=int(LIMIT_S),
    ).close()


def _ping_redis(home: Home) -> None:
    url = os.environ.get("REDIS_URL") or home.redis_url()
    with redis.Redis.from_url(url, socket_timeout=LIMIT_S, socket_connect_timeout=LIMIT_S, protocol=2) as client:
        client.ping()
