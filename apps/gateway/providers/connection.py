"""HTTP/1.1 to an upstream: one connection, one request at a time, and whether it may carry another one after that.

Nothing of one answer can reach the next caller: an answer belongs to the request that it was parsed for, and a
connection on which a byte too many came, or one that was given up half way, is never used again.
"""

import asyncio
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, cast

import httptools

from apps.core.crash_points import crash_point
from apps.gateway.dialects.large_body import STEP_BYTES
from apps.gateway.dialects.large_content import Content

MAX_ANSWER_BYTES: Final = 64 << 20
"""A whole answer (not a stream) that is larger is refused."""
MAX_OVERHEAD_BYTES: Final = 64 << 10
"""So many bytes without any content among them, as headers or trailers, are too many."""
MAX_HEADERS: Final = 100
"""More than so many are no answer of a vendor's."""
MAX_UNREAD_BYTES: Final = 128 << 10
"""An answer that nobody takes is not read any further than this."""
WRITE_BYTES: Final = 256 << 10
"""A larger request body is written in pieces of so many bytes, so that neither loop nor memory are held up."""
FINISH_S: Final = 0.05


class UpstreamBroken(Exception):
    """The connection ended, or what came over it was no HTTP, after the request was sent."""


class AnswerTooLarge(UpstreamBroken):
    """More bytes than a whole answer may have."""


