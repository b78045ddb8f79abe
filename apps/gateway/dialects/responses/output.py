"""Pieces of a Chat Completions answer as output items of the Responses API, one after another. Pure.

The whole answer is what the events of its stream leave behind: there is one reading of an answer, not two."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from apps.gateway.dialects.chat_pieces import TEXT, THOUGHT, Call, Turn, text_in, thought_in
from apps.gateway.dialects.put_together import Frame, Going, PutTogether
from apps.gateway.dialects.responses.custom_tools import text_of_call
from apps.gateway.dialects.responses.namespaces import Member
from apps.gateway.dialects.thoughts import add_pieces, pack

NO_MEMBERS: Final[Mapping[str, Member]] = MappingProxyType({})
_ARGUMENTS: Final = ("arguments", "function_call_arguments")
"""Where the text of a function's call stands, and how its events are named."""
_DELTA: Final = (
    b'event: response.%b.delta\ndata: {"type":"response.%b.delta","item_id":"%b","output_index":%d,%b"delta":'
)
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Output(PutTogether):
    """Makes the events of one answer's items, in order: `add` for each piece of it, then `end`. `items` are those that
    are done."""

    def __init__(
        self,
        answer_id: str,
        *,
        shows_thoughts: bool,
        wants_encrypted: bool,
        custom_tools: frozenset[str] = frozenset(),
        members: Mapping[str, Member] = NO_MEMBERS,
        is_stored: bool = False,
    ) -> None:
        """Thoughts are told as a summary with `shows_thoughts`, and as what the next request sends back with
        `wants_encrypted`. Who stores the answer finds the latter in `carried` in any case. `members` are functions that
        stand for tools of namespaces."""
        self._answer_id = answer_id
        self._shows_thoughts = shows_thoughts
        self._wants_encrypted = wants_encrypted
        self._custom_tools = custom_tools
        self._is_stored = is_stored
        self.carried: dict[str, str] = {}
        """What vendors want back with an item, by its id: packed, as it stands in encrypted reasoning."""
        self._members = members
        super().__init__(f"call_{answer_id}")
        self.items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        """The item that is not done yet."""
        self._said: list[str] = []
        """The text of the open part, in pieces."""
        self._thought: list[str] = []
        self._details: list[dict[str, Any]] = []

    def _tell_said(self, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        if thought := thought_in(delta):
            self._think(thought)
        if isinstance(delta.get("reasoning_details"), list):
            self._begin_reasoning()
            add_pieces(self._details, delta["reasoning_details"])
        if text := text_in(delta):
            self._say("output_text", text, _logprobs(choice))
        if isinstance(delta.get("refusal"), str) and delta["refusal"]:
            self._say("refusal", delta["refusal"], [])

    def _note_end(self, choice: dict[str, Any]) -> None:
        self._reason = str(choice.get("finish_reason") or self._reason)

    def _finish(self) -> None:
        self._close("incomplete" if self.incomplete else "completed")

    def _going_on(self, before: bytes) -> Going | None:
        item = self._open
        if item is None:
            return None
        kind = item["type"]
        if kind == "message" and before == TEXT and item["content"][-1]["type"] == "output_text":
            place = b'"content_index":%d,' % (len(item["content"]) - 1)
            return self._frame(b"output_text", place, b',"logprobs":[]'), self._said.append
        if kind == "reasoning" and before == THOUGHT and item["summary"]:
            return self._frame(b"reasoning_summary_text", b'"summary_index":0,'), self._thought.append
        if kind == "function_call" and self._is_of_call(before):
            return self._frame(b"function_call_arguments"), self._take_arguments
        return None

    def _frame(self, kind: bytes, place: bytes = b"", more: bytes = b"") -> Frame:
        item_id = self._open["id"] if self._open is not None else ""
        before = _DELTA % (kind, kind, item_id.encode(), len(self.items), place)
        return before, b'%b,"sequence_number":' % more

    def _take_arguments(self, piece: str) -> None:
        self._calls.take(piece)
        if self._open is not None:
            self._open["arguments"] += piece

    @property
    def incomplete(self) -> str:
        """Why the answer is not complete; "" when it is."""
        return _INCOMPLETE.get(self._reason, "")

    @property
    def text(self) -> str:
        """All text of the items that are done."""
        parts = [part for item in self.items if item["type"] == "message" for part in item["content"]]
        return "".join(part["text"] for part in parts if part["type"] == "output_text")

    def _think(self, thought: str) -> None:
        self._begin_reasoning()
        item = self._open
        self._thought.append(thought)
        if not self._shows_thoughts or item is None:
            return
        place = {"item_id": item["id"], "output_index": len(self.items), "summary_index": 0}
        if not item["summary"]:
            item["summary"].append({"type": "summary_text", "text": ""})
            part = {"type": "summary_text", "text": ""}
            self._tell("response.reasoning_summary_part.added", **place, part=part)
        self._tell("response.reasoning_summary_text.delta", **place, delta=thought)

    def _begin_reasoning(self) -> None:
        if self._open is None or self._open["type"] != "reasoning":
            self._begin({"type": "reasoning", "id": self._id("rs"), "summary": []})

    def _say(self, kind: str, piece: str, logprobs: list[Any]) -> None:
        if self._open is None or self._open["type"] != "message":
            self._begin(
                {"type": "message", "id": self._id("msg"), "status": "in_progress", "role": "assistant", "content": []}
            )
        item = self._open
        if item is None:
            return
        if not item["content"] or item["content"][-1]["type"] != kind:
            self._close_part(item)
            item["content"].append(_empty_part(kind))
            self._tell("response.content_part.added", **self._place(item), part=_empty_part(kind))
        self._said.append(piece)
        more = {}
        if kind == "output_text":
            item["content"][-1]["logprobs"] += logprobs
            more = {"logprobs": logprobs}
        self._tell(f"response.{kind}.delta", **self._place(item), delta=piece, **more)

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"item_id": item["id"], "output_index": len(self.items), "content_index": len(item["content"]) - 1}

    def _pass_on(self, turn: Turn) -> None:
        call = turn.call
        if turn.begins:
            if call.extra is not None and self._wants_encrypted:
                self._begin_reasoning()  # what a vendor signed its call with goes with a thought before it
                self._close("completed", extras={call.id: call.extra})
            self._begin(self._call_item(call))
            if call.extra is not None and self._is_stored and not self._wants_encrypted and self._open is not None:
                self.carried[self._open["id"]] = pack([], {call.id: call.extra})
        elif turn.ends:
            self._end_call(call)
        elif self._open is not None and (call.is_custom or self._open["type"] == "function_call"):
            place = {"item_id": self._open["id"], "output_index": len(self.items)}
            field, kind = ("input", "custom_tool_call_input") if call.is_custom else _ARGUMENTS
            self._open[field] += turn.piece
            self._tell(f"response.{kind}.delta", **place, delta=turn.piece)

    def _call_item(self, call: Call) -> dict[str, Any]:
        member = self._members.get(call.name)
        named = {"name": call.name} if member is None else {"name": member.name, "namespace": member.namespace}
        if call.is_custom or call.name in self._custom_tools:
            item = {"type": "custom_tool_call", "id": self._id("ctc"), "call_id": call.id, **named}
            return item | {"input": "", "status": "in_progress"}
        item = {"type": "function_call", "id": self._id("fc"), "call_id": call.id, **named}
        return item | {"arguments": "", "status": "in_progress"}

    def _end_call(self, call: Call) -> None:
        item = self._open
        if item is None:
            return
        place = {"item_id": item["id"], "output_index": len(self.items)}
        if item["type"] == "custom_tool_call":
            if not call.is_custom:
                item["input"] = text_of_call(call.arguments)
                self._tell("response.custom_tool_call_input.delta", **place, delta=item["input"])
            self._tell("response.custom_tool_call_input.done", **place, input=item["input"])
        else:
            if not item["arguments"] and not self.incomplete:
                item["arguments"] = "{}"
                self._tell("response.function_call_arguments.delta", **place, delta="{}")
            arguments = item["arguments"]
            self._tell("response.function_call_arguments.done", **place, name=item["name"], arguments=arguments)
        is_cut = bool(self.incomplete) and not call.is_whole
        self._close("incomplete" if is_cut else "completed")

    def _begin(self, item: dict[str, Any]) -> None:
        self._close("completed")
        self._open = item
        shown = {**item, **({"content": []} if item["type"] == "message" else {})}
        shown |= {"summary": []} if item["type"] == "reasoning" else {}
        self._tell("response.output_item.added", output_index=len(self.items), item=shown)

    def _close(self, status: str, extras: dict[str, dict[str, Any]] | None = None) -> None:
        item, self._open = self._open, None
        if item is None:
            return
        if item["type"] == "reasoning":
            self._close_reasoning(item, extras or {})
        else:
            if item["type"] == "message":
                self._close_part(item)
            item["status"] = status
        self._tell("response.output_item.done", output_index=len(self.items), item=item)
        self.items.append(item)

    def _close_part(self, item: dict[str, Any]) -> None:
        if not item["content"]:
            return
        part = item["content"][-1]
        part["refusal" if part["type"] == "refusal" else "text"] = "".join(self._said)
        self._said = []
        if part["type"] == "refusal":
            self._tell("response.refusal.done", **self._place(item), refusal=part["refusal"])
        else:
            said = {"text": part["text"], "logprobs": part["logprobs"]}
            self._tell("response.output_text.done", **self._place(item), **said)
        self._tell("response.content_part.done", **self._place(item), part=part)

    def _close_reasoning(self, item: dict[str, Any], extras: dict[str, dict[str, Any]]) -> None:
        if item["summary"]:
            place = {"item_id": item["id"], "output_index": len(self.items), "summary_index": 0}
            part = item["summary"][0]
            part["text"] = "".join(self._thought)
            self._tell("response.reasoning_summary_text.done", **place, text=part["text"])
            self._tell("response.reasoning_summary_part.done", **place, part=part)
        if self._wants_encrypted or self._is_stored:
            thought = "".join(self._thought)
            unsigned = [{"type": "reasoning.text", "text": thought}] if thought else []
            carried = [entry for entry in self._details if "format" in entry] or unsigned
            if sealed := pack(carried, extras):
                self.carried[item["id"]] = sealed
                if self._wants_encrypted:
                    item["encrypted_content"] = sealed
        self._thought, self._details = [], []

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._answer_id}{len(self.items) + (self._open is not None):02x}"

    def _tell(self, kind: str, **fields: Any) -> None:
        self._events.append({"type": kind, **fields})


def _empty_part(kind: str) -> dict[str, Any]:
    if kind == "refusal":
        return {"type": "refusal", "refusal": ""}
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _logprobs(choice: dict[str, Any]) -> list[Any]:
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    return [_logprob(each) for each in content if isinstance(each, dict)] if isinstance(content, list) else []


def _logprob(token: dict[str, Any]) -> dict[str, Any]:
    """A token as both APIs have it; what vendors leave out is there."""
    tops = token.get("top_logprobs")
    return {
        **_one(token),
        "top_logprobs": [_one(each) for each in tops if isinstance(each, dict)] if isinstance(tops, list) else [],
    }


def _one(token: dict[str, Any]) -> dict[str, Any]:
    text = str(token.get("token", ""))
    told = token.get("bytes")
    written = told if isinstance(told, list) else list(text.encode(errors="replace"))
    return {"token": text, "logprob": float(token.get("logprob") or 0.0), "bytes": written}
