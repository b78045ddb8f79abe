"""Thoughts between two turns: what a vendor wants back with the next request, carried by dialects without its form.

Chat Completions has `reasoning_details` (a thought with what proves that it is genuine) and `extra_content` (what
Google signs its calls with). Messages and Responses have one opaque text for that: the signature of a thought, and
encrypted reasoning. What is not Anthropic's own signature is packed into that text. It says nothing that its
caller could not write itself, so it is not sealed. Pure."""

import base64
import binascii
from typing import Any, Final, NamedTuple

from apps.gateway.dialects.vendor_json import read_json, write_json

CLAUDE: Final = "anthropic-claude-v1"
"""What `reasoning_details` of Claude's say of themselves, so that thoughts of another vendor are not sent there."""
OPENAI: Final = "openai-responses"
"""The same of what an upstream that speaks Responses sealed. Others who sell OpenAI's models name theirs otherwise."""
_PACKED: Final = "crun1."
_PIECES: Final = ("text", "summary", "data", "signature")


class Carried(NamedTuple):
    """What stands in a packed text: entries of `reasoning_details`, and call -> its `extra_content`."""

    details: list[dict[str, Any]]
    extras: dict[str, dict[str, Any]]


def pack(details: list[dict[str, Any]], extras: dict[str, dict[str, Any]] | None = None) -> str:
    """One opaque text; "" where there is nothing to be carried."""
    if not details and not extras:
        return ""
    content = write_json({"details": details, "extras": extras or {}})
    return _PACKED + base64.urlsafe_b64encode(content).decode()


def is_packed(text: object) -> bool:
    """Whether it is a text of ours."""
    return isinstance(text, str) and text.startswith(_PACKED)


def unpack(text: str) -> Carried:
    """What was packed; nothing for what was not made here, or was damaged on its way."""
    nothing = Carried([], {})
    if not is_packed(text):
        return nothing
    try:
        content = read_json(base64.urlsafe_b64decode(text.removeprefix(_PACKED)))
    except (binascii.Error, ValueError):
        return nothing
    if not isinstance(content, dict):
        return nothing
    details, extras = content.get("details"), content.get("extras")
    return Carried(
        [each for each in details if isinstance(each, dict)] if isinstance(details, list) else [],
        {name: each for name, each in extras.items() if isinstance(each, dict)} if isinstance(extras, dict) else {},
    )


def is_claudes(entry: dict[str, Any]) -> bool:
    """Whether an entry of `reasoning_details` is a block of Anthropic's, whole and proven."""
    return entry.get("format") == CLAUDE and bool(entry.get("signature") or entry.get("data"))


def add_pieces(details: list[dict[str, Any]], pieces: list[Any]) -> None:
    """Add what a stream brings of `reasoning_details`: pieces of one entry have its kind and place."""
    for piece in pieces:
        if not isinstance(piece, dict):
            continue
        last = details[-1] if details else None
        place = (piece.get("type"), piece.get("index"))
        if last is None or piece.get("index") is None or (last.get("type"), last.get("index")) != place:
            details.append(dict(piece))
            continue
        for name, value in piece.items():
            is_text = name in _PIECES and isinstance(value, str) and isinstance(last.get(name), str)
            last[name] = last[name] + value if is_text else value if value is not None else last.get(name)
