"""Answers of OpenAI's Responses API, whole and streamed, as Chat Completions. Pure.

Source: `Response` and `ResponseStreamEvent` in the Responses reference of OpenAI, and its guide to streaming.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from apps.gateway.dialects.native_stream import Watcher
from apps.gateway.dialects.order import joined
from apps.gateway.dialects.sse import event_data
from apps.gateway.dialects.thoughts import OPENAI
from apps.gateway.dialects.vendor_json import NUMBER, STRING, read_json, text_of
from apps.gateway.providers.event_translation import (
    DONE,
    FAILED,
    FILTERED,
    GARBAGE,
    OVERLOADED,
    ChunkWriter,
    EventTranslator,
    Frame,
    read_object,
)

Item = dict[str, Any]
_PIECE: Final = re.compile(
    rb'event: (?P<kind>response\.[a-z_.]+\.delta)\ndata: \{"type":"(?P=kind)",(?:"sequence_number":\d+,)?'
    rb'(?P<at>"item_id":"[!#-\[\]-~]*","output_index":(?P<place>%b),(?:"(?:content|summary)_index":%b,)?)'
    rb'"delta":(?!"")(?P<said>%b)(?P<logprobs>,"logprobs":\[\])?(?:,"sequence_number":\d+)?(?:,"obfuscation":"\w*")?\}\n\n'
    % (NUMBER, NUMBER, STRING)
)
"""An event with a piece of text, in the order in which OpenAI writes it."""
_FIELDS: Final = {
    b"response.output_text.delta": "content",
    b"response.refusal.delta": "refusal",
    b"response.reasoning_summary_text.delta": "reasoning_content",
    b"response.reasoning_text.delta": "reasoning_content",
}
"""Kind of an event -> the field of a chat that its piece is said in."""
_OF_CALLS: Final = {
    b"response.function_call_arguments.delta": "function_call",
    b"response.custom_tool_call_input.delta": "custom_tool_call",
}
_BETWEEN_PARTS: Final = "\n\n"
"""What stands between two parts of a summary."""
_OVERLOADED_CODES: Final = ("rate_limit_exceeded", "server_is_overloaded", "slow_down", "insufficient_quota")
_FILTERED_CODES: Final = ("content_filter", "content_policy_violation", "cyber_policy_violation", "bio_policy")
_CALLS: Final = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
"""Kind of an item -> the kind of call that it is, and where its text stands."""


def whole_answer(body: bytes) -> dict[str, Any]:
    """A `Response` as a Chat Completions object. Raises ValueError when it is none, or none that ended."""
    answer = read_json(body)
    output = answer.get("output") if isinstance(answer, dict) else None
    if not isinstance(output, list) or answer.get("status") not in ("completed", "incomplete"):
        raise ValueError("no response")
    items = [item for item in output if isinstance(item, dict) and isinstance(item.get("type"), str)]
    parts = [part for item in items if item.get("type") == "message" for part in _dicts(item.get("content"))]
    message = joined(_pieces(items))
    has_calls = "tool_calls" in message
    if message["content"] is None and not has_calls:
        message["content"] = ""
    logprobs = [each for part in parts for each in _dicts(part.get("logprobs"))]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(answer, has_calls=has_calls)}
    choice["logprobs"] = {"content": logprobs, "refusal": None} if logprobs else None
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "upstream",
        "choices": [choice],
        "service_tier": answer.get("service_tier"),
        "usage": answer.get("usage"),
    }


def _pieces(items: list[Item]) -> Iterator[Item]:
    """Output items as fields of a message, one after another."""
    thoughts, has_thought = 0, False
    for item in items:
        kind = item.get("type")
        if kind in _CALLS:
            yield {"tool_calls": [_call(item)]}
        elif kind == "reasoning":
            if thought := _thought(item):
                yield {"reasoning_content": _BETWEEN_PARTS + thought if has_thought else thought}
                has_thought = True
            if details := _details(item, thoughts):
                yield {"reasoning_details": details}
            thoughts += 1
        elif kind == "message":
            for part in _dicts(item.get("content")):
                said = {"content": _word(part, "text"), "refusal": _word(part, "refusal")}
                yield {name: text for name, text in said.items() if text}


def _finish_reason(response: Item, *, has_calls: bool) -> str:
    if response.get("status") == "incomplete":
        return (
            "content_filter" if _object(response, "incomplete_details").get("reason") == "content_filter" else "length"
        )
    return "tool_calls" if has_calls else "stop"


def _call(item: Item) -> Item:
    kind, field = _CALLS[item["type"]]
    return {"id": _word(item, "call_id"), "type": kind, kind: {"name": _word(item, "name"), field: _word(item, field)}}


def _thought(item: Item) -> str:
    """What may be read of a reasoning item: its summary, or at open models its text."""
    parts = _dicts(item.get("summary")) or _dicts(item.get("content"))
    return _BETWEEN_PARTS.join(text for part in parts if (text := _word(part, "text")))


def _details(item: Item, index: int) -> list[Item]:
    """A reasoning item as entries of `reasoning_details`; none where nothing of it can be sent back."""
    sealed = _word(item, "encrypted_content")
    if not sealed:
        return []
    entry = {"type": "reasoning.encrypted", "data": sealed, "format": OPENAI, "index": index}
    summary = _BETWEEN_PARTS.join(_word(part, "text") for part in _dicts(item.get("summary")))
    return [{**entry, "summary": summary} if summary else entry]


class _Open:
    """An output item whose end is still to come."""

    __slots__ = ("call", "has_text", "kind")

    def __init__(self, kind: str, call: int = 0) -> None:
        self.kind = kind
        self.call = call
        """The place of a call among all of the answer."""
        self.has_text = False
        """Something of its text, its arguments or its thoughts came in pieces."""


class ResponsesAnswerStream(EventTranslator):
    """Translates events as they come. The answer ends with `response.completed` or `.incomplete`, which have its usage;
    a stream that ends otherwise is torn."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        super().__init__(watcher)
        self._writer = ChunkWriter()
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._thoughts = 0
        self._has_thought = False
        self._is_gap_due = False
        """Another part of a summary, or another thought, has begun since something was thought."""
        self._is_over = False
        self._going: dict[tuple[bytes, bytes], Frame] = {}
        """How a piece is told that goes on, by its kind and its place."""

    def _known_piece(self, received: bytes, at: int) -> tuple[bytes, int] | None:
        event = _PIECE.match(received, at)
        if event is None or self._is_over:
            return None
        kind, where, place, said, _ = event.groups()
        frame = self._going.get((kind, where)) or self._go_on(kind, where, int(place))
        if frame is None or text_of(said) is None:
            return None
        if self._watcher is not None:
            self._watcher.saw_piece(event)
        return frame[0] + said + frame[1], event.end()

    def _go_on(self, kind: bytes, where: bytes, place: int) -> Frame | None:
        """How a piece is told of what has begun; None for the first one of its item, and of each part of a thought."""
        opened = self._open.get(place)
        if opened is None or not opened.has_text:
            return None
        if kind in _OF_CALLS:
            if opened.kind != _OF_CALLS[kind]:
                return None
            frame = self._writer.call_frame(opened.call, *_CALLS[opened.kind])
        elif kind in _FIELDS and (_FIELDS[kind] != "reasoning_content" or self._thought_goes_on):
            frame = self._writer.frame(_FIELDS[kind])
        else:
            return None
        self._going[kind, where] = frame
        return frame

    @property
    def _thought_goes_on(self) -> bool:
        return self._has_thought and not self._is_gap_due

    def _event(self, event: bytes) -> bytes:
        self._going.clear()
        payload = event_data(event)
        if not payload or self._is_over or payload == b"[DONE]":
            return b""
        told = read_object(payload)
        if told is None:
            return GARBAGE
        if self._watcher is not None:
            self._watcher.saw(told, payload)
        read = _EVENTS.get(str(told.get("type")))
        if read is not None:
            return read(self, told)
        return self._fail(told["error"]) if told.get("error") else b""

    def _created(self, told: Item) -> bytes:
        return self._writer.delta({"role": "assistant", "content": ""})

    def _item_added(self, told: Item) -> bytes:
        item = _object(told, "item")
        return self._begun(item, _place(told))

    def _begun(self, item: Item, place: int) -> bytes:
        kind = str(item.get("type"))
        opened = self._open[place] = _Open(kind, self._calls)
        if kind not in _CALLS:
            self._is_gap_due = self._is_gap_due or kind == "reasoning"
            return b""
        self._calls += 1
        opened.has_text = bool(_word(item, _CALLS[kind][1]))
        return self._writer.delta({"tool_calls": [{"index": opened.call, **_call(item)}]})

    def _text_delta(self, told: Item) -> bytes:
        self._note_text(told)
        logprobs = _dicts(told.get("logprobs"))
        tokens = {"content": logprobs, "refusal": None} if logprobs else None
        piece = _word(told, "delta")
        return self._writer.delta({"content": piece}, logprobs=tokens) if piece or tokens else b""

    def _refusal_delta(self, told: Item) -> bytes:
        self._note_text(told)
        return self._said("refusal", _word(told, "delta"))

    def _thought_part(self, told: Item) -> bytes:
        self._is_gap_due = True
        return b""

    def _thought_delta(self, told: Item) -> bytes:
        self._note_text(told)
        return self._thought(_word(told, "delta"))

    def _thought(self, piece: str) -> bytes:
        if piece and self._is_gap_due:
            piece = _BETWEEN_PARTS + piece if self._has_thought else piece
            self._is_gap_due = False
        self._has_thought = self._has_thought or bool(piece)
        return self._said("reasoning_content", piece)

    def _call_delta(self, told: Item) -> bytes:
        opened = self._open.get(_place(told))
        piece = _word(told, "delta")
        if opened is None or opened.kind not in _CALLS or not piece:
            return b""
        opened.has_text = True
        return self._call_piece(opened, piece)

    def _call_piece(self, opened: _Open, piece: str) -> bytes:
        kind, field = _CALLS[opened.kind]
        return self._writer.delta({"tool_calls": [{"index": opened.call, kind: {field: piece}}]})

    def _item_done(self, told: Item) -> bytes:
        """What of an item did not come in pieces, and what a thought is sealed with."""
        item, place = _object(told, "item"), _place(told)
        opened = self._open.pop(place, None)
        kind = str(item.get("type"))
        if kind in _CALLS and (opened is None or opened.kind not in _CALLS):
            return self._begun(item, place)
        if kind in _CALLS and opened is not None:
            rest = "" if opened.has_text else _word(item, _CALLS[kind][1])
            return self._call_piece(opened, rest) if rest else b""
        has_text = opened is not None and opened.has_text
        if kind == "reasoning":
            return self._thought_done(item, has_text=has_text)
        return self._message_done(item) if kind == "message" and not has_text else b""

    def _thought_done(self, item: Item, *, has_text: bool) -> bytes:
        said = b""
        if not has_text:
            self._is_gap_due = True
            said = self._thought(_thought(item))
        details = _details(item, self._thoughts)
        self._thoughts += 1
        return said + (self._writer.delta({"reasoning_details": details}) if details else b"")

    def _message_done(self, item: Item) -> bytes:
        parts = _dicts(item.get("content"))
        said = [
            self._said("content", _word(part, "text")) + self._said("refusal", _word(part, "refusal")) for part in parts
        ]
        return b"".join(said)

    def _ended(self, told: Item) -> bytes:
        self._is_over = True
        response = _object(told, "response")
        reason = _finish_reason(response, has_calls=bool(self._calls))
        tier, usage = response.get("service_tier"), response.get("usage")
        end = self._writer.delta({}, finish_reason=reason, service_tier=tier)
        return end + (self._writer.usage(usage) if usage else b"") + DONE

    def _failed(self, told: Item) -> bytes:
        """What was used until then may be told: then it is what is billed."""
        response = _object(told, "response")
        usage = response.get("usage")
        return (self._writer.usage(usage) if usage else b"") + self._fail(response.get("error"))

    def _error(self, told: Item) -> bytes:
        return self._fail(told.get("error") or told)

    def _fail(self, error: Any) -> bytes:
        self._is_over = True
        code = str((error.get("code") or error.get("type")) if isinstance(error, dict) else "")
        if code in _OVERLOADED_CODES:
            return OVERLOADED
        return FILTERED if code in _FILTERED_CODES else FAILED

    def _said(self, field: str, piece: str) -> bytes:
        return self._writer.delta({field: piece}) if piece else b""

    def _note_text(self, told: Item) -> None:
        if (opened := self._open.get(_place(told))) is not None:
            opened.has_text = True


