"""System prompt and turns of the Messages API as messages of Chat Completions, for upstreams of any dialect. Pure.

Source: `MessageParam` and the content blocks in the Messages API reference of Anthropic.
"""

import base64
from collections.abc import Callable
from typing import Any, Final

from apps.gateway.dialects.media_addresses import check_addresses_within
from apps.gateway.dialects.order import joined
from apps.gateway.dialects.thoughts import CLAUDE, Carried, is_packed, unpack
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.errors import bad_field

Block = dict[str, Any]
Lost = list[str]
_THOUGHTS: Final = ("thinking", "redacted_thinking")
_INSTRUCTING: Final = ("system", "developer")


def chat_messages(system: Any, messages: Any, lost: Lost) -> list[dict[str, Any]]:
    """The same conversation; what has no place in it is added to `lost`. Raises GatewayError (400) naming the place of
    what is wrong."""
    if type(messages) is not list or not messages:
        raise bad_field("messages", "messages must be a list with at least one message.")
    made = [_instruction(system, "system")] if system not in (None, "", []) else []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if type(message) is not dict:
            raise bad_field(place, "A message must be an object.")
        role, content = message.get("role"), message.get("content")
        blocks = _blocks(content, f"{place}.content")
        if role == "user":
            made += _user(blocks, f"{place}.content", lost)
        elif role == "assistant":
            made.append(_assistant(blocks, f"{place}.content", lost))
        elif role in _INSTRUCTING:
            made.append(_instruction(content, f"{place}.content"))
        else:
            raise bad_field(f"{place}.role", "The role of a message must be user, assistant or system.")
    return made


def _blocks(content: Any, place: str) -> list[Block]:
    """Content as a list of blocks. Raises GatewayError for what is neither text nor such a list."""
    if type(content) is str:
        return [{"type": "text", "text": content}]
    if type(content) is not list:
        raise bad_field(place, "content must be a string or a list of content blocks.")
    for index, block in enumerate(content):
        if type(block) is not dict or type(block.get("type")) is not str:
            raise bad_field(f"{place}[{index}]", "A content block must be an object with a type.")
    return content


def _instruction(content: Any, place: str) -> dict[str, Any]:
    if type(content) is str:
        return {"role": "system", "content": content}
    blocks = _blocks(content, place)
    for index, block in enumerate(blocks):
        if block["type"] != "text":
            raise bad_field(f"{place}[{index}].type", "The system prompt has blocks of text only.")
    return {"role": "system", "content": [_text(block, f"{place}[{index}]") for index, block in enumerate(blocks)]}


def _user(blocks: list[Block], place: str, lost: Lost) -> list[dict[str, Any]]:
    """A turn of the user: each result of a tool is a message of its own, and what stands between them too."""
    made: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        where = f"{place}[{index}]"
        if block["type"] == "tool_result":
            made.append(_tool_result(block, where, lost))
            continue
        parts = _parts(block, where, lost)
        if not parts:
            continue
        if not made or made[-1]["role"] != "user":
            made.append({"role": "user", "content": []})
        made[-1]["content"] += parts
    return made or [{"role": "user", "content": ""}]


def _tool_result(block: Block, place: str, lost: Lost) -> dict[str, Any]:
    call_id, content = block.get("tool_use_id"), block.get("content")
    if type(call_id) is not str:
        raise bad_field(f"{place}.tool_use_id", "tool_use_id must be a string.")
    message: dict[str, Any] = {"role": "tool", "tool_call_id": call_id}
    if content is None or type(content) is str:
        message["content"] = content or ""
    else:
        inner = _blocks(content, f"{place}.content")
        parts = [_parts(each, f"{place}.content[{index}]", lost) for index, each in enumerate(inner)]
        message["content"] = [part for made in parts for part in made] or ""
    if block.get("is_error") is True:
        message["is_error"] = True
    return _marked(message, block)


def _assistant(blocks: list[Block], place: str, lost: Lost) -> dict[str, Any]:
    """An earlier answer: its thoughts, its text and its calls, and in which order they were said."""
    pieces: list[Block] = []
    extras: dict[str, Block] = {}
    has_thought = False
    for index, block in enumerate(blocks):
        where, kind = f"{place}[{index}]", block["type"]
        if kind == "text":
            pieces.append({"content": [_text(block, where)]})
        elif kind == "tool_use":
            pieces.append({"tool_calls": [_call(block, where)]})
        elif kind in _THOUGHTS:
            thought, carried = _thought(block)
            if thought:
                pieces.append({"reasoning_content": f"\n\n{thought}" if has_thought else thought})
                has_thought = True
            pieces.append({"reasoning_details": carried.details})
            extras |= carried.extras
        else:
            lost.append(f"messages.{kind}")
    message = joined(_in_one_piece(pieces))
    for call in message.get("tool_calls", ()):
        if call["id"] in extras:
            call["extra_content"] = extras[call["id"]]
    if message["content"] is None and "tool_calls" not in message:
        message["content"] = ""
    return {name: value for name, value in message.items() if value != []}


