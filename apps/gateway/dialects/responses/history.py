"""What of a response is stored, and what a later request goes on from. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from apps.gateway.dialects.order import in_order
from apps.gateway.dialects.thoughts import OPENAI, is_packed, pack, unpack
from apps.gateway.dialects.vendor_json import read_json, write_json

Item = dict[str, Any]
Account = tuple[str, str]
"""A provider, and the organization's own key for it; "" for the operator's."""
_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
_WITHOUT_STATUS: Final = frozenset(("reasoning", "custom_tool_call_output"))
_OURS: Final = re.compile(r"[a-z]{2,8}_([0-9a-f]{32})i?[0-9a-f]{2,8}")
"""Ids of items, made here: in them stands the response that has the item, with an `i` before the place in its input."""


class Before(msgspec.Struct):
    """The items of a conversation that a response was made of, beside its own input."""

    conversation_id: str
    end: int
    """The place that they all stand before."""
    count: int
    """So many they were: if there are fewer now, some are deleted."""


class Turn(msgspec.Struct):
    """A stored response: all that there is to be known of it."""

    response: dict[str, Any]
    """As it was told."""
    input: list[Item]
    """What this turn brought, each item with its id."""
    carried: dict[str, str]
    """What vendors want back with an item of the output, by its id."""
    route: tuple[str, str] | None
    """Provider and upstream model that answered."""
    before: Before | None = None
    """What was said before it, where that is not another response."""
    credential_id: str = ""
    """The organization's own provider key that was used; "" for the operator's."""

    def written(self) -> bytes:
        """As bytes, to be stored."""
        before = None if self.before is None else msgspec.structs.asdict(self.before)
        return write_json(msgspec.structs.asdict(self) | {"before": before})

    @property
    def output(self) -> list[Item]:
        """Its output as input of the next turn: with what vendors want back."""
        return [
            each for item in self.response["output"] for each in with_carried(item, self.carried.get(item["id"], ""))
        ]


def read_turn(content: bytes) -> Turn:
    """What was written."""
    told = read_json(content)
    route, before = told["route"], told.get("before")
    return Turn(
        told["response"],
        told["input"],
        told["carried"],
        None if route is None else (route[0], route[1]),
        None if before is None else Before(**before),
        told.get("credential_id", ""),
    )


def items_of(turns: Iterable[Turn]) -> list[Item]:
    """All that was said, in its order."""
    return [item for turn in turns for item in (*turn.input, *turn.output)]


def seals_of(turns: Iterable[Turn]) -> dict[str, Account]:
    """What stands sealed in these turns -> the account that can open it: the one that answered with it, or took it."""
    known: dict[str, Account] = {}
    for turn in turns:
        if turn.route is not None:
            account = turn.route[0], turn.credential_id
            for item in (*turn.input, *turn.output):
                known |= {sealed: known.get(sealed, account) for sealed in sealed_in(item)}
    return known


def sealed_in(item: Item) -> list[str]:
    """What an account of a vendor's sealed in a reasoning item, by itself or packed here."""
    sealed = item.get("encrypted_content") if item.get("type") == "reasoning" else None
    if is_packed(sealed):
        packed = (each.get("data") for each in unpack(str(sealed)).details if each.get("format") == OPENAI)
        return [each for each in packed if isinstance(each, str)]
    return [sealed] if isinstance(sealed, str) else []


def without_seals(items: list[Item], can_open: Callable[[str], bool]) -> list[Item]:
    """The items without the encrypted reasoning that could not be opened where they went."""
    return [
        item
        if all(map(can_open, sealed_in(item)))
        else {name: value for name, value in item.items() if name != "encrypted_content"}
        for item in items
    ]


def holder_of(item_id: object) -> str | None:
    """The id of the response that has an item of this id; None for an id that was not made here."""
    match = _OURS.fullmatch(item_id) if isinstance(item_id, str) else None
    return None if match is None else f"resp_{match.group(1)}"


def is_reference(item: object) -> bool:
    """Whether an input item is only named."""
    if not isinstance(item, dict):
        return False
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "role" not in item and isinstance(item.get("id"), str))


def resolved(given: list[Any], turns: Mapping[str, Turn]) -> tuple[list[Any], int]:
    """Input items with those of these turns, by the id of the response, where they were only named; and how many bytes
    came with that. Others stay.

    A turn is gone through once: it may have thousands of items, each of them named."""
    known = {holder: _referable(turn) for holder, turn in turns.items()}
    made: list[Any] = []
    size = 0
    for item in given:
        held = known.get(holder_of(item.get("id")) or "") if is_reference(item) else None
        found = held.get(item["id"]) if held is not None else None
        size += 0 if found is None else len(write_json(found))
        made += found or [item]
    return made, size


def _referable(turn: Turn) -> dict[str, list[Item]]:
    """Id of an item of the turn -> that item as input, with what its vendor wants back."""
    told = {item["id"]: with_carried(item, turn.carried.get(item["id"], "")) for item in turn.response["output"]}
    return told | {item["id"]: [item] for item in turn.input}


