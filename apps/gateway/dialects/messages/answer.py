"""Answers of any upstream in the form of the Messages API, whole and as a stream. Pure.

Source: `Message` and `RawMessageStreamEvent` in the Messages API reference of Anthropic, and its page on streaming.
"""

from collections.abc import Callable
from typing import Any, Final

from apps.gateway.dialects.anthropic_envelope import stream_error
from apps.gateway.dialects.chat_pieces import PlainPieces
from apps.gateway.dialects.messages.blocks import Blocks, folded
from apps.gateway.dialects.put_together import Event
from apps.gateway.dialects.sse import event_data, events
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.usage.contracts import TokenCounts

Usage = Callable[[], dict[str, Any]]
_DONE: Final = b"[DONE]"
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'


def message_id(request_id: str) -> str:
    """The id of an answer: the request's, in the form that clients of Messages know."""
    return f"msg_{request_id.partition('_')[2]}"


def messages_counts(tokens: TokenCounts) -> dict[str, Any]:
    """The buckets as Anthropic's `MessageDeltaUsage`, whose input does not have the caches' part in it."""
    written = tokens.cache_write + tokens.cache_write_1h
    counts: dict[str, Any] = {
        "input_tokens": tokens.all_input - tokens.cache_read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": tokens.all_output,
    }
    if tokens.reasoning:
        counts["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    return counts


def messages_usage(tokens: TokenCounts, service_tier: str = "") -> dict[str, Any]:
    """The same as Anthropic's `Usage`, which says more."""
    usage = {**messages_counts(tokens), "service_tier": service_tier if service_tier == "priority" else "standard"}
    if tokens.cache_write or tokens.cache_write_1h:
        usage["cache_creation"] = {
            "ephemeral_5m_input_tokens": tokens.cache_write,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        }
    return usage


def whole_message(answer: dict[str, Any], blocks: Blocks, *, request_id: str, model: str) -> dict[str, Any]:
    """A chat completion as a `Message`, but for its usage."""
    told = blocks.add_whole(answer["choices"][0])
    content = folded([*told, *blocks.end()])
    return {**_empty(request_id, model), "content": content, **blocks.stop}


def _empty(request_id: str, model: str) -> dict[str, Any]:
    return {
        "id": message_id(request_id),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def written(event: Event) -> bytes:
    """An event on the wire."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), write_json(event))


class MessagesStream:
    """Our own stream of Chat Completions as one of Messages. It ends with `message_stop`, or with an error."""

    def __init__(self, blocks: Blocks, *, request_id: str, model: str, opening: dict[str, Any], usage: Usage) -> None:
        """`opening` is the usage that the first event tells, by our own estimate; `usage` gives the true one."""
        self._blocks = blocks
        self._request_id = request_id
        self._model = model
        self._opening = opening
        self._usage = usage
        self._plain = PlainPieces()
        self._is_begun = False
        self._is_over = False

    def feed(self, block: bytes) -> bytes:
        """The events that stand for these whole ones; b"" where nothing is to be said."""
        plain = self._plain
        if not self._is_over and plain.read(block) and (frame := self._blocks.go_on(plain)) is not None:
            before, after = frame
            told = b""
            for literal in plain.literals:
                told += before + literal + after
            return told
        return b"".join([self._event(event) for event in events(block)])

    def _event(self, event: bytes) -> bytes:
        payload = event_data(event)
        if self._is_over or not payload:
            return b""
        if payload == _DONE:
            return self._end()
        chunk = read_json(payload)
        if "error" in chunk:
            self._is_over = True
            return stream_error(chunk["error"], self._request_id)
        begun = b"" if self._is_begun else self._begin()
        told = [
            made
            for choice in chunk.get("choices") or ()
            for made in self._blocks.add(choice, choice.get("delta") or {})
        ]
        return begun + b"".join(map(written, told))

    def _begin(self) -> bytes:
        self._is_begun = True
        message = {**_empty(self._request_id, self._model), "usage": self._opening}
        return written({"type": "message_start", "message": message}) + _PING

    def _end(self) -> bytes:
        self._is_over = True
        begun = b"" if self._is_begun else self._begin()
        last: list[Event] = [
            *self._blocks.end(),
            {"type": "message_delta", "delta": self._blocks.stop, "usage": self._usage()},
            {"type": "message_stop"},
        ]
        return begun + b"".join(map(written, last))
