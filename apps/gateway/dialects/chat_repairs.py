"""Answers of servers that nearly speak Chat Completions, put right for clients that take OpenAI at its word. Pure.

Their quirks, each with its source: tests/conformance/quirks/ and tests/conformance/vendors/."""

import secrets
from typing import Any

from apps.gateway.dialects.chat_pieces import text_in, thought_in
from apps.gateway.dialects.published import (
    NEVER_NULL,
    OF_CHOICE,
    OF_MESSAGE,
    REASONS,
    STOP_REASON,
    TIERS,
    failure_of,
    reason_as_published,
    strip,
)
from apps.gateway.dialects.vendor_json import write_json

_ENDS: tuple[object, ...] = ("stop", "tool_calls")
"""Reasons with which a call that brought no arguments is whole."""


class _Call:
    """A call of a stream, as far as it came."""

    __slots__ = ("has_arguments", "id", "index")

    def __init__(self, index: object, call_id: object) -> None:
        self.index = index
        """Its vendor's, which may be none, or that of others too."""
        self.id = call_id
        self.has_arguments = False


class _Choice:
    """What came of one choice."""

    __slots__ = ("calls", "has_role")

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.has_role = False

    def repair(self, choice: dict[str, Any], delta: dict[str, Any]) -> bool:
        """Put a piece right; whether anything was wrong with it."""
        is_changed = False
        if "role" in delta:
            if self.has_role or delta["role"] is None:
                del delta["role"]
                is_changed = True
            self.has_role = True
        if isinstance(delta.get("content"), list):
            _flatten(delta)
            is_changed = True
        if isinstance(delta.get("tool_calls"), list):
            pieces = [piece for piece in delta["tool_calls"] if isinstance(piece, dict)]
            is_changed = sum(map(self._repair_call, pieces)) > 0 or is_changed
        if choice.get("finish_reason") in _ENDS and (bare := self._bare()):
            delta["tool_calls"] = [*(delta.get("tool_calls") or ()), *bare]
            is_changed = True
        return is_changed

    def _repair_call(self, piece: dict[str, Any]) -> bool:
        function = piece.get("function")
        if not isinstance(function, dict):
            return False
        before = len(self.calls)
        place = self._place(piece, begins=bool(function.get("name")))
        is_changed = piece.get("index") != place
        piece["index"] = place
        if place < before:
            repeated = [(holder, name) for holder, name in _heads(piece, function) if name in holder]
            for holder, name in repeated:
                del holder[name]
            is_changed = is_changed or bool(repeated)
        elif _name_call(piece):
            is_changed = True
        if not isinstance(function.get("arguments"), str):
            function["arguments"] = _as_text(function.get("arguments"), nothing="")
            is_changed = True
        self.calls[place].has_arguments |= function["arguments"] != ""
        return is_changed

    def _place(self, piece: dict[str, Any], *, begins: bool) -> int:
        """Which call a piece belongs to: vendors leave the index out, or have the same one for all."""
        index, call_id = piece.get("index"), piece.get("id")
        for place in reversed(range(len(self.calls))):
            call = self.calls[place]
            is_same = call.index == index if index is not None else not begins or call.id == call_id
            if is_same and not (begins and call_id and call.id != call_id):
                return place
        self.calls.append(_Call(index, call_id))
        return len(self.calls) - 1

    def _bare(self) -> list[dict[str, Any]]:
        """Arguments of the calls that brought none: their clients would read "" as JSON."""
        bare = [place for place, call in enumerate(self.calls) if not call.has_arguments]
        for place in bare:
            self.calls[place].has_arguments = True
        return [{"index": place, "function": {"arguments": "{}"}} for place in bare]


def _name_call(call: dict[str, Any]) -> bool:
    """Have a call say its kind, and an id to answer by; whether it did not."""
    is_named, is_typed = bool(call.get("id")), bool(call.get("type"))
    if not is_named:
        call["id"] = f"call_{secrets.token_hex(12)}"
    if not is_typed:
        call["type"] = "function"
    return not (is_named and is_typed)


