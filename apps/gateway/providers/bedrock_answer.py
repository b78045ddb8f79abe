"""Answers of Bedrock's Converse and ConverseStream as Chat Completions. Pure.

Source: the shapes `ConverseResponse` and `ConverseStreamOutput` in the service model of bedrock-runtime."""

import re
import time
from collections.abc import Callable
from typing import Any, Final

from apps.gateway.dialects.order import joined
from apps.gateway.dialects.published import STOP_REASON
from apps.gateway.dialects.vendor_json import NUMBER, STRING, read_json, text_of, write_json
from apps.gateway.errors import UPSTREAM_FAILED, GatewayError
from apps.gateway.providers.anthropic_thinking import detail
from apps.gateway.providers.bedrock_eventstream import Message, MessageSplitter
from apps.gateway.providers.event_translation import DONE, FAILED, OVERLOADED, ChunkWriter, Frame

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_BROKEN: Final = ("malformed_model_output", "malformed_tool_use")
"""The model failed in the middle of its answer. What came of it so far is not what was asked for."""
_OVERLOADED: Final = ("throttlingException", "serviceUnavailableException")
_DELTA: Final = "contentBlockDelta"
_PIECE: Final = re.compile(
    rb'(?P<before>\{"contentBlockIndex":(?P<place>%b),"delta":\{"(?:text|(?P<within>reasoningContent":\{"text|toolUse":'
    rb'\{"input))":)(?!"")(?P<said>%b)(?(within)\})\}(?:,"p":"\w*")?\}' % (NUMBER, STRING)
)
"""A delta with a piece of text, in the order in which Bedrock writes it."""
_Going = tuple[Frame, list[str] | None]
"""How a piece is told, and what it is to be noted in."""


def whole_answer(body: bytes) -> dict[str, Any]:
    """A response as a Chat Completion. Raises ValueError when it is none, GatewayError when the model failed."""
    answer = read_json(body)
    message = _object(_object(answer, "output"), "message") if isinstance(answer, dict) else {}
    blocks, reason = message.get("content"), answer.get("stopReason") if isinstance(answer, dict) else None
    if not isinstance(blocks, list) or not isinstance(reason, str):
        raise ValueError("no response of Converse")
    if reason in _BROKEN:
        raise GatewayError(UPSTREAM_FAILED, "The model broke off with an answer that makes no sense.")
    choice: dict[str, Any] = {
        "index": 0,
        "message": _message(blocks),
        "logprobs": None,
        "finish_reason": _finish_reason(reason),
    }
    if met := _stop_met(answer):
        choice[STOP_REASON] = met
    whole = {
        "object": "chat.completion",
        "created": int(time.time()),
        "choices": [choice],
        "usage": answer.get("usage"),
    }
    tier = _object(answer, "serviceTier").get("type")
    return whole if tier is None else {**whole, "service_tier": tier}


