"""Answers that are given again: recorded on their way out, compressed, sealed, and opened for a retry."""

from typing import Final

import msgspec

from apps.core.crypto import seal_bytes, unseal_bytes
from apps.core.errors import ConfigurationError
from apps.core.money import format_usd
from apps.gateway.idempotency.claims import Found, KeyedRequest
from apps.gateway.kept.packing import Packing, unpacked
from apps.gateway.server.answer import Answer, Response

REPLAY_HEADER: Final = "x-crun-idempotent-replay"
MAX_PLAIN_BYTES: Final = 4 << 20
"""No answer that is longer before it is compressed is kept."""
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

    def __init__(self, response: Response, *, most_bytes: int) -> None:
        """`most_bytes` bounds what is kept: a longer answer is not."""
        self._status, self._headers = response.status_code, dict(response.items())
        self._packing = Packing(most_bytes=most_bytes, most_plain=MAX_PLAIN_BYTES)
        self.add = self._packing.add

    def sealed(self, keyed: KeyedRequest, ring: KeyRing) -> bytes | None:
        """All of it, readable only for the same organization, key and request; None when it is too large."""
        body = self._packing.packed()
        if body is None:
            return None
        stored = StoredAnswer(self._status, self._headers, body)
        return seal_bytes(_encoder.encode(stored), bound_to=_binding(keyed, keyed.request_id), ring=ring)


def replay(found: Found, keyed: KeyedRequest, ring: KeyRing) -> Answer | None:
    """The kept answer of the first request, byte for byte, with what it cost; None when it cannot be opened."""
    try:
        opened = unseal_bytes(found.answer, bound_to=_binding(keyed, found.request_id), ring=ring)
    except ConfigurationError:
        return None
    stored = _decoder.decode(opened)
    response = Answer(unpacked(stored.body), status=stored.status, headers=stored.headers)
    response.headers["x-crun-cost"] = format_usd(found.cost_nanos)
    response.headers[REPLAY_HEADER] = "true"
    return response


def _binding(keyed: KeyedRequest, request_id: str) -> str:
    return f"idempotent answer:{keyed.organization_id}:{keyed.name}:{keyed.body}:{request_id}"
