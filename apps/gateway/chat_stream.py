"""A Chat Completions stream on its way through: watched for output, usage, errors and its end. Pure.

Every event is parsed (about 1 us) to be watched, but its own bytes go on: only the upstream's model name, completion
id and fingerprint are replaced, as byte sequences. Quotes inside JSON strings are escaped, so such a sequence can only
be a key of the chunk itself.
"""

import json
import re
from typing import Any

import orjson

from apps.gateway.errors import UPSTREAM_FAILED, GatewayError
from apps.gateway.sse import EventSplitter, event_data, events
from apps.gateway.token_usage import UsageInvalid, from_openai
from apps.usage.contracts import TokenCounts

_IDENTITY = {
    name: re.compile(rb'"' + name.encode() + rb'"\s*:\s*"(?:[^"\\]|\\.)*"')
    for name in ("id", "model", "system_fingerprint")
}
_DONE = b"[DONE]"
_OUTPUT_FIELDS = ("content", "tool_calls", "reasoning_content", "reasoning", "refusal")


class ChatStream:
    """Turns an upstream's bytes into ours. After `end()` the totals tell what to bill."""

    def __init__(self, *, completion_id: str, model: str, token_bound: int) -> None:
        self._splitter = EventSplitter()
        self._token_bound = token_bound
        self._ours = {"id": completion_id, "model": model, "system_fingerprint": None}
        self._theirs: tuple[object, ...] = ()
        self._replacements: list[tuple[bytes, bytes]] = []
        self._created = 0
        self._is_done = False
        self.failure: GatewayError | None = None
        self.tokens: TokenCounts | None = None
        self.output_count = 0
        """Pieces of output: one token or more each, so never more than was produced."""
        self.finish_reason = ""
        self.skipped_events = 0

    def feed(self, received: bytes) -> bytes:
        """What to send for these bytes; b"" while an event is incomplete.

        Sets `failure` when the upstream reports an error or sends what cannot be relayed: what came before that in the
        same read is still to be sent."""
        block = self._splitter.feed(received)
        sent = b"".join([self._event(event) for event in events(block)]) if block else b""
        if self._splitter.is_overfull and self.failure is None:
            self.failure = GatewayError(UPSTREAM_FAILED, "The upstream sent an event that is too large.")
        return sent

    def end(self) -> bytes:
        """The upstream closed the connection; what remains to be sent of its last event.

        Sets `failure` when the answer is not whole: neither `[DONE]` nor a finish reason was seen."""
        sent = self._event(self._splitter.rest())
        if self.failure is None and not self._is_done and not self.finish_reason:
            message = "The upstream ended the stream before the answer was complete."
            self.failure = GatewayError(UPSTREAM_FAILED, message)
        return sent

    def closing_events(self, usage: dict[str, Any]) -> bytes:
        """The last two events of a whole answer: usage in a chunk of its own, and `[DONE]`."""
        chunk: dict[str, Any] = {
            "id": self._ours["id"],
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._ours["model"],
            "choices": [],
            "usage": usage,
        }
        return b"data: " + orjson.dumps(chunk) + b"\n\ndata: [DONE]\n\n"

    def _event(self, event: bytes) -> bytes:
        payload = event_data(event)
        if not payload or self._is_done or self.failure is not None:
            return b""
        if payload == _DONE:
            self._is_done = True
            return b""
        chunk = _parse(payload)
        if chunk is None:
            self.skipped_events += 1
            return b""
        if chunk.get("error"):
            self.failure = GatewayError(UPSTREAM_FAILED, "The upstream reported an error while answering.")
            return b""
        usage = chunk.get("usage")
        if usage is not None:
            self._take_usage(usage)
            if not chunk.get("choices"):
                return b""
            payload = orjson.dumps({name: value for name, value in chunk.items() if name != "usage"})
        self._watch(chunk)
        return b"data: " + self._as_ours(payload, chunk) + b"\n\n"

    def _as_ours(self, payload: bytes, chunk: dict[str, Any]) -> bytes:
        theirs = (chunk.get("id"), chunk.get("model"), chunk.get("system_fingerprint"), payload[:7])
        if theirs != self._theirs:
            self._theirs = theirs
            self._learn(payload, chunk)
        for their_bytes, our_bytes in self._replacements:
            payload = payload.replace(their_bytes, our_bytes)
        return payload

    def _learn(self, payload: bytes, chunk: dict[str, Any]) -> None:
        """Find the exact bytes in which this upstream writes its identity: they are the same in every chunk."""
        self._created = chunk["created"] if isinstance(chunk.get("created"), int) else self._created
        self._replacements = []
        for name, pattern in _IDENTITY.items():
            if isinstance(chunk.get(name), str) and (found := pattern.search(payload)):
                ours = b'"' + name.encode() + b'":' + orjson.dumps(self._ours[name])
                self._replacements.append((found.group(), ours))

    def _watch(self, chunk: dict[str, Any]) -> None:
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if any(delta.get(field) for field in _OUTPUT_FIELDS):
                self.output_count += 1
            if choice.get("finish_reason"):
                self.finish_reason = str(choice["finish_reason"])

    def _take_usage(self, usage: object) -> None:
        """The last usage counts: vendors repeat it, cumulatively. One that cannot be billed counts as none."""
        try:
            self.tokens = from_openai(usage, bound=self._token_bound)
        except UsageInvalid:
            self.tokens = None


def _parse(payload: bytes) -> dict[str, Any] | None:
    """The parsed chunk; None for garbage, which is skipped: one bad line does not spoil a good answer.

    Half an emoji as a lone surrogate escape is legal here and refused by orjson, hence the second parser."""
    try:
        chunk = orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            chunk = json.loads(payload)
        except (ValueError, RecursionError):
            return None
    if not isinstance(chunk, dict) or not _is_chunk(chunk):
        return None
    return chunk


def _is_chunk(chunk: dict[str, Any]) -> bool:
    choices = chunk.get("choices")
    return choices is None or (
        isinstance(choices, list)
        and all(isinstance(choice, dict) and isinstance(choice.get("delta"), dict | None) for choice in choices)
    )
