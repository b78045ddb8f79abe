"""Input items of the Responses API as messages of Chat Completions, for upstreams of any dialect. Pure.

Source: `ResponseInputItem` and the content types in the reference of OpenAI's Responses API.
"""

from collections.abc import Callable
from typing import Any, Final

from apps.gateway.dialects.order import Step, note_order
from apps.gateway.dialects.responses.namespaces import flat_name
from apps.gateway.dialects.thoughts import OPENAI, is_packed, unpack
from apps.gateway.errors import bad_field

Item = dict[str, Any]
Lost = list[str]
SEALED: Final = "input.reasoning.encrypted_content"
"""How reasoning is named that only an upstream of this dialect can read."""
_ROLES: Final = {"user": "user", "system": "system", "developer": "system"}


class Conversation:
    """Takes items in their order. What an answer was made of (thoughts, text, calls) becomes one message again."""

    def __init__(self, lost: Lost) -> None:
        """What has no place is added to `lost`."""
        self.messages: list[dict[str, Any]] = []
        self._lost = lost
        self._answer: dict[str, Any] | None = None
        self._order: list[Step] = []
        self._extras: dict[str, dict[str, Any]] = {}
        self._sealed = 0
        """So many thoughts were sealed by an upstream of this dialect."""

    def add(self, item: Any, place: str) -> None:
        """One item. Raises GatewayError (400) naming the place of what is wrong."""
        if type(item) is not dict:
            raise bad_field(place, "An input item must be an object.")
        kind = item.get("type", "message")
        if kind == "item_reference" or (kind is None and "role" not in item):
            raise bad_field(place, "This item is not stored here, or not for this key: send it whole.")
        if type(kind) is not str and kind is not None:
            raise bad_field(f"{place}.type", "The type of an input item must be a string.")
        take = _OF_KIND.get(kind or "message")
        if take is None:
            self._lost.append(f"input.{kind}")
            return
        take(self, item, place)

    def end(self) -> list[dict[str, Any]]:
        """The messages, when all items were taken."""
        self._end_answer()
        return self.messages

    def _message(self, item: Item, place: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role == "assistant":
            self._said(content, f"{place}.content")
            return
        if type(role) is not str or role not in _ROLES:
            raise bad_field(f"{place}.role", f"role must be one of: assistant, {', '.join(_ROLES)}.")
        self._end_answer()
        self.messages.append({"role": _ROLES[role], "content": content_of(content, f"{place}.content", self._lost)})

    def _said(self, content: Any, place: str) -> None:
        """Text of an earlier answer, or its refusal."""
        if type(content) is str:
            content = [{"type": "output_text", "text": content}]
        answer = self._begun(after=("content", "refusal"))
        texts = []
        for index, part in enumerate(_parts(content, place)):
            said = part.get("refusal" if part["type"] == "refusal" else "text")
            if type(said) is not str:
                raise bad_field(f"{place}[{index}]", "The parts of an answer are text or a refusal.")
            if part["type"] == "refusal":
                answer["refusal"] = answer.get("refusal", "") + said
            else:
                texts.append(said)
        self._add("content", "".join(texts))

    def _call(self, item: Item, place: str) -> None:
        arguments = item.get("arguments")
        if type(arguments) is not str:
            raise bad_field(f"{place}.arguments", "arguments must be a string.")
        self._add_call(item, place, "function", {"arguments": arguments})

    def _custom_call(self, item: Item, place: str) -> None:
        given = item.get("input")
        if type(given) is not str:
            raise bad_field(f"{place}.input", "input must be a string.")
        self._add_call(item, place, "custom", {"input": given})

    def _add_call(self, item: Item, place: str, kind: str, said: dict[str, str]) -> None:
        call_id, name = item.get("call_id"), item.get("name")
        if type(call_id) is not str or type(name) is not str or not name:
            raise bad_field(place, "A call must have a call_id and a name.")
        if type(item.get("namespace")) is str:
            name = flat_name(item["namespace"], name)
        call = {"id": call_id, "type": kind, kind: {"name": name, **said}}
        if call_id in self._extras:
            call["extra_content"] = self._extras[call_id]
        self._add("tool_calls", [call])

    def _output(self, item: Item, place: str) -> None:
        if type(item.get("call_id")) is not str:
            raise bad_field(f"{place}.call_id", "call_id must be a string.")
        self._end_answer()
        output = content_of(item.get("output"), f"{place}.output", self._lost)
        self.messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})

    def _reasoning(self, item: Item, place: str) -> None:
        sealed = item.get("encrypted_content")
        carried = unpack(str(sealed)) if is_packed(sealed) else None
        if carried is not None:
            self._extras |= carried.extras
            if not carried.details:
                return  # what goes with a call is no thought: the call stays in the answer that is being put together
        answer = self._begun(after=("content", "refusal"))
        unsigned = [each for name in ("content", "summary") for each in _dicts(item.get(name))]
        if carried is not None:
            unsigned = [entry for entry in carried.details if "format" not in entry]
            self._add("reasoning_details", [entry for entry in carried.details if "format" in entry])
        elif isinstance(sealed, str) and sealed:
            self._lost.append(SEALED)
            self._add("reasoning_details", _sealed_details(item, sealed, index=self._sealed))
            self._sealed += 1
        said = [each.get("text") for each in unsigned]
        if thought := "\n\n".join(text for text in said if isinstance(text, str) and text):
            self._add("reasoning_content", f"\n\n{thought}" if "reasoning_content" in answer else thought)

    def _begun(self, *, after: tuple[str, ...] = ()) -> dict[str, Any]:
        """The answer that is being put together. What follows a text begins another one, unless that called tools:
        nothing may stand between calls and their results."""
        answer = self._answer
        is_over = answer is not None and "tool_calls" not in answer and any(answer.get(name) for name in after)
        if answer is None or is_over:
            self._end_answer()
            answer = self._answer = {"role": "assistant", "content": None}
            self.messages.append(answer)
        return answer

    def _add(self, name: str, value: Any) -> None:
        """Put something to a field of the answer."""
        answer = self._begun()
        if name == "content" or value:
            answer[name] = answer[name] + value if answer.get(name) else value
            self._order.append((name, len(value)))

    def _end_answer(self) -> None:
        if self._answer is not None:
            note_order(self._answer, self._order)
        self._answer, self._order = None, []


