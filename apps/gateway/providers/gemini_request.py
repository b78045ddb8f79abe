"""A Chat Completions request as Gemini's GenerateContentRequest. Pure.

Source: the reference of `models.generateContent` and Google's pages on thinking and thought signatures."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.order import in_order
from apps.gateway.errors import bad_field
from apps.gateway.providers.conversation import (
    COMMON_FIELDS,
    INSTRUCTING_ROLES,
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
from apps.gateway.providers.gemini_schema import to_gemini_schema
from apps.gateway.providers.loss import refuse_unknown

_SAME_MEANING: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "top_logprobs": "logprobs",
}
_KNOWN: Final = COMMON_FIELDS | {
    *_SAME_MEANING,
    "n",
    "stop",
    "logprobs",
    "response_format",
    "reasoning_effort",
    "modalities",
}
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}
_BUDGETS: Final = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 24_576}
"""reasoning_effort -> tokens of thought, as Google's own OpenAI-compatible endpoint has them."""
_LEAST_OF_PRO: Final = 128
"""Gemini 2.5 Pro cannot stop thinking."""
_GENERATION: Final = re.compile(r"gemini-(\d+)")
_OWN_HOST: Final = "generativelanguage.googleapis.com"
_VIDEO_SITES: Final = ("youtube.com", "youtu.be")
"""Google watches these, whatever type of a file is named: hours of video, where the price of an image is held."""
UNSIGNED: Final = "skip_thought_signature_validator"
"""What Google wants in place of a signature that was never made or got lost."""


def losses(chat: ChatRequest, model: OfferedModel, target: Target) -> tuple[str, ...]:
    """The request fields that have no counterpart here and are left out."""
    body = chat.body
    lost = list(unexpressed(body, _KNOWN))
    if any(function.strict for function in tools_of(body).functions):
        lost.append("tools.strict")
    parts = [part for message in body["messages"] for _, part in parts_of(message, "")]
    if any("cache_control" in holder for holder in (*body["messages"], *parts, *(body.get("tools") or ()))):
        lost.append("cache_control")
    if any(message.get("reasoning_details") for message in body["messages"]):
        lost.append("messages.reasoning_details")
    return tuple(lost)


def request_body(chat: ChatRequest, model: OfferedModel, target: Target) -> dict[str, Any]:
    """The GenerateContentRequest. Raises GatewayError (400) for what cannot be left out silently."""
    refuse_unknown(chat.body, _KNOWN)
    takes_json_schema = target.options["api_version"] != "v1"
    instructions, contents = _conversation(chat.body["messages"], is_signed=_thinks_by_level(target.upstream_model))
    _refuse_files_of(urlsplit(target.base_url).hostname or "", contents)
    if not contents:
        instructions, contents = [], [{"role": "user", "parts": instructions}]
    request: dict[str, Any] = {"contents": contents}
    if instructions:
        request["systemInstruction"] = {"parts": instructions}
    tools = tools_of(chat.body)
    if tools.functions:
        request["tools"] = [{"functionDeclarations": _declarations(tools, takes_json_schema=takes_json_schema)}]
        request["toolConfig"] = {"functionCallingConfig": _calling(tools)}
    request["generationConfig"] = _generation(chat, model, target, takes_json_schema=takes_json_schema)
    return request


def _conversation(
    messages: list[dict[str, Any]], *, is_signed: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(parts of the instructions, contents)."""
    names = names_of_calls(messages)
    instructions: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    answers_calls = False
    for index, message in enumerate(messages):
        role, place = message["role"], f"messages[{index}]"
        if role in INSTRUCTING_ROLES:
            instructions += [{"text": text_of(part, where)} for where, part in parts_of(message, place)]
            continue
        if role == "tool":
            parts = _call_answer(message, names, place)
        elif role == "assistant":
            parts = _model_parts(message, place, is_signed=is_signed)
        elif role == "user":
            parts = [_part(part, where) for where, part in parts_of(message, place)]
        else:
            raise bad_field(f"{place}.role", f"Unknown role {role!r}.")
        if role == "tool" and answers_calls:
            contents[-1]["parts"] += parts  # answers to calls that were made together belong together
        elif parts:
            contents.append({"role": "model" if role == "assistant" else "user", "parts": parts})
        answers_calls = role == "tool"
    return instructions, contents


def _model_parts(message: dict[str, Any], place: str, *, is_signed: bool) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for piece in in_order(message):
        said = _said_parts(piece, place)
        if said and (signature := _signature(piece)):
            said[-1]["thoughtSignature"] = signature
        parts += said
        for call, call_id, name, arguments in calls_of(piece, place):
            part: dict[str, Any] = {"functionCall": {"id": call_id, "name": name, "args": arguments}}
            is_first = not any("functionCall" in each for each in parts)
            signature = _signature(call)
            if signature or (is_signed and is_first):
                part["thoughtSignature"] = signature or UNSIGNED
            parts.append(part)
    return parts


def _said_parts(message: dict[str, Any], place: str) -> list[dict[str, Any]]:
    return [
        {"text": text_of(part, where)} if part.get("type") in ("text", "refusal") else _part(part, where)
        for where, part in parts_of(message, place)
        if part.get("type") != "thinking"
    ]


def _signature(holder: dict[str, Any]) -> str:
    """Where Google's own OpenAI-compatible endpoint has it: extra_content.google.thought_signature."""
    extra = holder.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else ""


def _call_answer(message: dict[str, Any], names: dict[str, str], place: str) -> list[dict[str, Any]]:
    """What a function gave. An object is passed on as such; text becomes the `output` of one."""
    call_id = str(message.get("tool_call_id") or "")
    name = names.get(call_id) or message.get("name")
    if not isinstance(name, str):
        raise bad_field(f"{place}.tool_call_id", "No earlier message makes the call that this one answers.")
    whole = [(where, part) for where, part in parts_of(message, place)]
    text = "\n".join(text_of(part, where) for where, part in whole if part.get("type") == "text")
    response = {"error": text} if message.get("is_error") is True else _response(text)
    answer = {"functionResponse": {"id": call_id, "name": name, "response": response}}
    return [answer, *(_part(part, where) for where, part in whole if part.get("type") != "text")]


def _response(text: str) -> dict[str, Any]:
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"output": text}


