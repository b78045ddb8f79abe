"""Commands and replies over one connection to Redis or Valkey, in batches, without a task or a stream in between."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

import hiredis
import redis
import redis.asyncio
from redis.exceptions import BusyLoadingError, MasterDownError, NoScriptError, ReadOnlyError

from apps.core.redis import CALL_TIMEOUT_S, path_connection

TICKS: Final = 4
"""The time limit is counted in ticks without a reply. A process that is too busy to look at its sockets also ticks
slowly, so it does not mistake its own lateness for the store's."""
_KINDS: Final[dict[str, Any]] = {
    "NOSCRIPT": NoScriptError, "READONLY": ReadOnlyError, "MASTERDOWN": MasterDownError, "LOADING": BusyLoadingError,
}  # fmt: skip

Command = tuple[str | int | bytes, ...]
Told = Callable[[list[Any], Exception | None], None]
"""Gets the replies in order, an error reply as the exception that it is; or those that came, and why no more do."""


class RedisLink(asyncio.Protocol):
    """A connection that asks one batch at a time. The first failure ends it."""

    def __init__(self, connection: redis.asyncio.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=_failure, protocolError=redis.InvalidResponse)
        self._transport: asyncio.Transport | None = None
        self._told: Told | None = None
        self._replies: list[Any] = []
        self._expected = 0
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(cls, url: str = "") -> "RedisLink":
        """A link to the store of money, or to that at `url`. redis-py makes the connection: addresses, TLS, passwords.

        Raises redis.RedisError or OSError."""
        connection = path_connection(url)
        connecting = asyncio.ensure_future(connection.connect())  # type: ignore[no-untyped-call]  # redis-py gives it no types
        try:
            for _ in range(TICKS):
                if (await asyncio.wait([connecting], timeout=CALL_TIMEOUT_S / TICKS))[0]:
                    break
            else:
                raise redis.TimeoutError("no connection in time")
            connecting.result()
        except BaseException:  # a cancellation too: nobody else knows of this connection
            connecting.cancel()
            await connection.disconnect(nowait=True)
            raise
        link = cls(connection)
        writer = cast(asyncio.StreamWriter, connection._writer)
        link._transport = cast(asyncio.Transport, writer.transport)
        link._transport.set_protocol(link)
        return link

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._transport is None or self._transport.is_closing()

    def ask(self, commands: Sequence[Command], told: Told) -> None:
        """Send the commands in one write. `told` is called once, later, never from within. Only when no other batch is
        under way."""
        self._told, self._replies, self._expected, self._ticks = told, [], len(commands), 0
        if self._transport is None or self.is_lost:
            self._loop.call_soon(self._end, redis.ConnectionError("the connection is lost"))
            return
        self._transport.write(b"".join([hiredis.pack_command(each) for each in commands]))  # type: ignore[arg-type]  # its stub says a tuple of one
        if self._timer is None:
            self._timer = self._loop.call_later(CALL_TIMEOUT_S / TICKS, self._tick)

    async def round_trip(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order. Raises redis.RedisError or OSError when they do not all come."""
        done: asyncio.Future[list[Any]] = self._loop.create_future()

        def told(replies: list[Any], error: Exception | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(replies)
            else:
                done.set_exception(error)

        self.ask(commands, told)
        return await done

    async def close(self) -> None:
        """Drop the connection. Nobody is told: who closes it knows."""
        self._told = None
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        with suppress(redis.RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    # What the event loop calls.

    def data_received(self, data: bytes) -> None:
        self._ticks = 0
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets(False)) is not False:
                self._take(reply)
        except redis.RedisError as error:
            self._break(error)

    def eof_received(self) -> None:
        self._break(redis.ConnectionError("the store closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(exc or redis.ConnectionError("the connection was lost"))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, redis.ConnectionError):
            raise reply
        if self._told is None:
            raise redis.InvalidResponse("a reply that nobody asked for")
        self._replies.append(reply)
        if len(self._replies) == self._expected:
            self._end(None)

    def _break(self, error: Exception) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        """Tell who waits. The next batch may begin in that call, so all that is here is over before it."""
        told, replies = self._told, self._replies
        self._told, self._replies, self._expected = None, [], 0
        if told is not None:
            told(replies, error)

    def _tick(self) -> None:
        self._timer = None
        if self._told is None:
            return
        self._ticks += 1
        if self._ticks >= TICKS:
            self._break(redis.TimeoutError("no reply in time"))
        else:
            self._timer = self._loop.call_later(CALL_TIMEOUT_S / TICKS, self._tick)


def _failure(message: str) -> redis.ResponseError | redis.ConnectionError:
    """The exception that an error reply is."""
    kind: type[redis.ResponseError | redis.ConnectionError] = _KINDS.get(message.partition(" ")[0], redis.ResponseError)
    return kind(message)