def _as_text(arguments: object, *, nothing: str) -> str:
    """Arguments that came as JSON and not as its text, or not at all."""
    return write_json(arguments).decode() if arguments else nothing


def _heads(piece: dict[str, Any], function: dict[str, Any]) -> tuple[tuple[dict[str, Any], str], ...]:
    """What the first piece of a call says, and no other: clients put the pieces of a text together."""
    return ((piece, "id"), (piece, "type"), (function, "name"))


class Repairs:
    """Of one stream: takes its chunks in their order."""

    def __init__(self) -> None:
        self._choices: dict[object, _Choice] = {}

    def repair(self, chunk: dict[str, Any]) -> bool:
        """Put a chunk right where it is; whether anything was wrong with it."""
        is_changed = False
        if chunk.get("service_tier") not in TIERS:
            del chunk["service_tier"]
            is_changed = True
        for choice in chunk.get("choices") or ():
            if (reason := choice.get("finish_reason")) not in REASONS:
                choice["finish_reason"] = reason_as_published(str(reason), has_calls=False) if reason else None
                is_changed = True
            delta = choice.get("delta")
            if delta is None:
                choice["delta"] = delta = {}
                is_changed = True
            if _is_odd(choice, delta) and strip(choice):
                is_changed = True
            is_plain = len(delta) == 1 and isinstance(delta.get("content"), str) and not choice.get("finish_reason")
            if not is_plain and self._of(choice).repair(choice, delta):
                is_changed = True
        return is_changed

    def _of(self, choice: dict[str, Any]) -> _Choice:
        return self._choices.setdefault(str(choice.get("index")), _Choice())


def _is_odd(choice: dict[str, Any], delta: dict[str, Any]) -> bool:
    """Whether a choice of a stream has what may not leave."""
    return (
        STOP_REASON in choice
        or not OF_CHOICE.issuperset(choice)
        or not OF_MESSAGE.issuperset(delta)
        or (None in delta.values() and any(name in delta and delta[name] is None for name in NEVER_NULL))
    )


def repair_whole(answer: dict[str, Any]) -> None:
    """Put a whole answer right where it is. Raises GatewayError for one that is not whole."""
    if answer.get("service_tier") not in TIERS:
        del answer["service_tier"]
    for position, choice in enumerate(answer["choices"]):
        if (failure := failure_of(choice)) is not None:
            raise failure
        if type(choice.get("index")) is not int:
            choice["index"] = position
        strip(choice)
        message = choice.get("message")
        if not isinstance(message, dict):
            message = choice["message"] = {}
        _repair_message(message)
        reason = str(choice.get("finish_reason") or "")
        choice["finish_reason"] = reason_as_published(reason, has_calls="tool_calls" in message)
        if "logprobs" in choice:
            choice["logprobs"] = _logprobs(choice["logprobs"])


def _repair_message(message: dict[str, Any]) -> None:
    message["role"] = "assistant"
    message.setdefault("content", None)
    if isinstance(message["content"], list):
        _flatten(message)
    calls = message.pop("tool_calls", None)
    if calls := [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []:
        message["tool_calls"] = calls
    for call in calls:
        call.pop("index", None)
        _name_call(call)
        function = call.get("function")
        if isinstance(function, dict) and not (isinstance(function.get("arguments"), str) and function["arguments"]):
            function["arguments"] = _as_text(function.get("arguments"), nothing="{}")


def _logprobs(told: object) -> object:
    """None for those of older forms, such as Together's lists of tokens."""
    return told if isinstance(told, dict) and ("content" in told or "refusal" in told) else None


def _flatten(holder: dict[str, Any]) -> None:
    """Text that is a list of parts, as Mistral's is where there are thoughts, as text and thoughts."""
    text, thought = text_in(holder), thought_in(holder)
    holder["content"] = text or None
    if thought:
        holder["reasoning_content"] = thought