def _part(part: dict[str, Any], place: str) -> dict[str, Any]:
    if part.get("type") in ("text", "refusal"):
        return {"text": text_of(part, place)}
    media = media_of(part, place)
    if media.address:
        mime_type = media.mime_type
        if part["type"] == "image_url":
            if _is_of(urlsplit(media.address).hostname, *_VIDEO_SITES):
                raise refused(place, "A video as an image")
            mime_type = mime_type or "image/jpeg"
        return {"fileData": {"fileUri": media.address} | ({"mimeType": mime_type} if mime_type else {})}
    return {"inlineData": {"mimeType": media.mime_type, "data": media.base64}}


def _refuse_files_of(host: str, contents: list[dict[str, Any]]) -> None:
    """400 for addresses that our credential would open: what is stored there is not the caller's."""
    for content in contents:
        for part in content["parts"]:
            address = urlsplit(part["fileData"]["fileUri"]) if "fileData" in part else None
            if address is not None and (address.scheme != "https" or _is_of(address.hostname, host, _OWN_HOST)):
                raise refused("messages", "A file at this address")


def _is_of(host: str | None, *sites: str) -> bool:
    """Whether a host is one of these, or below one."""
    name = (host or "").rstrip(".")
    return any(name == site or name.endswith(f".{site}") for site in sites)


def _declarations(tools: Tools, *, takes_json_schema: bool) -> list[dict[str, Any]]:
    declarations = []
    for index, function in enumerate(tools.functions):
        declared: dict[str, Any] = {"name": function.name, "description": function.description}
        if function.parameters and takes_json_schema:
            declared["parametersJsonSchema"] = function.parameters
        elif function.parameters:
            declared["parameters"] = to_gemini_schema(function.parameters, f"tools[{index}].function.parameters")
        declarations.append(declared)
    return declarations


def _calling(tools: Tools) -> dict[str, Any]:
    calling: dict[str, Any] = {"mode": _MODES[tools.choice]}
    if tools.name:
        calling["allowedFunctionNames"] = [tools.name]
    return calling


def _generation(chat: ChatRequest, model: OfferedModel, target: Target, *, takes_json_schema: bool) -> dict[str, Any]:
    body = chat.body
    wanted: dict[str, Any] = {"maxOutputTokens": output_limit(chat, model)}
    wanted |= {theirs: body[ours] for ours, theirs in _SAME_MEANING.items() if body.get(ours) is not None}
    if chat.choices > 1:
        wanted["candidateCount"] = chat.choices
    if stops := stop_sequences(body):
        wanted["stopSequences"] = stops
    if body.get("logprobs") is True:
        wanted["responseLogprobs"] = True
    else:
        wanted.pop("logprobs", None)
    kind, schema = wanted_schema(body)
    if kind != "text":
        wanted["responseMimeType"] = "application/json"
    if schema is not None and takes_json_schema:
        wanted["responseJsonSchema"] = schema
    elif schema is not None:
        wanted["responseSchema"] = to_gemini_schema(schema, "response_format.json_schema.schema")
    if thinking := _thinking(body.get("reasoning_effort"), target.upstream_model):
        wanted["thinkingConfig"] = thinking
    if modalities := _modalities(body.get("modalities")):
        wanted["responseModalities"] = modalities
    return wanted


def _thinks_by_level(upstream_model: str) -> bool:
    """From Gemini 3 on thinking has levels, and calls of functions are signed."""
    found = _GENERATION.search(upstream_model)
    return found is not None and int(found.group(1)) >= 3


def _thinking(effort: object, upstream_model: str) -> dict[str, Any]:
    if effort is None:
        return {}
    if effort not in _BUDGETS:
        raise bad_field("reasoning_effort", f"reasoning_effort must be one of: {', '.join(_BUDGETS)}.")
    if _thinks_by_level(upstream_model):
        least = "minimal" if "flash" in upstream_model else "low"
        level = {"none": least, "minimal": least, "xhigh": "high"}.get(str(effort), str(effort))
        return {"thinkingLevel": level, "includeThoughts": effort != "none"}
    budget = _BUDGETS[str(effort)] or (_LEAST_OF_PRO if "pro" in upstream_model else 0)
    return {"thinkingBudget": budget, "includeThoughts": effort != "none"}


def _modalities(modalities: object) -> list[str]:
    if not isinstance(modalities, list) or modalities == ["text"]:
        return []
    if not set(map(str, modalities)) <= {"text", "image"}:
        raise refused("modalities", "Output other than text and images")
    return [str(each).upper() for each in modalities]