def kept_input(given: str | list[Item], answer_id: str) -> list[Item]:
    """This turn's input as items with ids, in the shape in which the API lists them."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return [_kept(item, answer_id, index) for index, item in enumerate(items)]


def items_that_left(messages: list[dict[str, Any]], *, first: int) -> list[Item]:
    """Messages of a chat from the `first` on as input items: for a chat in which something was put in place of what
    came."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    custom = {call["id"] for call in calls if call["type"] == "custom"}
    return [item for message in messages[first:] for item in _items(message, custom)]


def as_left(response: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """A response that repeats nothing of its request but what stands in the chat that left."""
    made = dict(response)
    if made.get("instructions"):
        made["instructions"] = body["messages"][0]["content"]
    named = {each[each["type"]]["name"]: each[each["type"]] for each in body.get("tools") or ()}
    made["tools"] = [_tool_that_left(tool, named) for tool in made["tools"] if tool.get("name") in named]
    schema = (body.get("response_format") or {}).get("json_schema")
    if schema:
        made["text"] = {**made["text"], "format": {"type": "json_schema", **schema}}
    return made | {name: body.get(name) for name in ("user", "safety_identifier", "prompt_cache_key")}


def _tool_that_left(tool: Item, named: dict[str, Item]) -> Item:
    left = named[tool["name"]]
    made: Item = {"type": tool["type"], "name": tool["name"], "description": left.get("description")}
    if tool["type"] == "function":
        return made | {"parameters": left.get("parameters"), "strict": tool["strict"]}
    wanted = left.get("format") or {"type": "text"}
    return made | {"format": {"type": wanted["type"], **(wanted.get("grammar") or {})}}


def with_carried(item: Item, sealed: str) -> list[Item]:
    """An item of an answer as input, with what its vendor wants back; "" for nothing."""
    if not sealed:
        return [item]
    if item["type"] == "reasoning":
        return [{**item, "encrypted_content": sealed}]
    return [{"type": "reasoning", "summary": [], "encrypted_content": sealed}, item]


def _kept(item: Item, answer_id: str, index: int) -> Item:
    kind = item.get("type") or "message"
    made: Item = {**item, "type": kind}
    if not (isinstance(item.get("id"), str) and item["id"]):
        made["id"] = f"{_PREFIXES.get(kind, 'item')}_{answer_id}i{index:02x}"
    if kind == "message":
        is_answer = item.get("role") == "assistant"
        content = item.get("content")
        parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content or []
        made["content"] = [_part(part, is_answer=is_answer) for part in parts]
    if kind in _PREFIXES and kind not in _WITHOUT_STATUS and not made.get("status"):
        made["status"] = "completed"
    return made


def _part(part: Item, *, is_answer: bool) -> Item:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        said = {"type": "output_text" if is_answer else "input_text", "text": part["text"]}
        return said | ({"annotations": part.get("annotations") or []} if is_answer else {})
    return {"detail": "auto", **part} if kind == "input_image" else part


def _items(message: dict[str, Any], custom: set[str]) -> list[Item]:
    """`custom` are the ids of calls of custom tools."""
    role: str = message["role"]
    content: Any = message.get("content")
    if role == "tool":
        output = content if isinstance(content, str) else list(map(_input_part, content))
        kind = "custom_tool_call_output" if message["tool_call_id"] in custom else "function_call_output"
        return [{"type": kind, "call_id": message["tool_call_id"], "output": output}]
    if role != "assistant":
        parts = content if isinstance(content, str) else list(map(_input_part, content))
        return [{"type": "message", "role": role, "content": parts}]
    return [item for piece in in_order(message) for item in _said(piece)]


def _said(message: dict[str, Any]) -> list[Item]:
    """A message of the assistant, or a piece of it."""
    items: list[Item] = []
    content = message.get("content")
    calls = message.get("tool_calls") or []
    extras = {call["id"]: call["extra_content"] for call in calls if "extra_content" in call}
    thought = message.get("reasoning_content")
    details = [
        *(message.get("reasoning_details") or ()),
        *([{"type": "reasoning.text", "text": thought}] if thought else ()),
    ]
    if sealed := pack(details, extras):
        items.append({"type": "reasoning", "summary": [], "encrypted_content": sealed})
    parts = [{"type": "output_text", "text": content}] if content else []
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    if parts:
        items.append({"type": "message", "role": "assistant", "content": parts})
    return items + [_call(call) for call in calls]


def _call(call: dict[str, Any]) -> Item:
    called = call[call["type"]]
    made = {"call_id": call["id"], "name": called["name"]}
    if call["type"] == "custom":
        return {"type": "custom_tool_call", **made, "input": called["input"]}
    return {"type": "function_call", **made, "arguments": called["arguments"]}


def _input_part(part: dict[str, Any]) -> Item:
    kind = part["type"]
    if kind == "text":
        return {"type": "input_text", "text": part["text"]}
    if kind == "image_url":
        image = part["image_url"]
        return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}
    if kind == "file":
        file = part["file"]
        where = "file_data" if file["file_data"][:5].lower() == "data:" else "file_url"
        return {"type": "input_file", where: file["file_data"], "filename": file["filename"]}
    return part