class BedrockStream:
    """Translates messages of an event stream as they come. The finish reason is told with the usage, which is the last
    of them: only then the tier that served is known."""

    def __init__(self) -> None:
        self._splitter = MessageSplitter()
        self._writer = ChunkWriter()
        self._calls: dict[int, int] = {}
        """Block of a call -> which call of the answer it is."""
        self._empty_calls: set[int] = set()
        self._thoughts: dict[int, dict[str, list[str]]] = {}
        self._going: dict[bytes, _Going] = {}
        """What goes on, by what stands before its piece in a delta."""
        self._stop_reason = self._stop_met = ""
        self._is_over = False

    def feed(self, received: bytes) -> bytes:
        """The events that these bytes complete; b"" while there is none."""
        if self._is_over:
            return b""
        ready = b""
        for message in self._splitter.feed(received):
            ready += self._event(message)
        if self._splitter.is_damaged and not self._is_over:
            self._is_over = True
            return ready + FAILED
        return ready

    def end(self) -> bytes:
        """Without its usage an answer is whole all the same, once it has its stop reason."""
        return b"" if self._is_over or not self._stop_reason else self._finish(None, None)

    def _event(self, message: Message) -> bytes:
        if self._is_over:
            return b""
        if message.headers.get(":message-type") != "event":
            self._is_over = True
            return OVERLOADED if message.headers.get(":exception-type") in _OVERLOADED else FAILED
        kind = message.headers.get(":event-type", "")
        if kind == _DELTA and (passed := self._pass_on(message.payload)) is not None:
            return passed
        self._going.clear()
        read = _EVENTS.get(kind)
        if read is None:
            return b""
        try:
            told = read_json(message.payload)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            self._is_over = True
            return FAILED
        return read(self, told)

    def _pass_on(self, payload: bytes) -> bytes | None:
        """The chunk of a delta that goes on with one before it; None for any other, of which nothing is noted yet."""
        piece = _PIECE.fullmatch(payload)
        if piece is None:
            return None
        before, place, within, said = piece.groups()
        going = self._going.get(before) or self._go_on(before, int(place), within or b"")
        text = text_of(said)
        if going is None or text is None:
            return None
        (start, end), thought = going
        if thought is not None:
            thought.append(text)
        return start + said + end

    def _go_on(self, before: bytes, index: int, within: bytes) -> _Going | None:
        thought = None
        if not within:
            frame = self._writer.frame("content")
        elif within.startswith(b"toolUse"):
            if index not in self._calls or index in self._empty_calls:
                return None
            frame = self._writer.call_frame(self._calls[index])
        else:
            thought = self._thoughts.get(index, {}).get("text")
            if thought is None:
                return None
            frame = self._writer.frame("reasoning_content")
        self._going[before] = going = frame, thought
        return going

    def _message_start(self, told: dict[str, Any]) -> bytes:
        return self._writer.delta({"role": "assistant", "content": None})

    def _block_start(self, told: dict[str, Any]) -> bytes:
        call = _object(told, "start").get("toolUse")
        if not isinstance(call, dict):
            return b""
        index = _place(told)
        self._calls[index] = len(self._calls)
        self._empty_calls.add(index)
        function = {"name": _word(call, "name"), "arguments": ""}
        return self._call(index, {"id": _word(call, "toolUseId"), "type": "function", "function": function})

    def _block_delta(self, told: dict[str, Any]) -> bytes:
        delta, index = _object(told, "delta"), _place(told)
        text, piece = delta.get("text"), _object(delta, "toolUse").get("input")
        if isinstance(text, str) and text:
            return self._writer.delta({"content": text})
        if isinstance(piece, str) and piece and index in self._calls:
            self._empty_calls.discard(index)
            return self._call(index, {"function": {"arguments": piece}})
        return self._thought(_object(delta, "reasoningContent"), index)

    def _thought(self, piece: dict[str, Any], index: int) -> bytes:
        if not piece:
            return b""
        thought = self._thoughts.setdefault(index, {})
        for name in ("text", "signature", "redactedContent"):
            if isinstance(piece.get(name), str):
                thought.setdefault(name, []).append(piece[name])
        text = piece.get("text")
        return self._writer.delta({"reasoning_content": text}) if isinstance(text, str) and text else b""

    def _block_stop(self, told: dict[str, Any]) -> bytes:
        """What is only known at the end of a block: a whole thought with its signature, or that a call has no input."""
        index = _place(told)
        if index in self._empty_calls:
            self._empty_calls.discard(index)
            return self._call(index, {"function": {"arguments": "{}"}})
        thought = {name: "".join(pieces) for name, pieces in self._thoughts.pop(index, {}).items()}
        details = _details(thought, index)
        return self._writer.delta({"reasoning_details": details}) if details else b""

    def _message_stop(self, told: dict[str, Any]) -> bytes:
        self._stop_reason = str(told.get("stopReason") or "end_turn")
        self._stop_met = _stop_met(told)
        if self._stop_reason in _BROKEN:
            self._is_over = True
            return FAILED
        return b""

    def _metadata(self, told: dict[str, Any]) -> bytes:
        if not self._stop_reason:
            return b""
        return self._finish(told.get("usage"), _object(told, "serviceTier").get("type")) + DONE

    def _finish(self, usage: object, service_tier: object) -> bytes:
        self._is_over = True
        reason = _finish_reason(self._stop_reason)
        return self._writer.ending(reason, stop=self._stop_met, usage=usage, service_tier=service_tier)

    def _call(self, index: int, part: dict[str, Any]) -> bytes:
        return self._writer.delta({"tool_calls": [{"index": self._calls[index], **part}]})


def _message(blocks: list[Any]) -> dict[str, Any]:
    return joined(_as_fields(block, index) for index, block in enumerate(blocks) if isinstance(block, dict))


def _as_fields(block: dict[str, Any], index: int) -> dict[str, Any]:
    """A block as fields of a message; {} for what has no counterpart."""
    if isinstance(block.get("text"), str):
        return {"content": block["text"]} if block["text"] else {}
    if "toolUse" in block:
        call = _object(block, "toolUse")
        function = {"name": _word(call, "name"), "arguments": write_json(call.get("input") or {}).decode()}
        return {"tool_calls": [{"id": _word(call, "toolUseId"), "type": "function", "function": function}]}
    if "citationsContent" in block:
        pieces = _object(block, "citationsContent").get("content")
        pieces = pieces if isinstance(pieces, list) else []
        texts = [str(each.get("text", "")) for each in pieces if isinstance(each, dict)]
        return {"content": "".join(texts)} if texts else {}
    reasoning = _object(block, "reasoningContent")
    thought = {**_object(reasoning, "reasoningText"), **reasoning}
    fields = {"reasoning_content": thought["text"]} if isinstance(thought.get("text"), str) else {}
    details = _details(thought, index)
    return {**fields, "reasoning_details": details} if details else fields


def _details(thought: dict[str, Any], index: int) -> list[dict[str, Any]]:
    """A thought as it is sent back in the next turn, in the form of Claude's own API: what is not signed is not."""
    if isinstance(thought.get("redactedContent"), str):
        return [detail({"type": "redacted_thinking", "data": thought["redactedContent"]}, index)]
    if isinstance(thought.get("signature"), str):
        return [detail({"thinking": thought.get("text", ""), "signature": thought["signature"]}, index)]
    return []


def _place(told: dict[str, Any]) -> int:
    index = told.get("contentBlockIndex")
    return index if isinstance(index, int) else 0


def _stop_met(told: dict[str, Any]) -> str:
    """The stop sequence that Claude met, which is told where it was asked for: whole answers and streams have it at
    other places."""
    fields = _object(told, "additionalModelResponseFields")
    return _word(fields, "stop_sequence") or _word(_object(fields, "delta"), "stop_sequence")


def _finish_reason(reason: str) -> str:
    return _FINISH_REASONS.get(reason, "stop")


def _word(holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


_EVENTS: Final[dict[str, Callable[[BedrockStream, dict[str, Any]], bytes]]] = {
    "messageStart": BedrockStream._message_start,
    "contentBlockStart": BedrockStream._block_start,
    _DELTA: BedrockStream._block_delta,
    "contentBlockStop": BedrockStream._block_stop,
    "messageStop": BedrockStream._message_stop,
    "metadata": BedrockStream._metadata,
}
