"""Keeping the answer of a request that was not in the cache: looked at on its way out, kept when it is whole."""

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from django.conf import settings

from apps.gateway.dialects.published import PUBLIC_FIELDS
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.dispatch import Exchange
from apps.gateway.kept.recorded import RecordedStream
from apps.gateway.response_cache.answers import (
    MAX_PLAIN_BYTES,
    CachedAnswer,
    is_whole,
    is_worth_keeping,
    pack,
    usage_to_keep,
)
from apps.gateway.response_cache.assembly import StreamAssembly
from apps.gateway.response_cache.store import CachedAnswers
from apps.usage.contracts import RequestClosed

_KEPT_FIELDS = tuple(name for name in PUBLIC_FIELDS if name not in ("id", "created", "model", "system_fingerprint"))


class Keeping:
    """The place of one answer: under which name, and for how long."""

    def __init__(self, answers: CachedAnswers, organization_id: str, name: str, *, ttl_s: int) -> None:
        self._answers = answers
        self._organization_id = organization_id
        self._name = name
        self._ttl_s = ttl_s

    def chat(self, exchange: Exchange, answer: dict[str, Any], closed: RequestClosed) -> None:
        """Keep a whole chat completion, if it is worth it."""
        usage = usage_to_keep(closed.tokens)
        if usage is None or not is_whole(answer) or _is_cut_by_us(exchange, answer):
            return
        kept = {name: answer[name] for name in _KEPT_FIELDS if name in answer}
        if closed.service_tier:
            kept["service_tier"] = closed.service_tier
        self.content(exchange, [write_json({**kept, "usage": usage})], closed)

    def content(self, exchange: Exchange, parts: Sequence[bytes], closed: RequestClosed) -> None:
        """Keep an answer in OpenAI's shape, if it is worth it."""
        if not is_worth_keeping(closed) or sum(map(len, parts)) > MAX_PLAIN_BYTES:
            return
        packed = pack(parts, most_bytes=settings.CACHE_MAX_BYTES)
        if packed is None:
            return
        answer = CachedAnswer(
            request_id=closed.opened.request_id,
            model=closed.opened.model,
            created_at=time.time(),
            tokens=closed.tokens,
            service_tier=closed.service_tier,
            content=packed,
            dropped=tuple(name for name in exchange.dropped if not name.startswith("stream_options.")),
            fee_ppm=closed.opened.price.fee_ppm,
        )
        self._answers.keep(self._organization_id, self._name, answer, ttl_s=self._ttl_s)

    def stream(self, source: AsyncGenerator[bytes, None], exchange: Exchange) -> AsyncGenerator[bytes, None]:
        """The same stream of a chat completion, kept when it has come to its end."""
        assembly = _BoundedAssembly()

        def over(_: bool) -> None:
            closed, parts = exchange.meter.closed, assembly.taken()
            if closed is None or parts is None:
                return
            answer = parts.answer(exchange.admission.asked.choices)
            if answer is not None:
                self.chat(exchange, answer, closed)

        return RecordedStream(source, assembly.add, over)


class _BoundedAssembly:
    """Puts a stream together as long as it is small enough to be kept."""

    def __init__(self) -> None:
        self._assembly: StreamAssembly | None = StreamAssembly()
        self._left_bytes = 16 * MAX_PLAIN_BYTES
        """A piece of some letters is an event of some hundred bytes."""

    def add(self, block: bytes) -> None:
        self._left_bytes -= len(block)
        if self._left_bytes < 0:
            self._assembly = None
        if self._assembly is not None:
            self._assembly.add(block)

    def taken(self) -> StreamAssembly | None:
        """What was put together, once."""
        assembly, self._assembly = self._assembly, None
        return assembly


def _is_cut_by_us(exchange: Exchange, answer: dict[str, Any]) -> bool:
    """Whether an output ended where its caller's money or rate did: another day it would be longer."""
    asked = exchange.admission.asked
    if asked.asked_output is not None or getattr(asked, "output_cut", None) is None:
        return False
    return any(choice.get("finish_reason") == "length" for choice in answer["choices"])
