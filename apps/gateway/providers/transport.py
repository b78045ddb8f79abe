"""The HTTP client of the data path: the only file that knows which library it is. Its errors are translated here."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from apps.core.crash_points import crash_point
from apps.gateway.providers.base import UpstreamRequest

KEEP_ALIVE_S = 15.0
"""Shorter than most servers keep theirs, so that a request rarely meets a connection that is just closing."""
MAX_ANSWER_BYTES = 64 << 20
"""A whole answer (not a stream) that is larger is refused."""
MAX_ERROR_BYTES = 64 << 10
FINISH_S = 0.05
READ_BYTES = 64 << 10
WRITE_BYTES = 256 << 10


class UpstreamUnreachable(Exception):
    """No connection, or none that took the whole request: nothing can have been charged."""


class UpstreamBroken(Exception):
    """The connection ended, or what came over it was no HTTP, after the request was sent."""


class AnswerTooLarge(UpstreamBroken):
    """More bytes than a whole answer may have."""


class UpstreamResponse:
    """Status, headers and bytes of one answer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str | None:
        """A header's value, by its lower-case name."""
        return self._response.headers.get(name)

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
        """The bytes that are there, or the next that come; b"" at the end. Raises UpstreamBroken when it is cut."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamBroken(type(error).__name__) from error

    async def finish(self) -> None:
        """Read what is left of an answer whose content is known to be over, so that its connection can be used again.

        Waits FINISH_S at most, and tells nothing: whoever calls has all that it needs."""
        with suppress(UpstreamBroken, TimeoutError):
            async with asyncio.timeout(FINISH_S):
                while await self.read_some():
                    pass

    def close(self) -> None:
        """Give the connection up. One whose answer was read to its end is back in the pool already and stays there."""
        self._response.close()


class Transport:
    """One pool of connections for all upstreams of a worker."""

    def __init__(self, *, connect_timeout_s: float) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BYTES,
        )
        self._urls: dict[str, URL] = {}

    @property
    def open_connections(self) -> int:
        """Connections that are serving a request right now."""
        connector = self._session.connector
        return len(connector._acquired) if connector is not None else 0

    async def post(self, request: UpstreamRequest, *, on_send: Callable[[], None]) -> UpstreamResponse:
        """Send a request and wait for the headers of its answer, which the caller must `close` whatever happens.

        `on_send` is called when a connection takes the request: from then on it may be charged. Redirects are not
        followed. Raises UpstreamUnreachable or UpstreamBroken."""
        try:
            response = await self._session.post(
                self._url(request.url),
                data=_Body(request.body, on_send),
                headers=request.headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamUnreachable(type(error).__name__) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamBroken(type(error).__name__) from error
        return UpstreamResponse(response)

    async def close(self) -> None:
        """Close all connections. Waits one turn of the loop so that transports are really gone."""
        await self._session.close()
        await asyncio.sleep(0)

    def _url(self, text: str) -> URL:
        url = self._urls.get(text)
        if url is None:
            url = self._urls[text] = URL(text)
        return url


class _Body(aiohttp.payload.Payload):
    """A request body that says when it is sent, and is written in pieces so that the event loop is not held up."""

    def __init__(self, body: bytes, on_send: Callable[[], None]) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self._on_send = on_send

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._on_send()
        body = memoryview(self._value)
        for start in range(0, len(body), WRITE_BYTES):
            await writer.write(body[start : start + WRITE_BYTES])
        crash_point("P4")