def _dicts(found: object) -> list[Item]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _object(holder: Item, name: str) -> Item:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _word(holder: Item, name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _place(told: Item) -> int:
    index = told.get("output_index")
    return index if isinstance(index, int) else 0


_EVENTS: Final[dict[str, Callable[[ResponsesAnswerStream, Item], bytes]]] = {
    "response.created": ResponsesAnswerStream._created,
    "response.output_item.added": ResponsesAnswerStream._item_added,
    "response.output_item.done": ResponsesAnswerStream._item_done,
    "response.output_text.delta": ResponsesAnswerStream._text_delta,
    "response.refusal.delta": ResponsesAnswerStream._refusal_delta,
    "response.reasoning_summary_part.added": ResponsesAnswerStream._thought_part,
    "response.reasoning_summary_text.delta": ResponsesAnswerStream._thought_delta,
    "response.reasoning_text.delta": ResponsesAnswerStream._thought_delta,
    "response.function_call_arguments.delta": ResponsesAnswerStream._call_delta,
    "response.custom_tool_call_input.delta": ResponsesAnswerStream._call_delta,
    "response.completed": ResponsesAnswerStream._ended,
    "response.incomplete": ResponsesAnswerStream._ended,
    "response.failed": ResponsesAnswerStream._failed,
    "error": ResponsesAnswerStream._error,
}
"""All others say nothing to callers of chats: parts that begin and end, what a vendor's tools do, pings."""
