"""Where text stands in a request or in a piece of an answer: all of it that is no name of the protocol's. Pure."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

_PROTOCOL: Final = frozenset((
    "model", "models", "provider", "role", "type", "object", "id", "tool_call_id", "call_id", "index", "format",
    "detail", "media_type", "mime_type", "encoding_format", "finish_reason", "stop_reason", "service_tier",
    "reasoning_effort", "effort", "verbosity", "modalities", "system_fingerprint", "obfuscation",
    "session_id", "metadata", "signature", "thought_signature",
))  # fmt: skip
"""Fields whose text means something to an interface, is no text, or is never forwarded."""
_MEDIA: Final = frozenset(("data", "file_data", "b64_json"))
"""Base64 of what is no text."""
_NAMED: Final = frozenset(("arguments", "parameters", "input_schema", "strict"))
"""Whatever has one of these is a tool or a call of one: its name is an identifier."""


class TextPlace(NamedTuple):
    """A text and where it stands: in `holder`, an object or a list, under `key`."""

    holder: Any
    key: Any
    text: str

    def put(self, text: str) -> None:
        """Have another text stand there."""
        self.holder[self.key] = text


def texts_within(value: Any) -> Iterator[TextPlace]:
    """All texts within an object or a list, in their order."""
    if type(value) is dict:
        is_tool = not _NAMED.isdisjoint(value)
        for key, inner in value.items():
            if key in _PROTOCOL or (is_tool and key == "name"):
                continue
            if type(inner) is str:
                if inner and key not in _MEDIA and inner[:5] != "data:":
                    yield TextPlace(value, key, inner)
            elif type(inner) in (dict, list):
                yield from texts_within(inner)
    elif type(value) is list:
        for position, inner in enumerate(value):
            if type(inner) is str:
                if inner:
                    yield TextPlace(value, position, inner)
            elif type(inner) in (dict, list):
                yield from texts_within(inner)
