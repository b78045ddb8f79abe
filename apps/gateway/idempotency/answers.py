"""Answers that are given again: recorded on their way out, compressed, sealed, and opened for a retry."""

import zlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import msgspec
from django.http import HttpResponse
from django.http.response import HttpResponseBase

from apps.core.crypto import seal_bytes, unseal_bytes
from apps.core.errors import ConfigurationError
from apps.core.money import format_usd
from apps.gateway.idempotency.claims import Found, KeyedRequest

REPLAY_HEADER: Final = "x-crun-idempotent-replay"
MAX_PLAIN_BYTES: Final = 4 << 20
"""No answer that is longer before it is compressed is kept."""
_FAST: Final = 1
_SMALL_WINDOW: Final = 13
_LITTLE_MEMORY: Final = 5
"""zlib's window and memory: 32 KiB for each answer that is being recorded."""

_SLICE_BYTES: Final = 256 << 10
"""Compressed at a time, so that not much is compressed of what turns out to be too large."""

KeyRing = dict[str, bytes]


class StoredAnswer(msgspec.Struct, frozen=True):
    """An answer as it is kept; its body is compressed."""

    status: int
    headers: dict[str, str]
    body: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredAnswer)


class Recording:
    """An answer that is being sent, compressed piece by piece."""

    def __init__(self, response: HttpResponseBase, *, most_bytes: int) -> None:
        """`most_bytes` bounds what is kept: a longer answer is not."""
        self._status, self._headers = response.status_code, dict(response.items())
        self._deflate = zlib.compressobj(_FAST, zlib.DEFLATED, _SMALL_WINDOW, _LITTLE_MEMORY)
        self._parts: list[bytes] = []
        self._left_bytes, self._left_plain = most_bytes, MAX_PLAIN_BYTES

    @property
    def is_too_large(self) -> bool:
        """Whether nothing of it will be kept."""
        return self._left_bytes < 0 or self._left_plain < 0

    def add(self, part: bytes) -> None:
        """The next bytes of the answer."""
        self._left_plain -= len(part)
        for start in range(0, len(part), _SLICE_BYTES):
            if self.is_too_large:
                return
            self._keep(self._deflate.compress(part[start : start + _SLICE_BYTES]))

    def sealed(self, keyed: KeyedRequest, ring: KeyRing) -> bytes | None:
        """All of it, readable only for the same organization, key and request; None when it is too large."""
        if not self.is_too_large:
            self._keep(self._deflate.flush())
        if self.is_too_large:
            return None
        stored = StoredAnswer(self._status, self._headers, b"".join(self._parts))
        return seal_bytes(_encoder.encode(stored), bound_to=_binding(keyed, keyed.request_id), ring=ring)

    def _keep(self, compressed: bytes) -> None:
        self._left_bytes -= len(compressed)
        if self.is_too_large:
            self._parts.clear()
        elif compressed:
            self._parts.append(compressed)


class RecordedStream(AsyncGenerator[bytes, None]):
    """A stream on its way to the client, and `over` when it has ended, however that was."""

    def __init__(self, source: AsyncGenerator[bytes, None], recording: Recording, over: Callable[[bool], None]) -> None:
        """`over` is told whether the source had come to its own end; it may be called twice."""
        self._source = source
        self._recording = recording
        self._over = over

    async def asend(self, value: None) -> bytes:
        """The next part of the answer."""
        try:
            part = await self._source.asend(value)
        except StopAsyncIteration:
            self._over(True)
            raise
        self._recording.add(part)
        return part

    async def athrow(self, *error: Any) -> bytes:
        """Let the source deal with an error."""
        return await self._source.athrow(*error)

    async def aclose(self) -> None:
        """End the stream where it is."""
        try:
            await self._source.aclose()
        finally:
            self._over(False)


def replay(found: Found, keyed: KeyedRequest, ring: KeyRing) -> HttpResponse | None:
    """The kept answer of the first request, byte for byte, with what it cost; None when it cannot be opened."""
    try:
        opened = unseal_bytes(found.answer, bound_to=_binding(keyed, found.request_id), ring=ring)
    except ConfigurationError:
        return None
    stored = _decoder.decode(opened)
    response = HttpResponse(zlib.decompress(stored.body), status=stored.status, headers=stored.headers)
    response.headers["x-crun-cost"] = format_usd(found.cost_nanos)
    response.headers[REPLAY_HEADER] = "true"
    return response


def _binding(keyed: KeyedRequest, request_id: str) -> str:
    return f"idempotent answer:{keyed.organization_id}:{keyed.name}:{keyed.body}:{request_id}"
