"""A request as views see it: made from an ASGI scope and a whole body, with nothing that the data path never reads."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

from apps.gateway.dialects.large_body import Body, LargeBody, cut_in_steps
from apps.gateway.server.heartbeat import Heartbeat

StartHeartbeat = Callable[[bytes], "Heartbeat"]
"""Given what stands before the body of an error that is an event."""
_IDEMPOTENCY_KEY: Final = "HTTP_IDEMPOTENCY_KEY"
"""May have commas within, so what came more than once is joined by what no header can have: line feeds."""


class LeanRequest:
    """Method, path, headers and body. No cookies, no uploads, no session."""

    __slots__ = ("META", "_large", "_query", "body", "heartbeat", "method", "path", "request_id", "start_heartbeat")

    def __init__(self, scope: Mapping[str, Any], body: bytes, request_id: str) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.META = headers_meta(scope)
        self.body = body
        self._large: LargeBody | None = None
        self.request_id = request_id
        self.heartbeat: Heartbeat | None = None
        """Of a stream that was asked for, once that is known."""
        self.start_heartbeat: StartHeartbeat | None = None
        """Makes it; None where nobody can send one."""
        self._query: bytes = scope.get("query_string", b"")

    async def cut_body(self) -> None:
        """Make a large body ready to be read, with turns for others."""
        steps = cut_in_steps(self.body)
        while True:
            await asyncio.sleep(0)
            try:
                next(steps)
            except StopIteration as over:
                self._large = over.value
                break
        await asyncio.sleep(0)

    def take_body(self) -> Body:
        """The body, for who reads it last: a large one is not kept beside what was made of it."""
        body: Body = self.body if self._large is None else self._large
        self.body, self._large = b"", None
        return body

    def answered(self) -> None:
        """Its view has answered: what only that reads need not stay for as long as a stream does."""
        self.META = {}
        self.body = b""
        self.start_heartbeat = None

    @property
    def query(self) -> dict[str, str]:
        """The query, of repeated names the last. It is read so rarely that it is parsed when asked for."""
        return dict(parse_qsl(self._query.decode("latin-1"), keep_blank_values=True))


def headers_meta(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Headers under their WSGI names. A header with an underscore is dropped: it could pose as one with a hyphen."""
    meta: dict[str, Any] = {}
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for name, value in headers:
        if key := _wsgi_name(name):
            text = value.decode("latin-1")
            if key in meta:
                text = f"{meta[key]}\n{text}" if key == _IDEMPOTENCY_KEY else f"{meta[key]},{text}"
            meta[key] = text
    return meta


@lru_cache(maxsize=512)
def _wsgi_name(header: bytes) -> str:
    """`HTTP_X_API_KEY` for `x-api-key`; "" for a name that is dropped."""
    if b"_" in header:
        return ""
    name = header.decode("latin-1").upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
