"""Answers of Anthropic's own Messages API on their way to a client of it: as they came, under our names. Pure."""

import re
from typing import Any, Final

from apps.gateway.dialects.anthropic_envelope import stream_error
from apps.gateway.dialects.messages.answer import Usage, message_id, written
from apps.gateway.dialects.native_stream import NativeStream

_PUBLIC: Final = ("type", "role", "content", "stop_reason", "stop_sequence", "stop_details")
_OF_END: Final = ("stop_reason", "stop_sequence", "stop_details")
_USED: Final = "server_tool_use"
_PASSED: Final = ("content_block_start", "content_block_delta", "content_block_stop", "ping")


def native_message(told: dict[str, Any], *, request_id: str, model: str) -> dict[str, Any]:
    """A `Message` under our names, but for its usage."""
    ours: dict[str, Any] = {name: told[name] for name in _PUBLIC if name in told}
    return {"id": message_id(request_id), "model": model, **ours}


def tools_used(usage: Any) -> dict[str, Any]:
    """What Anthropic tells of the tools that it ran, as it stands in usage; {} where it ran none."""
    told = usage.get(_USED) if isinstance(usage, dict) else None
    if not isinstance(told, dict):
        return {}
    counts = {name: told.get(name) or 0 for name in ("web_search_requests", "web_fetch_requests")}
    return {_USED: counts} if all(type(count) is int for count in counts.values()) and any(counts.values()) else {}


class NativeMessages(NativeStream):
    """Anthropic's stream."""

    def __init__(self, *, request_id: str, model: str, usage: Usage) -> None:
        super().__init__()
        self._request_id = request_id
        self._model = model
        self._usage = usage
        self._used: dict[str, Any] = {}
        self._ending: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}

    def _ended(self) -> bytes:
        delta = {"type": "message_delta", "delta": self._ending, "usage": {**self._usage(), **self._used}}
        return written(delta) + written({"type": "message_stop"})

    def _failed(self, error: dict[str, Any]) -> bytes:
        return stream_error(error, self._request_id)

    def saw_piece(self, event: re.Match[bytes]) -> None:
        self._ready.append(event.group())

    def saw(self, told: dict[str, Any], payload: bytes) -> None:
        kind = told.get("type")
        if kind in _PASSED:
            self._ready.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), payload))
        elif kind == "message_start" and isinstance(told.get("message"), dict):
            message = native_message(told["message"], request_id=self._request_id, model=self._model)
            self._ready.append(written({"type": kind, "message": {**message, "usage": _usage_of(told["message"])}}))
        elif kind == "message_delta" and isinstance(told.get("delta"), dict):
            self._ending |= {name: told["delta"][name] for name in _OF_END if name in told["delta"]}
            self._used = tools_used(told.get("usage")) or self._used


def _usage_of(message: dict[str, Any]) -> dict[str, Any]:
    usage = message.get("usage")
    return usage if isinstance(usage, dict) else {"input_tokens": 0, "output_tokens": 0}
