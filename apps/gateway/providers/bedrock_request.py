"""A Chat Completions request as one of Bedrock's Converse, for every model behind it. Pure.

Source: the shape `ConverseRequest` in the service model of bedrock-runtime, and AWS's pages on Converse."""

import re
from typing import Any, Final

import orjson

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.order import in_order
from apps.gateway.errors import bad_field
from apps.gateway.providers.anthropic_thinking import (
    asked_effort,
    habits_of,
    is_claude,
    thinking_blocks,
    thinking_fields,
)
from apps.gateway.providers.conversation import (
    COMMON_FIELDS,
    INSTRUCTING_ROLES,
    Function,
    Media,
    Tools,
    calls_of,
    media_of,
    names_of_calls,
    output_limit,
    parts_of,
    refused,
    stop_sequences,
    text_of,
    tools_of,
    unexpressed,
    wanted_schema,
)
from apps.gateway.providers.loss import refuse_unknown

_KNOWN: Final = COMMON_FIELDS | {
    "temperature", "top_p", "top_k", "stop", "response_format", "reasoning_effort", "reasoning", "service_tier",
}  # fmt: skip
MOST_TEMPERATURE: Final = 1
_NO_TEXT: Final = re.compile(r"\s*")
_NAME: Final = re.compile(r"[^A-Za-z0-9\-()\[\] ]+")
_TIERS: Final = ("flex", "priority")
_IMAGES: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_DOCUMENTS: Final = {
    "application/pdf": "pdf", "text/csv": "csv", "application/msword": "doc", "text/html": "html", "text/plain": "txt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx", "text/markdown": "md",
    "application/vnd.ms-excel": "xls", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}  # fmt: skip
_AUDIO: Final = {"audio/mp3": "mp3", "audio/mpeg": "mp3", "audio/wav": "wav", "audio/flac": "flac", "audio/ogg": "ogg"}
_VIDEO: Final = {"video/mp4": "mp4", "video/webm": "webm", "video/quicktime": "mov", "video/x-matroska": "mkv"}
_FORMATS: Final = {"image": _IMAGES, "document": _DOCUMENTS, "audio": _AUDIO, "video": _VIDEO}

Block = dict[str, Any]
_STOP_MET: Final = ("/stop_sequence", "/delta/stop_sequence")
"""Where Claude tells which stop sequence it met: in whole answers, and in streams. What a model does not have is left
out of the answer."""


def losses(chat: ChatRequest, model: OfferedModel, target: Target) -> tuple[str, ...]:
    """The fields of the request that the model will not see. Raises GatewayError (400) for a request that cannot be
    expressed at all."""
    return converse_request(chat, model, target)[1]


def converse_request(chat: ChatRequest, model: OfferedModel, target: Target) -> tuple[Block, tuple[str, ...]]:
    """The request, and the fields that are lost in it. Raises GatewayError (400) for what would change the answer if
    it were left out."""
    body = chat.body
    refuse_unknown(body, _KNOWN)
    lost = list(unexpressed(body, _KNOWN))
    system, messages = _conversation(body["messages"])
    request: Block = {"messages": messages}
    if system:
        request["system"] = system
    limit = output_limit(chat, model)
    request["inferenceConfig"] = {"maxTokens": limit}
    if stops := stop_sequences(body):
        request["inferenceConfig"]["stopSequences"] = stops
        if is_claude(target.upstream_model):
            request["additionalModelResponseFieldPaths"] = list(_STOP_MET)
    tools = tools_of(body)
    if config := _tool_config(tools, body, lost=lost):
        request["toolConfig"] = config
    _take_reasoning(body, request, target.upstream_model, lost=lost)
    _take_sampling(body, request, target.upstream_model, lost=lost)
    if output_format := _output_format(body):
        request.setdefault("outputConfig", {})["textFormat"] = output_format
    if body.get("service_tier") in _TIERS:
        request["serviceTier"] = {"type": body["service_tier"]}
    if not _sells_an_hour(model) and _shorten_cache_points(request):
        lost.append("cache_control.ttl")
    return request, tuple(lost)


def _sells_an_hour(model: OfferedModel) -> bool:
    """Whether keeping input in a cache for an hour, which costs more, has a price of its own."""
    return any(price.cache_write_1h is not None for price in model.prices)


