"""Lua scripts over one connection: calls of one turn of the event loop, or made while a reply is awaited, share a trip.

One connection, one batch at a time, in the order of the calls. A batch that takes too long closes the connection, so
no reply can reach a later caller. After a failure nobody waits: calls fail at once until the store is tried again.
"""

import asyncio
import hashlib
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import hiredis
import redis
import redis.asyncio
from redis.exceptions import MasterDownError

from apps.core.errors import Unavailable
from apps.core.redis import CALL_TIMEOUT_S, path_connection

RETRY_S: Final = 1.0
"""After a failure the store is left alone for so long."""
TICKS: Final = 4
"""The time limit is counted in ticks without a reply. A process that is too busy to look at its sockets also ticks
slowly, so it does not mistake its own lateness for the store's."""
MAX_BATCH: Final = 128
NEW_STORE_KEY: Final = "crun:store:{run_id}"
NEW_STORE_MS: Final = 10**12
"""The mark of a store that was once used expires after three decades; how much of that is gone tells its age."""

Argument = str | int | bytes
log = logging.getLogger(__name__)


class StoreAway(Unavailable):
    """The store refused, broke or was too slow. `was_sent`: the script may run, or have run, all the same."""

    code = "store_unavailable"

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.was_sent = was_sent


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name under which the server knows it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> "Script":
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(slots=True)
class _Call:
    script: Script
    key: str
    arguments: tuple[Argument, ...]
    reply: "asyncio.Future[Any]"

    def command(self, run_id: str, *, by_text: bool = False) -> tuple[Argument, ...]:
        if by_text:
            return ("EVAL", self.script.text, 1, self.key, run_id, *self.arguments)
        return ("EVALSHA", self.script.sha, 1, self.key, run_id, *self.arguments)

    def fail(self, reason: str, *, was_sent: bool) -> None:
        if not self.reply.done():
            self.reply.set_exception(StoreAway(reason, was_sent=was_sent))


class ScriptClient:
    """The scripts of one process, called from its event loop. Every script gets the server's run id as ARGV[1]."""

    def __init__(self, scripts: Sequence[Script], *, url: str = "", named: str = "money and limits") -> None:
        """`url` is another store than that of money; `named` says in the log what it is for."""
        self._scripts = scripts
        self._url = url
        self._named = named
        self._loop = asyncio.get_running_loop()
        self._calls: list[_Call] = []
        self._wake = asyncio.Event()
        self._wake.set()
        self._connection: redis.asyncio.Connection | None = None
        self._run_id = ""
        self._retry_at = 0.0
        self._patience: _Patience | None = None

    @property
    def is_away(self) -> bool:
        """Whether calls fail at once, because the store failed less than RETRY_S ago."""
        return self._loop.time() < self._retry_at

    def call(self, script: Script, key: str, *arguments: Argument) -> "asyncio.Future[Any]":
        """Run a script, in the order of the calls. The future gets its reply or StoreAway."""
        call = _Call(script, key, arguments, self._loop.create_future())
        if self.is_away:
            call.fail("the store is away", was_sent=False)
        else:
            self._calls.append(call)
            self._wake.set()
        return call.reply

    async def run(self) -> None:
        """Carry calls to the server until cancelled; then everything still waiting fails."""
        try:
            await self._attempt([])
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._calls:
                    batch, self._calls = self._calls[:MAX_BATCH], self._calls[MAX_BATCH:]
                    await self._attempt([call for call in batch if not call.reply.done()])
        finally:
            self._retry_at = math.inf
            self._fail_waiting("this process stops")
            await self._disconnect()

    async def _attempt(self, batch: list[_Call]) -> None:
        was_sent = False
        try:
            async with asyncio.timeout(None) as limit:
                self._patience = _Patience(limit)
                try:
                    connection = await self._connected()
                    was_sent = True
                    await self._exchange(connection, batch)
                finally:
                    self._patience.stop()
        except (redis.RedisError, OSError) as error:  # TimeoutError is an OSError
            if not self.is_away:
                log.warning("the store of %s is away: %s", self._named, error or type(error).__name__)
            self._retry_at = self._loop.time() + RETRY_S
            for call in batch:
                call.fail("the store is away", was_sent=was_sent)
            self._fail_waiting("the store is away")
            await self._disconnect()
        finally:
            for call in batch:
                call.fail("this process stops", was_sent=was_sent)

    async def _exchange(self, connection: redis.asyncio.Connection, batch: list[_Call]) -> None:
        replies = await self._round_trip(connection, [call.command(self._run_id) for call in batch])
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if missing:
            texts = [batch[i].command(self._run_id, by_text=True) for i in missing]
            for i, reply in zip(missing, await self._round_trip(connection, texts), strict=True):
                replies[i] = reply
        moved = None
        for call, reply in zip(batch, replies, strict=True):
            if isinstance(reply, redis.ReadOnlyError | MasterDownError):
                moved = reply
                call.fail("the store is away", was_sent=True)
            elif isinstance(reply, redis.ResponseError):
                log.error("the store refused a script: %s", reply)
                call.fail("the store refused", was_sent=True)
            elif not call.reply.done():
                call.reply.set_result(reply)
        if moved is not None:  # another server takes the writes by now: a new connection finds it
            raise moved

    async def _connected(self) -> redis.asyncio.Connection:
        if self._connection is None:
            connection = path_connection(self._url)
            self._connection = connection
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py
            loads = [("SCRIPT", "LOAD", script.text) for script in self._scripts]
            about, *_ = await self._round_trip(connection, [("INFO", "server"), *loads])
            self._run_id = run_id_of(about)
            await self._round_trip(connection, [mark_of_store(self._run_id)])
        return self._connection

    async def _round_trip(
        self, connection: redis.asyncio.Connection, commands: list[tuple[Argument, ...]]
    ) -> list[Any]:
        """The replies in order; an error reply stands as the exception that it is."""
        if not commands:
            return []
        packed = b"".join([hiredis.pack_command(each) for each in commands])  # type: ignore[arg-type]  # its stub says a tuple of one
        await connection.send_packed_command(packed, check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except redis.ResponseError as error:
                replies.append(error)
            if self._patience is not None:
                self._patience.renew()
        return replies

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(redis.RedisError, OSError):
                await connection.disconnect(nowait=True)

    def _fail_waiting(self, reason: str) -> None:
        waiting, self._calls = self._calls, []
        for call in waiting:
            call.fail(reason, was_sent=False)


class _Patience:
    """Ends a timeout's block when no reply came for CALL_TIMEOUT_S."""

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._ticks = 0
        self._timer = self._loop.call_later(CALL_TIMEOUT_S / TICKS, self._tick)

    def renew(self) -> None:
        """A reply came."""
        self._ticks = 0

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks >= TICKS:
            self._limit.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(CALL_TIMEOUT_S / TICKS, self._tick)


def run_id_of(about: object) -> str:
    """The run id in the answer to INFO. Raises redis.ResponseError when there is none."""
    text = about.decode() if isinstance(about, bytes) else ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "run_id" and value:
            return value
    raise redis.ResponseError("the server does not tell its run id")


def mark_of_store(run_id: str) -> tuple[Argument, ...]:
    """The command that marks a store as used. A store that was emptied has lost the mark."""
    return ("SET", NEW_STORE_KEY.format(run_id=run_id), 1, "NX", "PX", NEW_STORE_MS)