def _sealed_details(item: Item, sealed: str, *, index: int) -> list[dict[str, Any]]:
    """Reasoning that an upstream of this dialect sealed, as entries of `reasoning_details`."""
    summary = "\n\n".join(str(part.get("text") or "") for part in _dicts(item.get("summary")))
    entry = {"type": "reasoning.encrypted", "data": sealed, "format": OPENAI, "index": index}
    return [{**entry, "summary": summary} if summary else entry]


def stands_in_chat(item: Item) -> bool:
    """Whether there is something in the chat for an item of this kind."""
    return (item.get("type") or "message") in _OF_KIND


def content_of(content: Any, place: str, lost: Lost) -> Any:
    """Text, or content parts. Raises GatewayError (400)."""
    if type(content) is str:
        return content
    parts = [_part(part, f"{place}[{index}]", lost) for index, part in enumerate(_parts(content, place))]
    return [part for part in parts if part is not None]


def _parts(content: Any, place: str) -> list[Item]:
    if type(content) is not list:
        raise bad_field(place, "Must be a string or a list of content parts.")
    for index, part in enumerate(content):
        if type(part) is not dict or type(part.get("type")) is not str:
            raise bad_field(f"{place}[{index}]", "A content part must be an object with a type.")
    return content


def _part(part: Item, place: str, lost: Lost) -> Item | None:
    kind = part["type"]
    if kind in ("input_text", "output_text", "text"):
        if type(part.get("text")) is not str:
            raise bad_field(f"{place}.text", "text must be a string.")
        return {"type": "text", "text": part["text"]}
    if kind == "input_image":
        if type(part.get("image_url")) is not str:
            raise bad_field(f"{place}.image_url", "An image must have its image_url: no files are stored here.")
        detail = {"detail": part["detail"]} if part.get("detail") not in (None, "auto") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file":
        source = part.get("file_data") or part.get("file_url")
        if type(source) is not str:
            raise bad_field(place, "A file must have its file_data or file_url: none are stored here.")
        name = part.get("filename")
        return {
            "type": "file",
            "file": {"file_data": source, "filename": name if type(name) is str else "document.pdf"},
        }
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    lost.append(f"input.{kind}")
    return None


def _dicts(found: object) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


_OF_KIND: Final[dict[str, Callable[[Conversation, Item, str], None]]] = {
    "message": Conversation._message,
    "function_call": Conversation._call,
    "custom_tool_call": Conversation._custom_call,
    "function_call_output": Conversation._output,
    "custom_tool_call_output": Conversation._output,
    "reasoning": Conversation._reasoning,
}
