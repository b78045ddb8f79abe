"""Where text stands in a request or in a piece of an answer: all of it that is no name of the protocol's. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

_PROTOCOL: Final = frozenset((
    "model", "models", "provider", "role", "type", "object", "id", "tool_call_id", "call_id", "index", "format",
    "detail", "media_type", "mime_type", "encoding_format", "finish_reason", "stop_reason", "service_tier",
    "reasoning_effort", "effort", "verbosity", "modalities", "system_fingerprint", "obfuscation",
    "session_id", "metadata", "signature", "thought_signature",
))  # fmt: skip
"""Fields whose text means something to an interface, is no text, or is never forwarded."""
_MEDIA: Final = frozenset(("data", "b64_json"))
"""Base64 of what is no text, but in a source of Anthropic's that says that it is."""
_ADDRESSES: Final = frozenset(("url", "image_url", "file_data"))
"""Where `data:` means media. Elsewhere it is a word like any other."""
_NAMED: Final = frozenset(("arguments", "parameters", "input_schema", "strict", "input", "format"))
"""Whatever has one of these is a tool or a call of one: its name is an identifier."""


Step = str | tuple[object, object]
"""Into an object by a field's name; into a list by what tells its items apart: their index, or position and type."""


class TextPlace(NamedTuple):
    """A text and where it stands: in `holder`, an object or a list, under `key`."""

    holder: Any
    key: Any
    text: str
    path: tuple[Step, ...] = ()
    """The way there from where the search began: the same in all pieces of a stream that belong together."""

    def put(self, text: str) -> None:
        """Have another text stand there."""
        self.holder[self.key] = text


def texts_within(value: Any, path: tuple[Step, ...] = ()) -> Iterator[TextPlace]:
    """All texts within an object or a list, in their order."""
    if type(value) is dict:
        is_tool = not _NAMED.isdisjoint(value)
        for key, inner in value.items():
            if (key in _PROTOCOL and (key != "format" or type(inner) is str)) or (is_tool and key == "name"):
                continue
            if type(inner) is str:
                if inner and not _is_media(value, key, inner):
                    yield TextPlace(value, key, inner, (*path, key))
            elif type(inner) in (dict, list):
                yield from texts_within(inner, (*path, key))
    elif type(value) is list:
        for position, inner in enumerate(value):
            if type(inner) is str:
                if inner:
                    yield TextPlace(value, position, inner, (*path, (position, None)))
            elif type(inner) in (dict, list):
                yield from texts_within(inner, (*path, _told_apart(inner, position)))


def text_at(path: Sequence[Step], text: str) -> Any:
    """The smallest object that has a text at the end of a path."""
    value: Any = text
    for step in reversed(path):
        if isinstance(step, str):
            value = {step: value}
            continue
        place, kind = step
        value = [value if value is text else {**({"index": place} if kind is None else {"type": kind}), **value}]
    return value


def _told_apart(item: Any, position: int) -> tuple[object, object]:
    if type(item) is not dict:
        return position, None
    return (item["index"], None) if "index" in item else (position, item.get("type"))


def _is_media(holder: dict[str, Any], key: str, text: str) -> bool:
    if key in _MEDIA:
        return holder.get("type") != "text"
    return key in _ADDRESSES and text[:5].lower() == "data:"
