"""A Django HttpRequest made from an ASGI scope and a whole body, without what the data path never reads."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from django.http import HttpRequest, QueryDict

_IDEMPOTENCY_KEY: Final = "HTTP_IDEMPOTENCY_KEY"
"""May have commas within, so what came more than once is joined by what no header can have: line feeds."""


class LeanRequest(HttpRequest):
    """Method, path, headers and body. No cookies, no uploads, no session."""

    def __init__(self, scope: Mapping[str, Any], body: bytes, request_id: str) -> None:
        self.method = scope["method"]
        self.path = self.path_info = scope["path"]
        self.META = headers_meta(scope)
        self.content_type = self.META.get("CONTENT_TYPE", "")
        self.content_params = {}
        self.resolver_match = None
        self.request_id = request_id
        self._body = body
        self._stream = BytesIO()
        self._read_started = True
        self._query = scope.get("query_string", b"")

    @property
    def GET(self) -> QueryDict:  # type: ignore[override]  # read so rarely that it is parsed when asked for
        return QueryDict(self._query.decode("latin-1"))


def headers_meta(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Headers under their WSGI names. A header with an underscore is dropped: it could pose as one with a hyphen."""
    client = scope.get("client")
    meta: dict[str, Any] = {"REQUEST_METHOD": scope["method"], "REMOTE_ADDR": client[0] if client else ""}
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
