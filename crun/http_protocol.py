"""uvicorn's HTTP protocol, which offers the data path the short way to its clients (`apps.gateway.server.direct`)."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from apps.gateway.server.direct import CLIENT

JOINED_BYTES = 64 << 10
"""A body of no more than this is copied behind its head: two writes are two system calls, and two packets."""


class LeanEvent:
    """What uvicorn uses of `asyncio.Event`, without a list of who waits while nobody does: that is 760 bytes, and a
    connection has two."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._waiters: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Whether nobody has to wait."""
        return self._is_set

    def set(self) -> None:
        """Let all go on who wait."""
        self._is_set = True
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """From now on one has to wait."""
        self._is_set = False

    async def wait(self) -> None:
        """Return once it is set."""
        if self._is_set:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        await waiter


class _Pipeline(list[Any]):
    """What uvicorn uses of a deque for requests that came before their turn: there are hardly ever any."""

    __slots__ = ()

    def appendleft(self, request: Any) -> None:
        self.insert(0, request)


class CycleClient:
    """The Client of one request, beside the cycle that answers it by ASGI's messages."""

    __slots__ = ("_cycle", "_flow", "_head", "_tell", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write
        self._head = b""
        """Of a stream that begins in this turn of the loop, if no part was written yet."""
        self._tell: Callable[[], object] | None = None

    def take_body(self) -> bytes | None:
        """As `receive`, but that it never waits."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        self._flow.resume_reading()
        return body

    def when_gone(self, tell: Callable[[], object]) -> None:
        """Tell it in the callback in which the connection is lost, or now if it was lost already."""
        self._flow.resume_reading()
        if self._cycle.disconnected:
            tell()
        else:
            self._tell = tell

    def let_go(self) -> None:
        """The answer is whole. What points back here from the request would keep all of it until the next look for
        cycles."""
        self._tell = None
        self._cycle.scope.pop("extensions", None)

    def gone(self) -> None:
        """The connection is lost."""
        tell, self._tell = self._tell, None
        if tell is not None and not self._cycle.response_complete:
            tell()

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """As the two messages of an answer in one write. Only for the common case: all else `send` does."""
        cycle = self._cycle
        head = self._head_of(status, headers)
        if not head:
            return False
        cycle.response_complete = True
        if len(body) <= JOINED_BYTES:
            self._write(head + body)
        else:
            self._write(head)
            self._write(body)
        cycle.message_event.set()
        cycle.on_response()
        return True

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """The head leaves with the first part, or at the end of this turn of the loop. Only for the common case."""
        self._head = self._head_of(200, [*headers, (b"transfer-encoding", b"chunked")])
        if not self._head:
            return False
        cycle = self._cycle
        cycle.chunked_encoding = True
        asyncio.get_running_loop().call_soon(self.flush)
        return True

    def flush(self) -> None:
        """Send the head, if it was not sent yet."""
        head, self._head = self._head, b""
        if head and not self._cycle.disconnected:
            self._write(head)

    def _head_of(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The head of an answer that begins now; b"" where `send` must do it."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or self._flow.write_paused:
            return b""
        if not cycle.keep_alive or cycle.scope["method"] == "HEAD" or status == 304:
            return b""
        lines = [b"%b: %b" % header for header in (*cycle.default_headers, *headers)]
        head = b"%b%b\r\n\r\n" % (STATUS_LINE[status], b"\r\n".join(lines))
        if head.count(b"\n") != len(lines) + 2:  # a value that would end its line: `send` refuses it
            return b""
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        return head

    @property
    def is_ready(self) -> bool:
        """As `send` would find it: nothing to wait for."""
        cycle = self._cycle
        return bool(cycle.chunked_encoding) and not (
            self._flow.write_paused or cycle.disconnected or cycle.response_complete
        )

    def write(self, part: bytes) -> None:
        """A chunk of a chunked body."""
        if self._head:
            head, self._head = self._head, b""
            self._write(b"%b%x\r\n%b\r\n" % (head, len(part), part))
        else:
            self._write(b"%x\r\n%b\r\n" % (len(part), part))


class GatewayProtocol(HttpToolsProtocol):
    """For uvicorn's option `http`."""

    client_of_request: CycleClient | None = None
    """Of the request that is answered now, or was last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow._is_writable_event = cast(asyncio.Event, LeanEvent(is_set=True))
        self.pipeline = _Pipeline()  # type: ignore[assignment]  # all that is used of a deque

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.client_of_request is not None:
            self.client_of_request.gone()

    def on_response_complete(self) -> None:
        if self.client_of_request is not None:
            self.client_of_request.let_go()
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.message_event = cast(asyncio.Event, LeanEvent(is_set=cycle.message_event.is_set()))
        client = self.client_of_request = CycleClient(cycle)
        cycle.scope["extensions"] = {CLIENT: client}  # type: ignore[dict-item]  # a dict there by the types: ours is not
        super()._start_asgi_task(cycle, app)
