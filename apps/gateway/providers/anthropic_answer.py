"""Answers of Anthropic's Messages API, whole and streamed, as Chat Completions. Pure.

Source: `Message` and `RawMessageStreamEvent` in the Messages API reference of Anthropic, and its page on streaming.
"""

import re
import time
from collections.abc import Callable
from typing import Any, Final

from apps.gateway.dialects.native_stream import Watcher
from apps.gateway.dialects.order import joined
from apps.gateway.dialects.published import STOP_REASON
from apps.gateway.dialects.sse import event_data
from apps.gateway.dialects.vendor_json import NUMBER, STRING, read_json, text_of, write_json
from apps.gateway.providers.anthropic_thinking import detail
from apps.gateway.providers.event_translation import (
    DONE,
    FAILED,
    GARBAGE,
    OVERLOADED,
    ChunkWriter,
    EventTranslator,
    Frame,
    read_object,
)

FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""A paused turn is not at its end; a reason that is not known here is one to stop."""
_THOUGHTS: Final = ("thinking", "redacted_thinking")
_TOLD_IN_PIECES: Final = ("tool_use", *_THOUGHTS)
_PIECE: Final = re.compile(
    rb'event: content_block_delta\ndata: (?P<before>\{"type": ?"content_block_delta", ?"index": ?(?P<place>%b), ?'
    rb'"delta": ?\{"type": ?"(?P<kind>text_delta", ?"text|thinking_delta", ?"thinking|input_json_delta", ?"partial_json'
    rb')": ?)(?!"")(?P<said>%b)\} *\}\n\n' % (NUMBER, STRING)
)
"""An event with a piece of text, in the order in which Anthropic writes it."""
_PIECES: Final = {
    b"text": ("text", "content"),
    b"thinking": ("thinking", "reasoning_content"),
    b"input_json": ("tool_use", ""),
}
"""Kind of a piece -> the kind of block that it goes on with, and the field of a chat that says it; "" is a call."""
_INPUT: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def whole_answer(body: bytes) -> dict[str, Any]:
    """A `Message` as a Chat Completions object. Raises ValueError when it is none."""
    answer = read_json(body)
    content = answer.get("content") if isinstance(answer, dict) else None
    if not isinstance(content, list) or not isinstance(answer.get("stop_reason"), str):
        raise ValueError("no message")
    blocks = [block for block in content if isinstance(block, dict)]
    message = joined(_piece(block, index) for index, block in enumerate(blocks))
    if message["content"] is None and "tool_calls" not in message:
        message["content"] = ""
    reason = FINISH_REASONS.get(answer["stop_reason"], "stop")
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    if met := _word(answer, "stop_sequence"):
        choice[STOP_REASON] = met
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "upstream",
        "choices": [choice],
        "usage": answer.get("usage"),
    }


def _piece(block: dict[str, Any], index: int) -> dict[str, Any]:
    """A content block as fields of a message; {} for what has no counterpart."""
    kind = block.get("type")
    if kind == "tool_use":
        return {"tool_calls": [_call(block)]}
    if kind in _THOUGHTS:
        spoken = _word(block, "thinking")
        thought = {"reasoning_content": spoken} if spoken else {}
        return {**thought, "reasoning_details": [detail(block, index)]}
    text = _word(block, "text") if kind == "text" else ""
    return {"content": text} if text else {}


def _call(block: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": _word(block, "id"),
        "type": "function",
        "function": {"name": _word(block, "name"), "arguments": write_json(block.get("input") or {}).decode()},
    }


class _Open:
    """A content block whose end is still to come."""

    __slots__ = ("call", "content", "has_arguments", "signature", "thoughts")

    def __init__(self, content: dict[str, Any], call: int = 0) -> None:
        self.content = content
        self.call = call
        """The place of a tool call among all of the answer."""
        self.has_arguments = False
        self.thoughts = [_word(content, "thinking")]
        self.signature = [_word(content, "signature")]

    def take(self, piece: str) -> None:
        """Note a piece of a thought, or of a call."""
        if self.content["type"] == "thinking":
            self.thoughts.append(piece)
        self.has_arguments = True


_Going = tuple[Frame, _Open | None]
"""How a piece is told, and the block that it is to be noted in."""


class AnthropicStream(EventTranslator):
    """Translates events of Anthropic's as they come. The answer ends with `message_stop` and never before: until then
    its finish reason is kept back, so that a torn one cannot look whole."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        super().__init__(watcher)
        self._writer = ChunkWriter()
        self._usage: dict[str, Any] = {}
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._going: dict[bytes, _Going] = {}
        """What goes on, by what stands before its text in an event."""
        self._stop_reason = self._stop_sequence = ""
        self._is_over = False

    def _known_piece(self, received: bytes, at: int) -> tuple[bytes, int] | None:
        event = _PIECE.match(received, at)
        if event is None or self._is_over:
            return None
        before, place, kind, said = event.groups()
        going = self._going.get(before) or self._go_on(before, int(place), kind)
        text = text_of(said)
        if going is None or text is None:
            return None
        (start, end), block = going
        if block is not None:
            block.take(text)
        if self._watcher is not None:
            self._watcher.saw_piece(event)
        return start + said + end, event.end()

    def _go_on(self, before: bytes, place: int, kind: bytes) -> _Going | None:
        block, (wanted, field) = self._open.get(place), _PIECES[kind.partition(b"_delta")[0]]
        if block is None or block.content.get("type") != wanted:
            return None
        frame = self._writer.frame(field) if field else self._writer.call_frame(block.call)
        self._going[before] = going = frame, None if wanted == "text" else block
        return going

    def _event(self, event: bytes) -> bytes:
        self._going.clear()
        payload = event_data(event)
        if not payload or self._is_over:
            return b""
        told = read_object(payload)
        if told is None:
            return GARBAGE
        if self._watcher is not None:
            self._watcher.saw(told, payload)
        read = _EVENTS.get(str(told.get("type")))
        return read(self, told) if read is not None else b""

    def _message_start(self, told: dict[str, Any]) -> bytes:
        self._add_usage(_object(told, "message").get("usage"))
        return self._writer.delta({"role": "assistant", "content": ""})

    def _block_start(self, told: dict[str, Any]) -> bytes:
        """A block may bring its first characters, or all of them."""
        content = _object(told, "content_block")
        kind = content.get("type")
        block = self._open[_place(told)] = _Open(content, self._calls)
        if kind == "text":
            return self._said("content", _word(content, "text"))
        if kind == "thinking":
            return self._said("reasoning_content", _word(content, "thinking"))
        if kind == "tool_use":
            self._calls += 1
            function = {"name": _word(content, "name"), "arguments": ""}
            return self._call(block, {"id": _word(content, "id"), "type": "function", "function": function})
        return b""

    def _block_delta(self, told: dict[str, Any]) -> bytes:
        delta = _object(told, "delta")
        kind = delta.get("type")
        if kind == "text_delta":
            return self._said("content", _word(delta, "text"))
        block = self._open.get(_place(told))
        if block is None or block.content.get("type") not in _TOLD_IN_PIECES:
            return b""  # a call of a tool that Anthropic runs is no call of the caller's
        if kind == "input_json_delta" and (piece := _word(delta, "partial_json")):
            block.has_arguments = True
            return self._call(block, {"function": {"arguments": piece}})
        if kind == "thinking_delta":
            block.thoughts.append(_word(delta, "thinking"))
            return self._said("reasoning_content", block.thoughts[-1])
        if kind == "signature_delta":
            block.signature.append(_word(delta, "signature"))
        return b""

    def _block_stop(self, told: dict[str, Any]) -> bytes:
        block = self._open.pop(_place(told), None)
        return b"" if block is None else self._closed(block, _place(told))

    def _closed(self, block: _Open, index: int) -> bytes:
        """What is only known at the end of a block: a whole thought with its signature, or that a tool has no
        arguments."""
        kind = block.content.get("type")
        if kind in _THOUGHTS:
            whole = {**block.content, "thinking": "".join(block.thoughts), "signature": "".join(block.signature)}
            return self._writer.delta({"reasoning_details": [detail(whole, index)]})
        if kind == "tool_use" and not block.has_arguments:
            arguments = write_json(block.content.get("input") or {}).decode()
            return self._call(block, {"function": {"arguments": arguments}})
        return b""

    def _message_delta(self, told: dict[str, Any]) -> bytes:
        delta = _object(told, "delta")
        self._stop_reason = _word(delta, "stop_reason") or self._stop_reason
        self._stop_sequence = _word(delta, "stop_sequence") or self._stop_sequence
        self._add_usage(told.get("usage"))
        return self._writer.usage(self._usage) if self._usage else b""

    def _message_stop(self, told: dict[str, Any]) -> bytes:
        self._is_over = True
        if not self._stop_reason:
            return FAILED
        reason = FINISH_REASONS.get(self._stop_reason, "stop")
        rest = [self._closed(block, index) for index, block in self._open.items()] if reason == "tool_calls" else []
        return b"".join((*rest, self._writer.ending(reason, stop=self._stop_sequence), DONE))

    def _error(self, told: dict[str, Any]) -> bytes:
        kind = _object(told, "error").get("type")
        return OVERLOADED if kind in ("overloaded_error", "rate_limit_error") else FAILED

    def _said(self, field: str, piece: str) -> bytes:
        return self._writer.delta({field: piece}) if piece else b""

    def _call(self, block: _Open, part: dict[str, Any]) -> bytes:
        return self._writer.delta({"tool_calls": [{"index": block.call, **part}]})

    def _add_usage(self, usage: object) -> None:
        """Counts are cumulative, and not all of them are told each time. What was read may be told apart only at the
        end: then the last word counts, unless it says that nothing was read at all. Output never falls."""
        told = {name: count for name, count in usage.items() if count is not None} if isinstance(usage, dict) else {}
        if not any(told.get(name) for name in _INPUT):
            told = {name: count for name, count in told.items() if name not in _INPUT or name not in self._usage}
        output, before = told.get("output_tokens"), self._usage.get("output_tokens")
        if type(output) is int and type(before) is int:
            told["output_tokens"] = max(output, before)
        self._usage |= told
        self._drop_outdated_split()

    def _drop_outdated_split(self) -> None:
        """How long the cache keeps what was written to it stands in the first event only, where it may not be known
        yet: a split that misses its total is no longer true, nor is a total that misses its split."""
        split, total = self._usage.get("cache_creation"), self._usage.get("cache_creation_input_tokens")
        if isinstance(split, dict) and type(total) is int:
            parts = sum(count for count in split.values() if type(count) is int)
            if parts != total:
                del self._usage["cache_creation" if parts < total else "cache_creation_input_tokens"]


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _word(holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _place(told: dict[str, Any]) -> int:
    index = told.get("index")
    return index if isinstance(index, int) else 0


_EVENTS: dict[str, Callable[[AnthropicStream, dict[str, Any]], bytes]] = {
    "message_start": AnthropicStream._message_start,
    "content_block_start": AnthropicStream._block_start,
    "content_block_delta": AnthropicStream._block_delta,
    "content_block_stop": AnthropicStream._block_stop,
    "message_delta": AnthropicStream._message_delta,
    "message_stop": AnthropicStream._message_stop,
    "error": AnthropicStream._error,
}
"""All others, `ping` among them, say nothing to our callers."""