def _shorten_cache_points(request: Block) -> bool:
    """Let all points have the usual lifetime; whether one had another."""
    holders = [request.get("system", []), request.get("toolConfig", {}).get("tools", [])]
    holders += [message["content"] for message in request["messages"]]
    points = [block["cachePoint"] for holder in holders for block in holder if "cachePoint" in block]
    lifetimes = [point.pop("ttl", None) for point in points]
    return any(lifetimes)


def _conversation(messages: list[dict[str, Any]]) -> tuple[list[Block], list[Block]]:
    """(system, turns). Turns alternate between user and assistant: neighbours of one role become one."""
    system: list[Block] = []
    turns: list[Block] = []
    for index, message in enumerate(messages):
        role, place = message["role"], f"messages[{index}]"
        if role in INSTRUCTING_ROLES:
            for where, part in parts_of(message, place):
                system += [{"text": text_of(part, where)}, *_cache_point(part)]
            system += _cache_point(message)
            continue
        if role == "assistant":
            blocks = [block for piece in in_order(message) for block in _assistant_blocks(piece, place)]
        elif role == "tool":
            blocks = [_tool_result(message, place)]
        elif role == "user":
            blocks = _blocks(message, place)
        else:
            raise bad_field(f"{place}.role", f"Unknown role {role!r}.")
        blocks += _cache_point(message) if blocks else []
        side = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == side:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": side, "content": blocks})
    if not turns:
        return [], [{"role": "user", "content": [block for block in system if "text" in block]}]
    return system, turns


def _assistant_blocks(message: dict[str, Any], place: str) -> list[Block]:
    blocks: list[Block] = []
    for thought in thinking_blocks(message):
        if thought["type"] == "thinking":
            text = {"text": thought["thinking"], "signature": thought["signature"]}
            blocks.append({"reasoningContent": {"reasoningText": text}})
        else:
            blocks.append({"reasoningContent": {"redactedContent": thought["data"]}})
    blocks += _blocks(message, place)
    for _, call_id, name, arguments in calls_of(message, place):
        blocks.append({"toolUse": {"toolUseId": call_id, "name": name, "input": arguments}})
    return blocks


def _tool_result(message: dict[str, Any], place: str) -> Block:
    content = [block for block in _blocks(message, place) if "cachePoint" not in block]
    result = {"toolUseId": str(message.get("tool_call_id") or ""), "content": content}
    return {"toolResult": {**result, "status": "error"} if message.get("is_error") is True else result}


def _blocks(message: dict[str, Any], place: str) -> list[Block]:
    blocks: list[Block] = []
    for where, part in parts_of(message, place):
        if part.get("type") == "thinking":
            continue
        if part.get("type") in ("text", "refusal"):
            text = text_of(part, where)
            blocks += [] if _NO_TEXT.fullmatch(text) else [{"text": text}]
        else:
            blocks.append(_media_block(part, where, number=len(blocks) + 1))
        blocks += _cache_point(part)
    return blocks


def _cache_point(holder: dict[str, Any]) -> list[Block]:
    """What Anthropic writes as `cache_control` on a part is a block of its own behind it here."""
    marked = holder.get("cache_control")
    if not isinstance(marked, dict):
        return []
    point = {"type": "default"} | ({"ttl": "1h"} if marked.get("ttl") == "1h" else {})
    return [{"cachePoint": point}]


def _media_block(part: dict[str, Any], place: str, *, number: int) -> Block:
    """Media come with the request. An address in S3 would be opened with our credential, and is not the caller's."""
    media = media_of(part, place)
    if media.address:
        raise refused(place, "A file at an address")
    mime_type = media.mime_type.lower() or "image/png"
    kind = mime_type.partition("/")[0]
    kind = kind if kind in _FORMATS and kind != "document" else "document"
    known = _FORMATS[kind].get(mime_type)
    if known is None:
        raise refused(place, f"A file of the type {mime_type[:60]}")
    block: Block = {"format": known, "source": {"bytes": media.base64}}
    if kind == "document":
        block["name"] = _document_name(media, number)
    return {kind: block}


def _document_name(media: Media, number: int) -> str:
    """Only some characters are allowed, and no two spaces together."""
    plain = " ".join(_NAME.sub(" ", media.name.rpartition(".")[0]).split())
    return f"{plain or 'document'} {number}"[-200:].strip()