class UpstreamResponse:
    """Status, headers and bytes of one answer."""

    __slots__ = (
        "_connection",
        "_error",
        "_fault",
        "_headers",
        "_is_complete",
        "_parts",
        "_unread_bytes",
        "_waiter",
        "status",
        "taker",
    )

    def __init__(self, connection: "Connection", status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self._connection = connection
        self._headers = headers
        self._parts: list[bytes] = []
        self._unread_bytes = 0
        self._is_complete = False
        self._error: str | None = None
        self._fault: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.taker: Callable[[bytes], bool] | None = None
        """Is offered what comes while somebody waits in `read_some`, and tells whether it took it."""

    def header(self, name: str) -> str | None:
        """A header's value, by its lower-case name; the first one, where it is repeated."""
        wanted = name.encode()
        for key, value in self._headers:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return None

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises AnswerTooLarge beyond `limit` bytes, UpstreamBroken when it is cut."""
        parts, size = [], 0
        while part := await self.read_some():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise AnswerTooLarge(f"an answer of more than {limit} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_some(self) -> bytes:
        """The bytes that are there, or the next that come; b"" at the end. Raises UpstreamBroken when it is cut.

        What came before a cut is given first."""
        while not self._parts:
            if self._is_complete:
                return b""
            if self._error is not None:
                raise UpstreamBroken(self._error)
            if self._fault is not None:
                raise self._fault
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        parts, self._parts = self._parts, []
        if self._unread_bytes > MAX_UNREAD_BYTES and not self._is_complete:
            self._connection.resume_reading()
        self._unread_bytes = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def finish(self) -> None:
        """Read what is left of an answer whose content is known to be over, so that its connection can be used again.

        Waits FINISH_S at most, and tells nothing: whoever calls has all that it needs."""
        if self._is_complete:
            return
        with suppress(UpstreamBroken, TimeoutError):
            async with asyncio.timeout(FINISH_S):
                while await self.read_some():
                    pass

    def close(self) -> None:
        """Give the connection up, unless the answer was complete: then it may carry other requests already."""
        if not self._is_complete and self._error is None:
            self._connection.abort("given up")

    def feed(self, part: bytes) -> None:
        """Bytes of the body came."""
        if self.taker is not None and self._waiter is not None and not self._waiter.done():
            try:
                if self.taker(part):
                    return
            except Exception as error:  # noqa: BLE001 - edge of the event loop: who reads is told, as of its own mistakes
                self.taker, self._fault = None, error
                self._wake()
                return
        self._parts.append(part)
        self._unread_bytes += len(part)
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self._connection.pause_reading()
        self._wake()

    def complete(self) -> None:
        """The whole answer came."""
        self._is_complete = True
        self._wake()

    def fail(self, reason: str) -> None:
        """No more of it will come."""
        if not self._is_complete:
            self._error = reason
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One TCP or TLS connection. `on_free` is told when it may carry another request, `on_lost` when it is gone."""

    def __init__(self, *, on_free: Callable[["Connection"], None], on_lost: Callable[["Connection"], None]) -> None:
        self._on_free = on_free
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: asyncio.Future[UpstreamResponse] | None = None
        self._response: UpstreamResponse | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._came: list[bytes] = []
        """Parts of the body in the bytes that are parsed now."""
        self._writable: asyncio.Future[None] | None = None
        self._pending: select.poll | None = None
        """Made when it is first needed: looks at the connection's socket."""
        self._overhead_bytes = 0
        self._is_sent = self._is_over = self._is_reusable = self._ends_with_connection = False
        self.idle_since = 0.0
        """When it became free, in the loop's time."""

    @property
    def is_lost(self) -> bool:
        """Whether it can carry nothing any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def has_unread(self) -> bool:
        """Whether something has come, if only the end, that a busy loop has not read yet. Between two requests that is
        nothing that anybody asked for, and it must not be taken for the next answer."""
        if self._pending is None:
            self._pending = select.poll()
            self._pending.register(cast(asyncio.Transport, self._transport).get_extra_info("socket"), select.POLLIN)
        return bool(self._pending.poll(0))

    async def ask(self, head: bytes, body: Content) -> UpstreamResponse:
        """Send a request and wait for the headers of its answer. Raises UpstreamBroken."""
        transport = self._transport
        if transport is None or self._parser is not None:
            raise UpstreamBroken("the connection is not free")
        self._parser = httptools.HttpResponseParser(self)
        self._answer = answer = self._loop.create_future()
        self._response, self._headers, self._overhead_bytes = None, [], 0
        self._is_sent = self._is_over = False
        try:
            if type(body) is bytes and len(body) <= WRITE_BYTES:
                transport.write(head + body)
            else:
                await self._write_in_pieces(transport, head, body)
            self._is_sent = not answer.done()  # who answers before it has the whole request gets no other one
            crash_point("P4")
            response: UpstreamResponse = await answer
            return response
        except BaseException:  # a cancellation above all: what may still come must reach nobody else
            if self._answer is answer:  # who leaves when all of the answer is here: somebody else may be served by now
                self.abort("given up")
            raise

    def abort(self, reason: str) -> None:
        """Close at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(reason)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    async def _write_in_pieces(self, transport: asyncio.Transport, head: bytes, body: Content) -> None:
        transport.write(head)
        written = 0
        for piece in _pieces(body) if isinstance(body, bytes) else body.pieces():
            transport.write(piece)
            written += len(piece)
            if self._writable is not None:
                await self._writable
            elif written >= STEP_BYTES:  # an upstream that is fast enough takes all at once
                await asyncio.sleep(0)
                written = 0
            if self._answer is None or self._answer.done():  # lost, or answered early
                return

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has no common ancestor with it

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self.abort("bytes that nobody asked for")
            return
        self._overhead_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._hand_over()
            self._spoil(f"no HTTP: {type(error).__name__}")
            return
        self._hand_over()
        if self._overhead_bytes > MAX_OVERHEAD_BYTES:
            self._spoil("too many headers")
        elif self._is_over:
            self._end()

    def eof_received(self) -> None:
        if self._ends_with_connection and self._response is not None and not self._is_over:
            self._response.complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"the connection was lost: {type(exc).__name__}" if exc else "the connection was closed")
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._is_over:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is None:  # later ones are trailers, which nobody reads
            self._headers.append((name, value))
            if len(self._headers) > MAX_HEADERS:
                raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        parser = cast(httptools.HttpResponseParser, self._parser)
        status = parser.get_status_code()
        if status < 200:  # an interim answer: the real one follows
            self._headers = []
            return
        names = {name.lower() for name, _ in self._headers}
        self._ends_with_connection = not names & {b"content-length", b"transfer-encoding"}
        self._is_reusable = parser.should_keep_alive()
        self._response = UpstreamResponse(self, status, self._headers)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._response)
        self.resume_writing()

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        self._came.append(body)

    def on_message_complete(self) -> None:
        self._is_over = self._response is not None

    def _hand_over(self) -> None:
        """What came in one read goes on as one part, so that it is sent in one write."""
        came = self._came
        if came:
            self._came = []
            if self._response is not None:
                self._response.feed(came[0] if len(came) == 1 else b"".join(came))

    # Ends.

    def _end(self) -> None:
        """The whole answer is here."""
        response, self._response, self._parser, self._answer = self._response, None, None, None
        if response is not None:
            response.complete()
        transport = self._transport
        if transport is None:
            return
        if self._is_reusable and self._is_sent and not transport.is_closing() and not transport.get_write_buffer_size():
            transport.resume_reading()
            self._on_free(self)
        else:
            transport.abort()

    def _spoil(self, reason: str) -> None:
        """What came makes no sense. If the answer was complete before that, only the connection suffers."""
        if self._is_over:
            self._is_reusable = False
            self._end()
        else:
            self.abort(reason)

    def _fail(self, reason: str) -> None:
        response, self._response, self._parser = self._response, None, None
        answer, self._answer = self._answer, None
        if response is not None:
            response.fail(reason)
        if answer is not None and not answer.done():
            answer.set_exception(UpstreamBroken(reason))
            answer.exception()  # who gave up does not look at it any more
        self.resume_writing()


def _pieces(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    return (view[start : start + WRITE_BYTES] for start in range(0, len(view), WRITE_BYTES))
