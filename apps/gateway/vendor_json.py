"""JSON from vendors and to clients. Pure.

Half an emoji as a lone surrogate escape is legal JSON, and vendors do cut there. orjson refuses it in both directions,
so the standard library takes over for such a text, with escapes.
"""

import json
from typing import Any

import orjson


def read_json(content: bytes) -> Any:
    """The parsed content. Raises ValueError for what is no JSON."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            return json.loads(content)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def write_json(content: object) -> bytes:
    """The content as compact JSON."""
    try:
        return orjson.dumps(content)
    except TypeError:
        return json.dumps(content, separators=(",", ":")).encode()
