"""JSON from vendors and to clients. Pure.

Half an emoji as a lone surrogate escape is legal JSON, and vendors do cut there. orjson refuses it in both directions,
so the standard library takes over for such a text, with escapes.
"""

import json
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 200
"""What is nested deeper can be read, but not be written again."""
STRING: Final = rb'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"'
"""A pattern of a string; `text_of` tells whether its escapes and its UTF-8 are right."""

NUMBER: Final = rb"(?:0|[1-9]\d{0,8})"
"""A pattern of a place in a list."""

FLAT_OBJECT: Final = rb"\{[^{}\x00-\x1f]*(?:\{[^{}\x00-\x1f]*\}[^{}\x00-\x1f]*)*\}"
"""A pattern of an object with nothing deeper in it than objects of its own: usage is one. Not all that fits is JSON."""


def read_json(content: bytes) -> Any:
    """The parsed content. Raises ValueError for what is no JSON, has NaN or infinity, or is nested too deeply."""
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            parsed = json.loads(content, parse_constant=_refuse)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
    if content.count(b"[") + content.count(b"{") > MAX_DEPTH:
        _check_depth(parsed)
    return parsed


def write_json(content: object) -> bytes:
    """The content as compact JSON."""
    try:
        return orjson.dumps(content)
    except TypeError:
        return json.dumps(content, separators=(",", ":")).encode()


def text_of(literal: bytes) -> str | None:
    """The text that a JSON string is; None for what is none, such as two strings with something between them, or half
    an emoji."""
    try:
        text = orjson.loads(literal)
    except orjson.JSONDecodeError:
        return None
    return text if isinstance(text, str) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _check_depth(parsed: Any) -> None:
    """Level by level. Raises ValueError."""
    level = [parsed]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [value for each in inner for value in each if isinstance(value, dict | list)]
        if not level:
            return
    raise ValueError("nested too deeply")