def _tool_config(tools: Tools, body: dict[str, Any], *, lost: list[str]) -> Block:
    """Earlier calls need the tools that they called, even where none is offered any more. There is no way to forbid
    calls but to offer nothing."""
    functions = tools.functions if tools.choice != "none" else ()
    called = set(names_of_calls(body["messages"]).values())
    if not functions and called:
        functions = tools.functions or tuple(Function(name, "", None, None) for name in sorted(called))
        if tools.choice == "none":
            lost.append("tool_choice")
    if not functions:
        return {}
    config: Block = {"tools": [_tool_spec(function) for function in functions]}
    marked = [_cache_point(tool) for tool in body.get("tools") or () if isinstance(tool, dict)]
    config["tools"] += next((point for point in reversed(marked) if point), [])
    if tools.choice == "required":
        config["toolChoice"] = {"any": {}}
    elif tools.choice == "function":
        config["toolChoice"] = {"tool": {"name": tools.name}}
    return config


def _tool_spec(function: Function) -> Block:
    spec: Block = {"name": function.name, "inputSchema": {"json": {"type": "object", **(function.parameters or {})}}}
    if function.description:
        spec["description"] = function.description
    if function.strict:
        spec["strict"] = True
    return {"toolSpec": spec}


def _take_reasoning(body: dict[str, Any], request: Block, upstream_model: str, *, lost: list[str]) -> None:
    """Claude's thinking and the effort of OpenAI's open models are fields of these models, beside Converse's own."""
    effort = asked_effort(body)
    field = "reasoning_effort" if body.get("reasoning_effort") is not None else "reasoning"
    if body.get("reasoning") and (field == "reasoning_effort" or effort is None):
        lost.append("reasoning")
    if effort is None:
        return
    if effort == "none":
        if not is_claude(upstream_model):
            lost.append(field)
        elif habits_of(upstream_model, "auto").thinks_unasked:
            lost.append(field)
            request["outputConfig"] = {"effort": "low"}
        return
    extra = request.setdefault("additionalModelRequestFields", {})
    if "openai.gpt-oss" in upstream_model and effort in ("low", "medium", "high"):
        extra["reasoning_effort"] = effort
    elif is_claude(upstream_model) and not _forbids_thinking(request):
        limit = request["inferenceConfig"]["maxTokens"]
        fields = thinking_fields(effort, habits_of(upstream_model, "auto"), limit)
        output = fields.pop("output_config", None)
        extra |= fields
        if output:
            request.setdefault("outputConfig", {})["effort"] = output["effort"]
    if not extra:
        del request["additionalModelRequestFields"]
        lost.append(field)


def _forbids_thinking(request: Block) -> bool:
    """Claude does not think where a call is forced, nor after calls that it made without the thoughts before them."""
    if "toolChoice" in request.get("toolConfig", {}):
        return True
    turns = [turn for turn in request["messages"] if turn["role"] == "assistant"]
    is_answered = any("toolResult" in block for block in request["messages"][-1]["content"])
    return bool(turns) and is_answered and "reasoningContent" not in turns[-1]["content"][0]


def _take_sampling(body: dict[str, Any], request: Block, upstream_model: str, *, lost: list[str]) -> None:
    """Converse takes a temperature up to 1; Claude one of temperature and top_p, none beside thinking, and none at all
    since 4.7."""
    names = {"temperature": "temperature", "top_p": "topP"}
    asked = [name for name in names if body.get(name) is not None]
    config, extra = request["inferenceConfig"], request.get("additionalModelRequestFields", {})
    takes_any = True
    if is_claude(upstream_model):
        takes_any = habits_of(upstream_model, "auto").samples and "thinking" not in extra
        asked = [name for name in asked if body[name] != 1]
    for position, name in enumerate(asked):
        if takes_any and (position == 0 or not is_claude(upstream_model)):
            config[names[name]] = min(body[name], MOST_TEMPERATURE)
        if config.get(names[name]) != body[name]:
            lost.append(name)
    if body.get("top_k") is not None:
        if takes_any and is_claude(upstream_model):
            request.setdefault("additionalModelRequestFields", {})["top_k"] = body["top_k"]
        else:
            lost.append("top_k")


def _output_format(body: dict[str, Any]) -> Block | None:
    kind, schema = wanted_schema(body)
    if kind == "json_object":
        message = "This model answers in JSON by a schema only: use the type json_schema."
        raise bad_field("response_format.type", message)
    if schema is None:
        return None
    described = body["response_format"]["json_schema"]
    named = {name: described[name] for name in ("name", "description") if isinstance(described.get(name), str)}
    return {"type": "json_schema", "structure": {"jsonSchema": {"schema": _as_text(schema), **named}}}


def _as_text(schema: dict[str, Any]) -> str:
    return orjson.dumps(schema).decode()
