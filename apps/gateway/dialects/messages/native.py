"""Answers of Anthropic's own Messages API on their way to a client of it: as they came, under our names. Pure."""

from typing import Any, Final, Protocol

from apps.gateway.dialects.anthropic_envelope import stream_error
from apps.gateway.dialects.messages.answer import Usage, message_id, written
from apps.gateway.dialects.sse import EventSplitter, event_data, events
from apps.gateway.dialects.vendor_json import read_json

_PUBLIC: Final = ("type", "role", "content", "stop_reason", "stop_sequence", "stop_details")
_OF_END: Final = ("stop_reason", "stop_sequence", "stop_details")
_PASSED: Final = ("content_block_start", "content_block_delta", "content_block_stop", "ping")
_DONE: Final = b"data: [DONE]\n\n"
_FAILED: Final = b'data: {"error":'
_NOTHING: Final = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":null}]}\n\n'
"""A piece of a chat that says nothing: what was kept back may go with it."""


class Translator(Protocol):
    """What makes a chat of the same stream."""

    def feed(self, received: bytes) -> bytes:
        """The chat's events that these bytes complete."""

    def end(self) -> bytes:
        """What was still to be said."""


def native_message(told: dict[str, Any], *, request_id: str, model: str) -> dict[str, Any]:
    """A `Message` under our names, but for its usage."""
    ours: dict[str, Any] = {name: told[name] for name in _PUBLIC if name in told}
    return {"id": message_id(request_id), "model": model, **ours}


class NativeStream:
    """Anthropic's stream under our names, kept back until the same in the form of a chat was let pass: that is what is
    billed, held for and cut. It is the translator of that chat, too."""

    def __init__(self, inner: Translator, *, request_id: str, model: str, usage: Usage) -> None:
        self._inner = inner
        self._request_id = request_id
        self._model = model
        self._usage = usage
        self._splitter = EventSplitter()
        self._ready: list[bytes] = []
        self._ending: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}
        self._has_ping = False
        self._is_over = False

    def feed(self, received: bytes) -> bytes:
        """The chat's events, which the relay looks at. A ping is to go on at once, while the model says nothing."""
        for event in events(self._splitter.feed(received)):
            self._take(event)
        chat, has_ping = self._inner.feed(received), self._has_ping
        self._has_ping = False
        return chat or (_NOTHING if has_ping else b"")

    def end(self) -> bytes:
        """What the chat's translator still has to say."""
        return self._inner.end()

    def passed(self, block: bytes) -> bytes:
        """What the client gets for these events of the chat."""
        if self._is_over:
            return b""
        if block.startswith(_FAILED):
            self._is_over = True
            return stream_error(read_json(event_data(block.strip()))["error"], self._request_id)
        ready, self._ready = b"".join(self._ready), []
        if not block.endswith(_DONE):
            return ready
        self._is_over = True
        delta = {"type": "message_delta", "delta": self._ending, "usage": self._usage()}
        return ready + written(delta) + written({"type": "message_stop"})

    def _take(self, event: bytes) -> None:
        payload = event_data(event)
        try:
            told = read_json(payload)
        except ValueError:
            return  # the chat's translator tells what becomes of garbage
        kind = told.get("type") if isinstance(told, dict) else None
        if kind in _PASSED:
            self._has_ping |= kind == "ping"
            self._ready.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), payload))
        elif kind == "message_start" and isinstance(told.get("message"), dict):
            message = native_message(told["message"], request_id=self._request_id, model=self._model)
            self._ready.append(written({"type": kind, "message": {**message, "usage": _usage_of(told["message"])}}))
        elif kind == "message_delta" and isinstance(told.get("delta"), dict):
            self._ending |= {name: told["delta"][name] for name in _OF_END if name in told["delta"]}


def _usage_of(message: dict[str, Any]) -> dict[str, Any]:
    usage = message.get("usage")
    return usage if isinstance(usage, dict) else {"input_tokens": 0, "output_tokens": 0}
