"""Messages of Chat Completions as a system prompt and turns of Anthropic's Messages API. Pure.

Source: `MessageParam` and the content blocks in the Messages API reference of Anthropic.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from apps.gateway.dialects.large_body import LARGE_BYTES
from apps.gateway.dialects.large_content import Tail, tail_of
from apps.gateway.dialects.order import in_order
from apps.gateway.errors import bad_field
from apps.gateway.providers.anthropic_thinking import thinking_blocks

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+)(?:;[^,;]*)*;base64,", re.IGNORECASE)
_IMAGE_KINDS: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_SYSTEM_ROLES: Final = ("system", "developer")
Block = dict[str, Any]


def conversation(messages: Iterable[dict[str, Any]]) -> tuple[list[Block], list[dict[str, Any]]]:
    """(system prompt, turns). System and developer messages stand before all others, wherever they were; neighbours of
    one role become one turn. Raises GatewayError (400) for what cannot be said to Claude."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        place, role = f"messages[{index}]", message["role"]
        if role in _SYSTEM_ROLES:
            system += _marked(message, _texts(message.get("content"), place))
            continue
        if role == "user":
            blocks = _content(message.get("content"), place)
        elif role == "assistant":
            blocks = [block for piece in in_order(message) for block in _assistant(piece, place)]
        elif role == "tool":
            role, blocks = "user", [_tool_result(message, place)]
        else:
            raise bad_field(f"{place}.role", f"This model takes no messages of the role {role!r}.")
        blocks = _marked(message, blocks)
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise bad_field("messages", "messages must have content beside the system prompt.")
    return system, turns


def answers_tools_without_thoughts(turns: list[dict[str, Any]]) -> bool:
    """Whether the last turn answers a call of a tool whose thoughts are missing: then Claude cannot think on."""
    if len(turns) < 2 or turns[-1]["role"] != "user":
        return False
    asked = turns[-2]["content"]
    calls = any(block["type"] == "tool_use" for block in asked)
    return calls and asked[0]["type"] not in ("thinking", "redacted_thinking")


def _assistant(message: dict[str, Any], place: str) -> list[Block]:
    if message.get("function_call") is not None:
        raise bad_field(f"{place}.function_call", "function_call is not supported by this model; use tool_calls.")
    if message.get("audio"):
        raise bad_field(f"{place}.audio", "An earlier answer in sound cannot be passed on to this model's provider.")
    blocks = thinking_blocks(message)
    content = message.get("content")
    if isinstance(content, list):
        for position, part in enumerate(content):
            blocks += _assistant_part(part, f"{place}.content[{position}]")
    else:
        blocks += _texts(content, place)
    blocks += _text(message.get("refusal") or "", {}, place)
    calls = message.get("tool_calls")
    for position, call in enumerate(calls if isinstance(calls, list) else ()):
        blocks.append(_tool_use(call, f"{place}.tool_calls[{position}]"))
    return blocks


def _assistant_part(part: dict[str, Any], place: str) -> list[Block]:
    """Text, a refusal, or a thought in Anthropic's own form; an unsigned thought says nothing to Claude."""
    if part.get("type") == "thinking":
        signed = isinstance(part.get("thinking"), str) and isinstance(part.get("signature"), str)
        return [{name: part[name] for name in ("type", "thinking", "signature")}] if signed else []
    if part.get("type") == "refusal":
        return _text(part.get("refusal"), part, place)
    if part.get("type") != "text":
        raise bad_field(f"{place}.type", "A message of the assistant can only bring text to this model.")
    return _text(part.get("text"), part, place)


