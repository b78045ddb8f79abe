"""Messages of Chat Completions as input items of OpenAI's Responses API. Pure.

Source: `ResponseInputItem` and the content types in the Responses reference of OpenAI."""

from collections.abc import Callable
from typing import Any, Final

from apps.gateway.dialects.order import in_order
from apps.gateway.dialects.responses.items import SEALED
from apps.gateway.dialects.thoughts import OPENAI
from apps.gateway.errors import bad_field
from apps.gateway.providers.conversation import parts_of, refused, text_of

Item = dict[str, Any]
_FOREIGN: Final = ("cache_control", "is_error", "extra_content")
"""What other vendors want to know of a message, a part or a call."""


def input_items(messages: list[dict[str, Any]], lost: list[str], can_open: Callable[[str], bool]) -> list[Item]:
    """The same conversation; what has no place in it, or was sealed and cannot be opened here, is added to `lost`.
    Raises GatewayError (400) naming the place of what cannot be told."""
    conversation = _Conversation(lost, can_open)
    for index, message in enumerate(messages):
        take = _OF_ROLE.get(message["role"])
        if take is None:
            raise bad_field(f"messages[{index}].role", f"The role must be one of: {', '.join(_OF_ROLE)}.")
        take(conversation, message, f"messages[{index}]")
    return conversation.items


class _Conversation:
    """Takes messages in their order."""

    def __init__(self, lost: list[str], can_open: Callable[[str], bool]) -> None:
        self.items: list[Item] = []
        self._can_open = can_open
        self._lost = lost
        self._custom: set[str] = set()
        """The ids of calls of custom tools: their results are items of another kind."""

    def said(self, message: dict[str, Any], place: str) -> None:
        """What users and operators say."""
        self._note_foreign(message)
        content = message.get("content")
        told = content if isinstance(content, str) else self._content(message, place)
        self.items.append({"type": "message", "role": message["role"], "content": told})

    def answered(self, message: dict[str, Any], place: str) -> None:
        """An earlier answer: thoughts, text, refusal, calls."""
        self._note_foreign(message)
        for piece in in_order(message):
            self._answered(piece, place)

    def _answered(self, message: dict[str, Any], place: str) -> None:
        self.items += self._thoughts(message)
        content = [
            {"type": "refusal", "refusal": text_of(part, where)}
            if part["type"] == "refusal"
            else {"type": "output_text", "text": text_of(part, where), "annotations": []}
            for where, part in parts_of(message, place)
        ]
        if content:
            self.items.append({"type": "message", "role": "assistant", "content": content})
        if message.get("function_call") is not None:
            raise bad_field(f"{place}.function_call", "function_call is not supported by this model; use tool_calls.")
        for position, call in enumerate(message.get("tool_calls") or ()):
            self._note_foreign(call)
            self.items.append(self._call(call, f"{place}.tool_calls[{position}]"))

    def returned(self, message: dict[str, Any], place: str) -> None:
        """The result of a call."""
        self._note_foreign(message)
        call_id, content = message.get("tool_call_id"), message.get("content")
        kind = "custom_tool_call_output" if call_id in self._custom else "function_call_output"
        output = content if isinstance(content, str) else self._content(message, place)
        self.items.append({"type": kind, "call_id": call_id, "output": output})

    def _call(self, call: Any, place: str) -> Item:
        kind = call.get("type", "function") if isinstance(call, dict) else None
        holder = call.get(kind) if kind in ("function", "custom") else None
        if not isinstance(holder, dict) or not isinstance(holder.get("name"), str):
            raise bad_field(place, "A tool call must be of a function or a custom tool, with its name.")
        call_id = str(call.get("id") or "")
        if kind == "custom":
            self._custom.add(call_id)
            given = holder.get("input")
            text = given if isinstance(given, str) else ""
            return {"type": "custom_tool_call", "call_id": call_id, "name": holder["name"], "input": text}
        arguments = holder.get("arguments")
        written = arguments if isinstance(arguments, str) and arguments.strip() else "{}"
        return {"type": "function_call", "call_id": call_id, "name": holder["name"], "arguments": written}

    def _thoughts(self, message: dict[str, Any]) -> list[Item]:
        """The reasoning that this vendor sealed: others' is left out, and named."""
        items: list[Item] = []
        details = message.get("reasoning_details")
        for entry in details if isinstance(details, list) else ():
            if not isinstance(entry, dict) or entry.get("format") != OPENAI or not isinstance(entry.get("data"), str):
                self._lost.append("reasoning_details")
                continue
            if not self._can_open(entry["data"]):
                self._lost.append(SEALED)
                continue
            said = entry.get("summary")
            summary = [{"type": "summary_text", "text": said}] if isinstance(said, str) else []
            items.append({"type": "reasoning", "summary": summary, "encrypted_content": entry["data"]})
        return items

    def _content(self, message: dict[str, Any], place: str) -> list[Item]:
        made = []
        for where, part in parts_of(message, place):
            if "cache_control" in part:
                self._lost.append("cache_control")
            made.append(_part(part, where))
        return made

    def _note_foreign(self, holder: dict[str, Any]) -> None:
        self._lost += [name for name in _FOREIGN if holder.get(name)]


def _part(part: dict[str, Any], place: str) -> Item:
    kind = part.get("type")
    if kind in ("text", "refusal"):
        return {"type": "input_text", "text": text_of(part, place)}
    holder = part.get(str(kind))
    if not isinstance(holder, dict):
        raise bad_field(place, f"A part of type {kind} must have an object {kind}.")
    if kind == "image_url" and isinstance(holder.get("url"), str):
        detail = holder.get("detail")
        return {"type": "input_image", "image_url": holder["url"], "detail": detail if detail else "auto"}
    if kind == "file" and isinstance(holder.get("file_data"), str):
        return _file(holder)
    what = {"file": "A file that is not here", "input_audio": "Sound", "video_url": "Video"}
    raise refused(place, what.get(str(kind), f"A part of type {kind}"))


def _file(holder: dict[str, Any]) -> Item:
    """A file with its content, or at an address."""
    content = holder["file_data"]
    if "://" in content[:20]:
        return {"type": "input_file", "file_url": content}
    name = holder.get("filename")
    if not content.startswith("data:"):
        content = f"data:application/pdf;base64,{content}"
    return {"type": "input_file", "filename": name if isinstance(name, str) else "document.pdf", "file_data": content}


_OF_ROLE: Final[dict[str, Callable[[_Conversation, dict[str, Any], str], None]]] = {
    "user": _Conversation.said,
    "system": _Conversation.said,
    "developer": _Conversation.said,
    "assistant": _Conversation.answered,
    "tool": _Conversation.returned,
}
