"""Answers of an upstream that speaks Responses on their way to a client of it: as they came, under our names. Pure."""

import re
from collections.abc import Callable
from typing import Any, Final

from apps.gateway.dialects.native_stream import NativeStream
from apps.gateway.dialects.responses.answer import Usage, failed_response, not_kept
from apps.gateway.dialects.vendor_json import read_json, write_json

Item = dict[str, Any]
_SETTINGS: Final = (
    "parallel_tool_calls", "reasoning", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p",
    "truncation", "max_tool_calls",
)  # fmt: skip
"""What the upstream knows better than the request: what holds where that said nothing."""
_ENDS: Final = ("response.completed", "response.incomplete")
_BEGINS: Final = ("response.created", "response.in_progress", "response.queued")
_TOLD_BY_US: Final = (*_ENDS, "response.failed", "error")
_PREFIX: Final = re.compile(r"[a-z]{2,8}(?=_)")
_OURS_ALONE: Final = ("response_id", "obfuscation")
"""What is left out of events: ids of the upstream's, and what hides the length of its own."""


class Names:
    """Our ids for the items of one answer, by those of the upstream."""

    def __init__(self, request_id: str) -> None:
        self._answer_id = request_id.partition("_")[2]
        self._ours: dict[str, str] = {}

    def of(self, theirs: str) -> str:
        """The same each time; it begins with the kind of the item, as theirs does."""
        if theirs not in self._ours:
            prefix = _PREFIX.match(theirs)
            self._ours[theirs] = f"{prefix[0] if prefix else 'item'}_{self._answer_id}{len(self._ours):02x}"
        return self._ours[theirs]

    def item(self, item: Any, place: object) -> Any:
        """An item under our name; one without an id gets one by its place."""
        if not isinstance(item, dict):
            return item
        plain = {name: value for name, value in item.items() if name not in ("id", "response_id", "container_id")}
        theirs = item.get("id")
        return {"id": self.of(theirs if isinstance(theirs, str) else f"#{place}"), **plain}


def native_response(told: Item, begun: Item, names: Names, *, usage: Item, service_tier: str) -> Item:
    """A `Response` under our names: settings and items of the upstream's, everything else ours."""
    output = [names.item(item, place) for place, item in enumerate(told.get("output") or ())]
    return {
        **_settled(begun, told),
        "status": told.get("status"),
        "completed_at": told.get("completed_at"),
        "incomplete_details": told.get("incomplete_details"),
        "output": output,
        "output_text": _text(output),
        "service_tier": service_tier or "default",
        "usage": usage,
    }


def _settled(begun: Item, told: Item) -> Item:
    return begun | {name: told[name] for name in _SETTINGS if told.get(name) is not None}


def _text(output: list[Any]) -> str:
    messages = (item for item in output if isinstance(item, dict) and item.get("type") == "message")
    parts = (part for item in messages for part in item.get("content") or ())
    return "".join(
        part["text"]
        for part in parts
        if isinstance(part, dict) and part.get("type") == "output_text" and isinstance(part.get("text"), str)
    )


class NativeResponses(NativeStream):
    """The upstream's stream of events."""

    def __init__(self, begun: Item, *, request_id: str, usage: Usage, service_tier: Callable[[], str]) -> None:
        """`usage` and `service_tier` tell what the record has, once the answer is whole."""
        super().__init__()
        self._begun = begun
        self._names = Names(request_id)
        self._usage = usage
        self._service_tier = service_tier
        self._number = 0
        self._items: dict[int, Item] = {}
        self._going: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
        """How a piece is told, by its kind and its place."""
        self._last: Item = {}
        self._begins = list(_BEGINS[:2])
        """Events with which an answer begins, and which are still to come."""
        self.answer: Item | None = None
        """The whole answer, when it is over; one that failed too."""
        self.last = b""
        """The event that told it."""

    def saw_piece(self, event: re.Match[bytes]) -> None:
        kind, at, _, said, logprobs = event.groups()
        before, between = self._going.get((kind, at)) or self._go_on(kind, at)
        self._ready.append(b"%b%d%b%b%b}\n\n" % (before, self._number, between, said, logprobs or b""))
        self._number += 1

    def _go_on(self, kind: bytes, at: bytes) -> tuple[bytes, bytes]:
        """What stands before the number of such an event, and between that and its text."""
        place = read_json(b"{%b}" % at.rstrip(b","))
        ours = write_json({**place, "item_id": self._names.of(place["item_id"])})[1:-1]
        before = b'event: %b\ndata: {"type":"%b","sequence_number":' % (kind, kind)
        self._going[kind, at] = going = before, b',%b,"delta":' % ours
        return going

    def saw(self, told: Item, payload: bytes) -> None:
        kind = told.get("type")
        if not isinstance(kind, str):
            return
        if kind in _TOLD_BY_US:
            self._last = told
        elif kind in _BEGINS:
            if kind in self._begins:
                self._begins.remove(kind)
            response = told.get("response")
            begun = _settled(self._begun, response if isinstance(response, dict) else {})
            self._ready.append(self._written({**told, "response": begun}))
        elif kind.startswith("response."):
            self._ready.append(self._written(self._event(told)))

    def _event(self, told: Item) -> Item:
        """An event under our names. What is not known here goes on in the same way."""
        event = {name: value for name, value in told.items() if name not in _OURS_ALONE}
        if isinstance(event.get("item_id"), str):
            event["item_id"] = self._names.of(event["item_id"])
        if "item" in event:
            event["item"] = self._names.item(event["item"], told.get("output_index"))
            if told["type"] == "response.output_item.done" and isinstance(told.get("output_index"), int):
                self._items[told["output_index"]] = event["item"]
        event.pop("response", None)
        return event

    def _ended(self) -> bytes:
        response = self._last.get("response")
        told = response if isinstance(response, dict) else {}
        tier = self._service_tier()
        answer = native_response(told, self._begun, self._names, usage=self._usage(), service_tier=tier)
        return self._tell_end(answer)

    def not_stored(self) -> bytes:
        """The last event in place of `last`, for an answer that could not be stored."""
        self._number -= 1
        return self._tell_end(not_kept(self.answer or self._begun))

    def _tell_end(self, answer: Item) -> bytes:
        self.answer = answer
        self.last = self._written({"type": f"response.{answer['status']}", "response": answer})
        return self.last

    def _failed(self, error: Item) -> bytes:
        done = [self._items[place] for place in sorted(self._items)]
        begun = b"".join([self._written({"type": kind, "response": self._begun}) for kind in self._begins])
        return begun + self._tell_end(failed_response(self._begun, error, done))

    def _written(self, event: Item) -> bytes:
        number = self._number
        self._number += 1
        kind = event["type"].encode()
        return b"event: %b\ndata: %b\n\n" % (kind, write_json({**event, "sequence_number": number}))