def _tool_use(call: object, place: str) -> Block:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or call.get("type", "function") != "function":
        raise bad_field(place, "This model takes calls of functions only.")
    name, call_id = function.get("name"), call.get("id")
    if not isinstance(name, str) or not isinstance(call_id, str):
        raise bad_field(place, "A tool call must have an id and the name of its function.")
    written = function.get("arguments") or "{}"
    try:
        arguments = orjson.loads(written)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise bad_field(f"{place}.function.arguments", "arguments must be a JSON object, written as a string.")
    block = {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
    return _with_cache_control(block, call)


def _tool_result(message: dict[str, Any], place: str) -> Block:
    call_id, content = message.get("tool_call_id"), message.get("content")
    if not isinstance(call_id, str):
        raise bad_field(f"{place}.tool_call_id", "tool_call_id must be a string.")
    result: Block = {"type": "tool_result", "tool_use_id": call_id}
    if content is not None:
        result["content"] = content if isinstance(content, str) else _content(content, place)
    if message.get("is_error") is True:
        result["is_error"] = True
    return result


def _content(content: object, place: str) -> list[Block]:
    if not isinstance(content, list):
        return _texts(content, place)
    blocks: list[Block] = []
    for position, part in enumerate(content):
        where = f"{place}.content[{position}]"
        kind = part.get("type")
        if kind == "text":
            blocks += _text(part.get("text"), part, where)
        elif kind == "image_url":
            blocks.append(_with_cache_control(_image(part.get("image_url"), where), part))
        elif kind == "file":
            blocks.append(_with_cache_control(_document(part.get("file"), where), part))
        else:
            raise bad_field(f"{where}.type", f"A content part {kind!r} cannot be sent to this model.")
    return blocks


def _texts(content: object, place: str) -> list[Block]:
    """Content that is text only: a string, or parts of the kind `text`."""
    if not isinstance(content, list):
        return _text(content or "", {}, place)
    blocks: list[Block] = []
    for position, part in enumerate(content):
        where = f"{place}.content[{position}]"
        if part.get("type") != "text":
            raise bad_field(f"{where}.type", "The system prompt of this model is text only.")
        blocks += _text(part.get("text"), part, where)
    return blocks


def _text(text: object, part: dict[str, Any], place: str) -> list[Block]:
    """A block of text; none for blank text, which Anthropic refuses."""
    if not isinstance(text, str):
        raise bad_field(f"{place}.text", "text must be a string.")
    return [_with_cache_control({"type": "text", "text": text}, part)] if text.strip() else []


def _with_cache_control(block: Block, holder: dict[str, Any]) -> Block:
    if isinstance(holder.get("cache_control"), dict):
        block["cache_control"] = holder["cache_control"]
    return block


def _marked(message: dict[str, Any], blocks: list[Block]) -> list[Block]:
    """`cache_control` of a whole message stands at its last block."""
    if blocks and isinstance(message.get("cache_control"), dict):
        blocks[-1].setdefault("cache_control", message["cache_control"])
    return blocks


def _image(image: object, place: str) -> Block:
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str):
        raise bad_field(f"{place}.image_url.url", "An image must have a url, which is a string.")
    if url.startswith("https://"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, content = _from_data_url(url, f"{place}.image_url.url")
    if kind not in _IMAGE_KINDS:
        raise bad_field(f"{place}.image_url.url", f"This model takes images of these types: {', '.join(_IMAGE_KINDS)}.")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": content}}


def _document(file: object, place: str) -> Block:
    given = file if isinstance(file, dict) else {}
    url, field = given.get("file_data"), f"{place}.file.file_data"
    if not isinstance(url, str):
        raise bad_field(field, "A file must come with its file_data; ids of files of another vendor say nothing here.")
    source: Block
    if url.startswith("https://"):
        source = {"type": "url", "url": url}
    else:
        kind, content = _from_data_url(url, field)
        if kind == "application/pdf":
            source = {"type": "base64", "media_type": kind, "data": content}
        elif kind == "text/plain":
            source = {"type": "text", "media_type": kind, "data": _decoded(content, field)}
        else:
            raise bad_field(field, "This model takes files of these types: application/pdf, text/plain.")
    named = isinstance(given.get("filename"), str) and given["filename"]
    return {"type": "document", "source": source} | ({"title": given["filename"]} if named else {})


def _from_data_url(url: str, field: str) -> tuple[str, str | Tail]:
    """(media type, base64 text)."""
    head = _DATA_URL.match(url)
    if head is None:
        raise bad_field(field, "Must be an https address or a data URL in base64: data:image/png;base64,...")
    return head[1].lower().replace("image/jpg", "image/jpeg"), tail_of(url, head.end())


def _decoded(content: str | Tail, field: str) -> str:
    if isinstance(content, Tail):
        raise bad_field(field, f"A file of text may have {LARGE_BYTES >> 20} MB at most, written in base64.")
    try:
        return base64.b64decode(content, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise bad_field(field, "This file is no text in base64.") from None
