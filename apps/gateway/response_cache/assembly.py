"""A Chat Completions stream into the whole answer that says the same, and back. Pure.

What cannot be put together without a doubt is not: then there is no whole answer."""

import time
from collections.abc import Iterator
from typing import Any, Final

from apps.gateway.dialects.order import USUAL, Step, in_order, note_order
from apps.gateway.dialects.sse import event_data, events
from apps.gateway.dialects.vendor_json import read_json, write_json

_TEXTS: Final = ("content", "refusal", "reasoning", "reasoning_content")
"""Fields of a delta whose pieces follow each other."""
_OF_CHOICE: Final = ("index", "delta", "finish_reason", "logprobs")
_DONE: Final = b"[DONE]"


class StreamAssembly:
    """Takes the events of one stream in their order."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._head: dict[str, Any] = {}
        self._is_certain = True

    def add(self, block: bytes) -> None:
        """The next events, each of them whole."""
        if not self._is_certain:
            return
        for event in events(block):
            payload = event_data(event)
            if payload and payload != _DONE:
                self._take(read_json(payload))

    def answer(self, choices: int) -> dict[str, Any] | None:
        """The whole answer without its names and usage; None when something is missing or in doubt."""
        found = [self._choices.get(index) for index in range(choices)]
        if not self._is_certain or len(self._choices) != choices:
            return None
        whole = [choice.whole(index) for index, choice in enumerate(found) if choice is not None]
        if len(whole) != choices or None in whole:
            return None
        return {"object": "chat.completion", **self._head, "choices": whole}

    def _take(self, chunk: dict[str, Any]) -> None:
        for name in ("created", "service_tier"):
            if chunk.get(name) is not None:
                self._head[name] = chunk[name]
        for told in chunk.get("choices") or ():
            index = told.get("index", 0)
            if type(index) is not int or not self._choices.setdefault(index, _Choice()).take(told):
                self._is_certain = False


class _Choice:
    """One choice as far as it came."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, list[Any]] | None = None
        self._rest: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._order: list[Step] = []

    def take(self, told: dict[str, Any]) -> bool:
        """The next piece; whether it is known what becomes of it."""
        if self._finish_reason is not None and told.get("delta"):
            return False
        delta = told.get("delta") or {}
        before = self._lengths()
        known = all(self._take_field(name, value) for name, value in delta.items() if value is not None)
        self._order += [(name, length - before[name]) for name, length in self._lengths().items()]
        if "content" in delta:
            self._message.setdefault("content", None)
        self._finish_reason = told.get("finish_reason") or self._finish_reason
        others = {name: value for name, value in told.items() if name not in _OF_CHOICE and value is not None}
        if others and not told.get("finish_reason"):
            return False
        self._rest |= others
        return known and self._take_logprobs(told.get("logprobs"))

    def _take_field(self, name: str, value: Any) -> bool:
        message = self._message
        if name == "role":
            message["role"] = value
            return True
        if name in _TEXTS:
            if not isinstance(value, str):
                return False
            message[name] = (message.get(name) or "") + value
            return True
        if name == "tool_calls":
            return isinstance(value, list) and all(map(self._take_call, value))
        if name == "function_call":
            return _joined(message.setdefault(name, {}), value)
        if name == "reasoning_details":
            message.setdefault(name, []).extend(value if isinstance(value, list) else [value])
            places = [entry.get("index") for entry in message[name] if isinstance(entry, dict)]
            are_numbers = all(type(place) is int for place in places)
            return are_numbers and len(set(places)) == len(
                message[name]
            )  # pieces of one entry would have its index again
        return False

    def _lengths(self) -> dict[str, int]:
        """How much of each field there is, as far as they have an order."""
        return {name: len(self._calls if name == "tool_calls" else self._message.get(name) or ()) for name in USUAL}

    def _take_call(self, told: Any) -> bool:
        if not isinstance(told, dict) or type(told.get("index")) is not int:
            return False
        call = self._calls.setdefault(told["index"], {})
        for name, value in told.items():
            if name == "function":
                if not _joined(call.setdefault(name, {}), value):
                    return False
            elif name != "index" and value is not None and call.setdefault(name, value) != value:
                return False
        return True

    def _take_logprobs(self, told: Any) -> bool:
        if told is None:
            return True
        if not isinstance(told, dict):
            return False
        kept = self._logprobs = self._logprobs or {}
        for name, value in told.items():
            if value is None:
                continue
            if not isinstance(value, list):
                return False
            kept.setdefault(name, []).extend(value)
        return True

    def whole(self, index: int) -> dict[str, Any] | None:
        """The choice of a whole answer; None before its finish reason came."""
        if self._finish_reason is None or sorted(self._calls) != list(range(len(self._calls))):
            return None
        message = {"role": "assistant", "content": None, **self._message}
        if self._calls:
            message["tool_calls"] = [self._calls[place] for place in sorted(self._calls)]
            message["content"] = message["content"] or None
        note_order(message, self._order)
        told = {"index": index, "message": message, "logprobs": self._logprobs}
        return {**told, "finish_reason": self._finish_reason, **self._rest}


def _joined(whole: dict[str, Any], piece: Any) -> bool:
    """Put a piece of a function call to what came before; whether it is one."""
    if not isinstance(piece, dict):
        return False
    for name, value in piece.items():
        if value is None:
            continue
        if name not in ("name", "arguments") or not isinstance(value, str):
            return False
        whole[name] = whole.get(name, "") + value
    return True


def as_stream(answer: dict[str, Any]) -> bytes:
    """A whole answer, with its usage, as the events of a stream that says the same, in few chunks."""
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": int(time.time()), "model": "kept"}
    tier = {"service_tier": answer["service_tier"]} if answer.get("service_tier") else {}
    chunks: list[dict[str, Any]] = []
    for choice in answer["choices"]:
        index = choice.get("index", 0)
        beside = {name: value for name, value in choice.items() if name not in ("message", *_OF_CHOICE)}
        said = [{"index": index, "delta": delta, "finish_reason": None} for delta in _deltas(choice["message"])]
        if choice.get("logprobs") is not None:
            said[0]["logprobs"] = choice["logprobs"]
        end = {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason"), **beside}
        chunks += [{**head, "choices": [part], **tier} for part in (*said, end)]
    chunks.append({**head, "choices": [], "usage": answer["usage"], **tier})
    return b"".join([b"data: " + write_json(chunk) + b"\n\n" for chunk in chunks]) + b"data: [DONE]\n\n"


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A whole message, or the pieces of one that names an order."""
    made = 0
    role: dict[str, Any] = {"role": "assistant"}
    for piece in in_order(message):
        delta = {**role, **{name: value for name, value in piece.items() if name not in ("role", "annotations")}}
        if piece.get("annotations"):
            delta["annotations"] = piece["annotations"]
        if isinstance(calls := piece.get("tool_calls"), list):
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls, start=made)]
            made += len(calls)
        role = {}
        yield delta