def _in_one_piece(pieces: list[Block]) -> list[Block]:
    """Text in one piece, unless somebody marked a part of it for the cache."""
    texts = [piece["content"][0] for piece in pieces if "content" in piece]
    if any("cache_control" in text for text in texts):
        return pieces
    return [{"content": piece["content"][0]["text"]} if "content" in piece else piece for piece in pieces]


def _thought(block: Block) -> tuple[str, Carried]:
    """(the text of a thought that nobody signed, what is to be sent back to its vendor)."""
    if block["type"] == "redacted_thinking":
        data = block.get("data")
        sealed = {"type": "reasoning.encrypted", "data": data, "format": CLAUDE}
        return "", Carried([sealed] if isinstance(data, str) else [], {})
    thought, signature = block.get("thinking"), block.get("signature")
    thought = thought if isinstance(thought, str) else ""
    if isinstance(signature, str) and signature and not is_packed(signature):
        detail = {"type": "reasoning.text", "text": thought, "signature": signature, "format": CLAUDE}
        return "", Carried([detail], {})
    return thought, unpack(signature) if isinstance(signature, str) else Carried([], {})


def _call(block: Block, place: str) -> Block:
    call_id, name, given = block.get("id"), block.get("name"), block.get("input")
    if type(call_id) is not str or type(name) is not str or not name:
        raise bad_field(place, "A tool_use block must have an id and a name.")
    if given is not None and type(given) is not dict:
        raise bad_field(f"{place}.input", "The input of a tool must be an object.")
    call = {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": write_json(given or {}).decode()},
    }
    return _marked(call, block)


def _parts(block: Block, place: str, lost: Lost) -> list[Block]:
    """A block of the user, or of a tool's result, as content parts."""
    make = _OF_KIND.get(block["type"])
    if make is None:
        check_addresses_within(place, block, fields=("url",))
        lost.append(f"messages.{block['type']}")
        return []
    return make(block, place, lost)


def _text(block: Block, place: str) -> Block:
    if type(block.get("text")) is not str:
        raise bad_field(f"{place}.text", "text must be a string.")
    return _marked({"type": "text", "text": block["text"]}, block)


def _text_parts(block: Block, place: str, lost: Lost) -> list[Block]:
    return [_text(block, place)]


def _image(block: Block, place: str, lost: Lost) -> list[Block]:
    url = _address(block.get("source"), f"{place}.source")
    return [_marked({"type": "image_url", "image_url": {"url": url}}, block)]


def _document(block: Block, place: str, lost: Lost) -> list[Block]:
    """A file; a document that is text is text with its title before it."""
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if isinstance(block.get("citations"), dict) and block["citations"].get("enabled"):
        lost.append("citations")
    head = "\n".join(each for each in (block.get("title"), block.get("context")) if isinstance(each, str) and each)
    if isinstance(source, dict) and kind in ("text", "content"):
        inner = source.get("data") if kind == "text" else source.get("content")
        parts = [
            part
            for index, each in enumerate(_blocks(inner, f"{place}.source"))
            for part in _parts(each, f"{place}.source.content[{index}]", lost)
        ]
        parts = [{"type": "text", "text": head}, *parts] if head else parts
        return [*parts[:-1], _marked(parts[-1], block)] if parts else []
    url = _address(source, f"{place}.source")
    title = block.get("title") if isinstance(block.get("title"), str) else ""
    file = {"file_data": url, "filename": title or "document.pdf"}
    return [_marked({"type": "file", "file": file}, block)]


def _search_result(block: Block, place: str, lost: Lost) -> list[Block]:
    texts = [each.get("text") for each in _blocks(block.get("content"), f"{place}.content")]
    lines = [block.get("title"), block.get("source"), *texts]
    text = "\n".join(line for line in lines if isinstance(line, str) and line)
    return [_marked({"type": "text", "text": text}, block)] if text else []


def _address(source: Any, place: str) -> str:
    """Where a file is: an https address, or a data URL. Raises GatewayError for a file that is stored elsewhere."""
    kind = source.get("type") if isinstance(source, dict) else None
    if kind == "url" and isinstance(source.get("url"), str):
        return str(source["url"])
    if kind == "base64" and isinstance(source.get("data"), str) and isinstance(source.get("media_type"), str):
        return f"data:{source['media_type']};base64,{source['data']}"
    if kind == "text" and isinstance(source.get("data"), str):
        return f"data:text/plain;base64,{base64.b64encode(source['data'].encode()).decode()}"
    if kind == "file":
        raise bad_field(place, "Files must come with the request: none are stored here.")
    raise bad_field(place, "source must be of the type base64, text, content or url, with its fields.")


def _marked(made: Block, holder: Block) -> Block:
    if isinstance(holder.get("cache_control"), dict):
        made["cache_control"] = holder["cache_control"]
    return made


_OF_KIND: Final[dict[str, Callable[[Block, str, Lost], list[Block]]]] = {
    "text": _text_parts,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}
