"""Answers of Anthropic's Messages API, whole and as events, in the shapes of public recordings.

The streams have the shapes of the fixtures in anthropics/anthropic-sdk-python (MIT), tests/lib/streaming/fixtures:
basic_response.txt, tool_use_response.txt and refusal_response.txt. Thinking, redacted thinking and errors have those of
the pages "Streaming messages" and "Extended thinking" in Anthropic's documentation. The words are our own."""

from typing import Any

import orjson

from tests.upstream.scripted import UPSTREAM_MODEL

USAGE = {
    "input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}, "output_tokens": 6,
    "service_tier": "standard",
}  # fmt: skip
OPENED = USAGE | {"output_tokens": 1}
PING = {"type": "ping"}
THOUGHT = {"type": "thinking", "thinking": "Two and two, ähm…", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h=="}
SEALED = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4a"}
CALL = {"type": "tool_use", "id": "toolu_01NRLab", "name": "weather", "input": {"town": "Köln", "days": 2}}
BARE_CALL = {"type": "tool_use", "id": "toolu_02Bare", "name": "now", "input": {}}


def text(said: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": said}


def message(*content: dict[str, Any], stop_reason: str = "end_turn", usage: object = USAGE, **more: Any) -> bytes:
    """A whole answer."""
    whole = {
        "id": "msg_019Q1hrJbZG26Fb9BQhrkHEr", "type": "message", "role": "assistant", "model": UPSTREAM_MODEL,
        "content": list(content), "stop_reason": stop_reason, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    return orjson.dumps(whole | more)


def events(
    *content: dict[str, Any],
    stop_reason: str = "end_turn",
    opened: object = OPENED,
    told: object = None,
    cut: int = 5,
) -> list[dict[str, Any]]:
    """The same answer as it is streamed. Strings come in pieces of `cut` characters."""
    start = {
        "id": "msg_019Q1hrJbZG26Fb9BQhrkHEr", "type": "message", "role": "assistant", "model": UPSTREAM_MODEL,
        "content": [], "stop_reason": None, "stop_sequence": None, "usage": opened,
    }  # fmt: skip
    said: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(content):
        said += _block(index, block, cut)
        said += [PING] if index == 0 else []
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    said.append({"type": "message_delta", "delta": delta, "usage": told or {"output_tokens": 6}})
    return [*said, {"type": "message_stop"}]


def sse_events(*said: dict[str, Any]) -> list[bytes]:
    """Events as they stand on the wire, each a piece."""
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in said]


def streamed(*content: dict[str, Any], **fields: Any) -> list[bytes]:
    """A whole stream, an event a piece."""
    return sse_events(*events(*content, **fields))


def _block(index: int, block: dict[str, Any], cut: int) -> list[dict[str, Any]]:
    kind = block["type"]
    if kind == "text":
        empty, pieces = {"type": "text", "text": ""}, _pieces("text_delta", "text", block["text"], cut)
    elif kind == "thinking":
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        pieces = _pieces("thinking_delta", "thinking", block["thinking"], cut)
        pieces.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind in ("tool_use", "server_tool_use"):
        empty = block | {"input": {}}
        written = orjson.dumps(block["input"]).decode() if block["input"] else ""
        pieces = [{"type": "input_json_delta", "partial_json": ""}]
        pieces += _pieces("input_json_delta", "partial_json", written, cut)
    else:
        empty, pieces = block, []
    return [
        {"type": "content_block_start", "index": index, "content_block": empty},
        *({"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces),
        {"type": "content_block_stop", "index": index},
    ]


def _pieces(kind: str, name: str, whole: str, cut: int) -> list[dict[str, Any]]:
    return [{"type": kind, name: whole[start : start + cut]} for start in range(0, len(whole), cut)]
