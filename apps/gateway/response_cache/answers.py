"""Kept answers: what is noted of one, what makes one worth keeping, and how it is sealed and opened."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from apps.core.crypto import seal_bytes, unseal_bytes
from apps.core.errors import ConfigurationError
from apps.gateway.kept.packing import Packing, unpacked
from apps.gateway.metering.token_usage import read_usage, to_openai
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts

MAX_PLAIN_BYTES: Final = 1_000_000
"""No answer that is longer is kept: packing and opening one takes the event loop some ten milliseconds."""
WHOLE: Final = ("stop", "tool_calls", "function_call", "length")
"""Finish reasons of answers that are as they would be again."""
KeyRing = dict[str, bytes]


class CachedAnswer(msgspec.Struct, frozen=True):
    """An answer as it is kept. `content` is JSON in OpenAI's shape, packed; `created_at` in Unix seconds."""

    request_id: str
    """Whose answer it was."""
    model: str
    created_at: float
    tokens: TokenCounts
    service_tier: str
    content: bytes
    dropped: tuple[str, ...] = ()
    fee_ppm: int | None = None
    """The part of the price that was paid for it, where an own provider key of the organization served it."""

    @property
    def plain(self) -> bytes:
        """The JSON itself."""
        return unpacked(self.content)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CachedAnswer)


def sealed(answer: CachedAnswer, *, organization_id: str, name: str, ring: KeyRing) -> bytes:
    """The answer, readable only for the same organization under the same name."""
    return seal_bytes(_encoder.encode(answer), bound_to=_binding(organization_id, name), ring=ring)


def opened(content: bytes, *, organization_id: str, name: str, ring: KeyRing) -> CachedAnswer | None:
    """The answer; None when it cannot be opened, or a version that knew another form has written it."""
    try:
        return _decoder.decode(unseal_bytes(content, bound_to=_binding(organization_id, name), ring=ring))
    except (ConfigurationError, msgspec.DecodeError):
        return None


def pack(parts: Sequence[bytes], *, most_bytes: int) -> bytes | None:
    """The parts of a content together, as it is kept; None when they are too large."""
    packing = Packing(most_bytes=most_bytes, most_plain=MAX_PLAIN_BYTES)
    for part in parts:
        packing.add(part)
    return packing.packed()


def is_worth_keeping(closed: RequestClosed) -> bool:
    """Whether a request ended with a whole answer whose usage is known for certain, and was paid in full."""
    doubts = closed.estimated or closed.review or closed.overage_nanos
    return closed.outcome is Outcome.COMPLETED and closed.http_status == 200 and not doubts


def usage_to_keep(tokens: TokenCounts) -> dict[str, Any] | None:
    """The usage from which the same tokens will be read again; None when OpenAI's has no words for them."""
    usage = to_openai(tokens)
    bound = max(tokens.all_input, tokens.all_output)
    return usage if read_usage(usage, bound=bound).tokens == tokens else None


def is_whole(answer: dict[str, Any]) -> bool:
    """Whether every choice of a chat completion came to an end of its own."""
    return all(
        isinstance(choice.get("message"), dict) and choice.get("finish_reason") in WHOLE for choice in answer["choices"]
    )


def _binding(organization_id: str, name: str) -> str:
    return f"cached answer:{organization_id}:{name}"
