"""Lua scripts over one connection: calls of one turn of the event loop, or made while a reply is awaited, share a trip.

One connection, one batch at a time, in the order of the calls. A batch that takes too long closes the connection, so
no reply can reach a later caller. After a failure nobody waits: calls fail at once until the store is tried again.
Between a call and its reply nobody is woken: a batch leaves at the end of the turn, its replies come in a callback.
"""

import asyncio
import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError

from apps.core.errors import Unavailable
from apps.core.redis_link import RedisLink

RETRY_S: Final = 1.0
"""After a failure the store is left alone for so long."""
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
        self._batch: list[_Call] = []
        self._wake = asyncio.Event()
        self._link: RedisLink | None = None
        self._lost: RedisLink | None = None
        self._run_id = ""
        self._retry_at = 0.0
        self._is_sending_soon = False

    @property
    def is_away(self) -> bool:
        """Whether calls fail at once, because the store failed less than RETRY_S ago."""
        return self._loop.time() < self._retry_at

    def call(self, script: Script, key: str, *arguments: Argument) -> "asyncio.Future[Any]":
        """Run a script, in the order of the calls. The future gets its reply or StoreAway."""
        call = _Call(script, key, arguments, self._loop.create_future())
        if self.is_away:
            call.fail("the store is away", was_sent=False)
            return call.reply
        self._calls.append(call)
        if self._link is None or self._link.is_lost:
            self._wake.set()
        elif not self._is_sending_soon and not self._batch:
            self._is_sending_soon = True
            self._loop.call_soon(self._send)
        return call.reply

    async def run(self) -> None:
        """Keep a connection to the server until cancelled; then everything still waiting fails."""
        try:
            await self._connect()
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._link is not None and self._link.is_lost and not self._batch:
                    self._lost, self._link = self._link, None
                await self._close_lost()
                if self._link is None and self._calls:
                    await self._connect()
        finally:
            self._retry_at = math.inf
            self._fail(self._batch, "this process stops", was_sent=True)
            self._fail(self._calls, "this process stops", was_sent=False)
            await self._close_lost()
            if self._link is not None:
                await self._link.close()

    def _send(self) -> None:
        """All calls of this turn of the loop, or that were made while a batch was under way, in one trip."""
        self._is_sending_soon = False
        link = self._link
        while link is not None and self._calls and not self._batch:
            batch, self._calls = self._calls[:MAX_BATCH], self._calls[MAX_BATCH:]
            self._batch = [call for call in batch if not call.reply.done()]
            if self._batch:
                link.ask([call.command(self._run_id) for call in self._batch], self._answered)

    def _answered(self, replies: list[Any], error: Exception | None) -> None:
        """The replies to a batch. Scripts that the server has forgotten go once more, by their text."""
        batch, self._batch = self._batch, []
        if error is not None:
            self._lose(batch, error)
            return
        missing: list[_Call] = []
        moved = None
        for call, reply in zip(batch, replies, strict=True):
            if isinstance(reply, NoScriptError):
                missing.append(call)
            elif isinstance(reply, ReadOnlyError | MasterDownError):
                moved = reply
                call.fail("the store is away", was_sent=True)
            elif isinstance(reply, redis.ResponseError):
                log.error("the store refused a script: %s", reply)
                call.fail("the store refused", was_sent=True)
            elif not call.reply.done():
                call.reply.set_result(reply)
        if moved is not None:  # another server takes the writes by now: a new connection finds it
            self._lose(missing, moved)
        elif missing and self._link is not None:
            self._batch = missing
            self._link.ask([call.command(self._run_id, by_text=True) for call in missing], self._answered)
        else:
            self._send()

    def _lose(self, batch: list[_Call], error: Exception) -> None:
        """The connection cannot be trusted any more. Nobody waits until it is tried again."""
        self._lost, self._link = self._link, None
        self._wake.set()
        self._fail(batch, "the store is away", was_sent=True)
        self._note_away(error)

    def _note_away(self, error: Exception) -> None:
        if not self.is_away:
            log.warning("the store of %s is away: %s", self._named, error or type(error).__name__)
        self._retry_at = self._loop.time() + RETRY_S
        waiting, self._calls = self._calls, []
        self._fail(waiting, "the store is away", was_sent=False)

    async def _connect(self) -> None:
        link = None
        try:
            link = await RedisLink.connect(self._url)
            loads = [("SCRIPT", "LOAD", script.text) for script in self._scripts]
            about, *_ = await link.round_trip([("INFO", "server"), *loads])
            self._run_id = run_id_of(about)
            await link.round_trip([mark_of_store(self._run_id)])
        except (redis.RedisError, OSError) as error:
            self._note_away(error)
            if link is not None:
                await link.close()
        except asyncio.CancelledError:
            if link is not None:
                await link.close()
            raise
        else:
            self._link = link
            self._send()

    async def _close_lost(self) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            await lost.close()

    @staticmethod
    def _fail(calls: list[_Call], reason: str, *, was_sent: bool) -> None:
        for call in calls:
            call.fail(reason, was_sent=was_sent)


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
