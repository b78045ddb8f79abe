"""Pieces of a Chat Completions answer as content blocks of the Messages API, one after another. Pure.

The whole answer is the stream put together: there is one reading of an answer, not two."""

from typing import Any, Final

from apps.gateway.dialects.chat_pieces import TEXT, THOUGHT, Turn, text_in, thought_in
from apps.gateway.dialects.put_together import Event, Frame, Going, PutTogether
from apps.gateway.dialects.thoughts import add_pieces, is_claudes, pack
from apps.gateway.dialects.vendor_json import read_json

INVALID_JSON: Final = "INVALID_JSON"
"""Under this name Anthropic advises to hand over arguments that are no JSON."""
_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
_STOP_REASONS: Final = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class Blocks(PutTogether):
    """Makes the `content_block_*` events of one answer, in order: `add` for each piece of it, then `end`."""

    def __init__(self, answer_id: str, *, shows_thoughts: bool, stops: tuple[str, ...] = ()) -> None:
        """Unsigned thoughts are told only with `shows_thoughts`. `stops` are the caller's stop sequences."""
        super().__init__(f"toolu_{answer_id}")
        self._shows_thoughts = shows_thoughts
        self._stops = stops
        self._index = -1
        self._open = ""
        self._said: list[str] = []
        """What the open thought says so far, in pieces."""
        self._details: list[dict[str, Any]] = []
        """Thoughts of other vendors, which go back to them."""
        self._extras: dict[str, dict[str, Any]] = {}
        self._stop_sequence: str | None = None

    def _tell_said(self, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        if thought := thought_in(delta):
            self._think(thought)
        if isinstance(delta.get("reasoning_details"), list):
            self._take_details(delta["reasoning_details"])
        for text in (text_in(delta), delta.get("refusal")):
            if isinstance(text, str) and text:
                self._begin("text", {"type": "text", "text": "", "citations": []})
                self._tell({"type": "text_delta", "text": text})

    def _finish(self) -> None:
        if self._details or self._extras:
            self._carry()
        self._close()

    def _going_on(self, before: bytes) -> Going | None:
        if self._open == "text" and before == TEXT:
            return self._frame(b"text_delta", b"text"), None
        if self._open == "thinking" and before == THOUGHT and self._shows_thoughts:
            return self._frame(b"thinking_delta", b"thinking"), self._said.append
        if self._open == "tool_use" and self._is_of_call(before):
            return self._frame(b"input_json_delta", b"partial_json"), self._calls.take
        return None

    def _frame(self, kind: bytes, field: bytes) -> Frame:
        return _DELTA % (self._index, kind, field), b"}}\n\n"

    @property
    def stop(self) -> dict[str, Any]:
        """`stop_reason` and `stop_sequence`."""
        if self._stop_sequence is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": self._stop_sequence}
        reason = _STOP_REASONS.get(self._reason, "end_turn")
        if self._calls.any and reason == "end_turn":
            reason = "tool_use"
        return {"stop_reason": reason, "stop_sequence": None}

    def _note_end(self, choice: dict[str, Any]) -> None:
        if choice.get("finish_reason"):
            self._reason = str(choice["finish_reason"])
            matched = choice.get("stop_reason")  # vLLM's and SGLang's
            if self._reason == "stop" and matched in self._stops:
                self._stop_sequence = matched

    def _think(self, thought: str) -> None:
        if self._shows_thoughts:
            self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._said.append(thought)
            self._tell({"type": "thinking_delta", "thinking": thought})

    def _take_details(self, details: list[Any]) -> None:
        for entry in details:
            if not isinstance(entry, dict):
                continue
            if not is_claudes(entry):
                add_pieces(self._details, [entry])
            elif entry.get("type") == "reasoning.encrypted":
                self._begin("redacted_thinking", {"type": "redacted_thinking", "data": entry["data"]}, afresh=True)
                self._close()
            else:
                self._sign(str(entry.get("text") or ""), str(entry["signature"]))

    def _sign(self, text: str, signature: str) -> None:
        """A whole thought of Claude's: its text was told already, piece by piece, or is told now."""
        if self._open != "thinking" or "".join(self._said) != text:
            self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""}, afresh=True)
            if text:
                self._tell({"type": "thinking_delta", "thinking": text})
        self._tell({"type": "signature_delta", "signature": signature})
        self._close()

    def _carry(self) -> None:
        """What other vendors want back goes with a thought, if need be with one that says nothing."""
        if not self._shows_thoughts and not self._extras and not self._calls.any:
            return
        self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        self._tell({"type": "signature_delta", "signature": pack(self._details, self._extras)})
        self._details, self._extras = [], {}
        self._close()

    def _pass_on(self, turn: Turn) -> None:
        call = turn.call
        if turn.begins:
            if call.extra is not None:
                self._extras[call.id] = call.extra
            if self._details or self._extras:
                self._carry()
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            self._begin("tool_use", block, afresh=True)
        elif turn.ends:
            self._close()
        else:
            self._tell({"type": "input_json_delta", "partial_json": turn.piece})

    def _begin(self, kind: str, block: dict[str, Any], *, afresh: bool = False) -> None:
        if self._open == kind and not afresh:
            return
        if self._open == "thinking" and self._details and kind != "thinking":
            self._carry()
        self._close()
        self._open = kind
        self._index += 1
        self._events.append({"type": "content_block_start", "index": self._index, "content_block": block})

    def _tell(self, delta: dict[str, Any]) -> None:
        self._events.append({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> None:
        if self._open:
            self._events.append({"type": "content_block_stop", "index": self._index})
        self._open, self._said = "", []


def folded(events: list[Event]) -> list[dict[str, Any]]:
    """The content that these events make."""
    content: list[dict[str, Any]] = []
    arguments: dict[int, str] = {}
    for event in events:
        if event["type"] == "content_block_start":
            content.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            delta, block = event["delta"], content[event["index"]]
            kind = delta["type"]
            if kind == "input_json_delta":
                arguments[event["index"]] = arguments.get(event["index"], "") + delta["partial_json"]
            else:
                name = kind.removesuffix("_delta")
                block[name] += delta[name]
    for index, written in arguments.items():
        content[index]["input"] = _input(written)
    return content


def _input(arguments: str) -> dict[str, Any]:
    try:
        parsed = read_json(arguments.encode("utf-8", "surrogatepass")) if arguments.strip() else {}
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {INVALID_JSON: arguments}
