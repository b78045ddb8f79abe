"""HTTP/1.1 on one connection: requests read whole, answers written exactly as told, broken ones included."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Any, cast

import httptools

from crun.sandbox.errors import ApiError

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_PIPELINED = 8
# How long a refused caller may go on sending before the connection is closed under it.
LINGER_S = 2.0


class ClientGone(ConnectionError):
    """The client has closed its connection; what was written last did not reach it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its body complete. Header names are lower case; of repeated ones the last counts."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    version: str
    keep_alive: bool

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def presented_key(self) -> str:
        """The bearer token, empty without one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""


@lru_cache(maxsize=4)
def _date_line(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


@lru_cache(maxsize=64)
def _head_start(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Overloaded"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode() + b"\r\n"


class Exchange:
    """One request and the answer that is being written to it.

    A write goes to the kernel at once; what it does not take is kept, and `is_blocked` until `drained`.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_held",
        "_is_last",
        "_missing",
        "_mute",
        "client_gone",
        "finished",
        "request",
    )

    def __init__(self, connection: "Connection", request: Request) -> None:
        self._connection = connection
        self._held = b""
        self._chunked = False
        self._mute = request.method == "HEAD"
        self._missing = 0
        self._is_last = not request.keep_alive
        self.request = request
        self.client_gone = False
        self.finished = False

    @property
    def is_blocked(self) -> bool:
        return self._connection.drained is not None

    def begin(self, status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> None:
        """Hold the head back for the first write, so that a short answer is one packet."""
        request = self.request
        parts = [_head_start(status, headers), _date_line(int(time()))]
        if length is not None:
            parts.append(b"content-length: %d\r\n" % length)
            self._missing = length
        elif request.version == "1.1":
            parts.append(b"transfer-encoding: chunked\r\n")
            self._chunked = True
        else:
            self._is_last = True
        if self._is_last:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._held = b"".join(parts)

    def begin_raw(self) -> None:
        """No head: what is written goes out as it is, and the connection ends with it."""
        self._is_last = True

    @property
    def leaves_connection_open(self) -> bool:
        """Whether the answer has ended in a way that another can follow it."""
        return self.finished and not self._is_last and self._missing == 0

    def write(self, payload: bytes) -> None:
        """Send `payload`, framed. Raises ClientGone when the connection did not take it."""
        if not self._chunked:
            self._missing -= len(payload)
        elif payload:
            payload = b"%x\r\n%b\r\n" % (len(payload), payload)
        if self._mute:
            payload = b""
        if self._held:
            payload, self._held = self._held + payload, b""
        if payload:
            self._connection.send(payload)

    async def drained(self) -> None:
        """Wait until the kernel took everything."""
        while (waiter := self._connection.drained) is not None:
            await waiter

    def finish(self) -> None:
        """The answer is whole: end its framing; the connection waits for the next request when it can."""
        ending = b"0\r\n\r\n" if self._chunked and not self._mute else b""
        if self._held or ending:
            self._connection.send(self._held + ending)
            self._held = b""
        self.finished = True

    def cut(self) -> None:
        """Send what was begun, then close by FIN."""
        self.write(b"")
        self._connection.close()

    def reset(self) -> None:
        """Send what was begun, then close by RST."""
        self.write(b"")
        self._connection.reset()


class Connection(asyncio.Protocol):
    """The server's side of one connection: answers its requests one after the other."""

    def __init__(self, answer: Callable[[Exchange], Coroutine[Any, Any, None]], siblings: set["Connection"]) -> None:
        self._answer = answer
        self._siblings = siblings
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_deaf = False
        self._refusal: ApiError | None = None
        self._transport: asyncio.Transport
        self.drained: asyncio.Future[None] | None = None

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._transport.set_write_buffer_limits(high=0)
        self._siblings.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._siblings.discard(self)
        self.resume_writing()
        if self._exchange is not None and self._task is not None:
            self._exchange.client_gone = True
            self._task.cancel()

    def pause_writing(self) -> None:
        self.drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self.drained = self.drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_deaf = True  # the request itself is answered; the other protocol is not spoken
        except httptools.HttpParserError as error:
            self._refusal = self._refusal or ApiError(400, f"This is no HTTP/1.1 request: {error}")
        if self._refusal is not None:
            self._refuse(self._refusal)

    # The parser's calls

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._exchange is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(body)
        else:
            self._refusal = ApiError(413, f"The body has more than {MAX_BODY_BYTES} bytes.", code="request_too_large")

    def on_message_complete(self) -> None:
        if self._refusal is not None:
            return
        request = Request(
            self._parser.get_method().decode(),
            self._target.decode("latin-1"),
            self._headers,
            b"".join(self._body),
            self._parser.get_http_version(),
            self._parser.should_keep_alive(),
        )
        self._body = []
        self._waiting.append(request)
        if len(self._waiting) >= MAX_PIPELINED:
            self._transport.pause_reading()
        if self._exchange is None:
            self._serve_next()

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = ApiError(431, f"The head has more than {MAX_HEAD_BYTES} bytes.")

    # Answering

    def _serve_next(self) -> None:
        if not self._waiting or self._transport.is_closing():
            return
        if len(self._waiting) == MAX_PIPELINED:
            self._transport.resume_reading()
        self._exchange = Exchange(self, self._waiting.popleft())
        self._task = self._loop.create_task(self._answer(self._exchange))
        self._task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        exchange, self._exchange, self._task = self._exchange, None, None
        if exchange is None or task.cancelled():
            self._transport.abort()
            return
        error = task.exception()
        if error is not None:
            if not isinstance(error, ClientGone):
                self._loop.call_exception_handler({"message": "The sandbox failed to answer", "exception": error})
            self._transport.abort()
        elif exchange.leaves_connection_open and not self._is_deaf:
            self._serve_next()
        else:
            self._transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Answer what cannot be served, say goodbye, and let the caller finish sending to nobody."""
        self._is_deaf = True
        self._waiting.clear()
        if self._exchange is not None:
            self._transport.close()
            return
        body = error.body
        head = _head_start(error.status, (("content-type", "application/json"), ("connection", "close")))
        self._transport.write(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._transport.close)

    # For Exchange and the server

    def send(self, payload: bytes) -> None:
        """Write to the kernel. Raises ClientGone when the connection is closed or closes under the write."""
        if self._transport.is_closing():
            raise ClientGone
        self._transport.write(payload)
        if self._transport.is_closing():
            raise ClientGone

    def close(self) -> None:
        """Close by FIN once all was sent."""
        self._transport.close()

    def reset(self) -> None:
        """Close by RST: no lingering, so the kernel drops what it has not sent."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def stop(self) -> asyncio.Task[None] | None:
        """End the connection now; the task that was cancelled for it, if one was."""
        task = self._task
        self._is_deaf = True
        self._waiting.clear()
        if task is None:
            self._transport.close()
        else:
            task.cancel()
        return task
