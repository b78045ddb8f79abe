"""A Chat Completions request taken apart, for dialects that have its pieces in another form. Pure."""

import mimetypes
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from apps.catalog.contracts import OUTPUT_LIMIT_FIELDS, OfferedModel
from apps.gateway.dialects.chat import OWN_FIELDS, ChatRequest
from apps.gateway.dialects.large_content import Tail, tail_of
from apps.gateway.errors import GatewayError, bad_field
from apps.gateway.providers.loss import SAID_BY_SILENCE

INSTRUCTING_ROLES: Final = ("system", "developer")
COMMON_FIELDS: Final = frozenset(
    (*OWN_FIELDS, *OUTPUT_LIMIT_FIELDS, "model", "messages", "stream", "stream_options", "tools", "tool_choice")
)
"""Request fields that each dialect takes, or that are CRUN's own."""
_MIME_TYPES: Final = {"image_url": "image/", "input_audio": "audio/", "video_url": "video/"}
"""Kind of a part -> how the type of its file begins. What is held for a file goes by the kind of its part."""
_MAX_HEAD: Final = 1_024
"""Before its content a data URL has no more than a type with a few attributes."""


class Media(NamedTuple):
    """A file of a content part: its bytes in base64, or the address where the vendor finds it."""

    mime_type: str
    base64: str | Tail = ""
    address: str = ""
    name: str = ""


class Function(NamedTuple):
    """A tool that the model may call."""

    name: str
    description: str
    parameters: dict[str, Any] | None
    strict: bool | None


class Tools(NamedTuple):
    """The functions on offer, and whether one must be called: `auto`, `none`, `required`, or `function` for `name`."""

    functions: tuple[Function, ...] = ()
    choice: str = "auto"
    name: str = ""


def is_function(tool: object) -> bool:
    """Whether a tool is of the kind that every dialect has. Others are dropped and named, unless one is forced."""
    return isinstance(tool, dict) and tool.get("type", "function") == "function"


def unexpressed(body: dict[str, Any], known: frozenset[str]) -> tuple[str, ...]:
    """The request fields that say something and are not among `known`, the tools that are no functions, and what only
    OpenAI takes within messages."""
    fields = [
        field
        for field, value in body.items()
        if field not in known and value is not None and value not in SAID_BY_SILENCE.get(field, ())
    ]
    tools = [f"tools[{index}]" for index, tool in enumerate(body.get("tools") or ()) if not is_function(tool)]
    return (*fields, *tools, *_unexpressed_in(body["messages"]))


def output_limit(chat: ChatRequest, model: OfferedModel) -> int:
    """What each choice may have, in tokens: the caller's bound or ours, never more than the model's."""
    limit = chat.output_cut if chat.output_cut is not None else chat.asked_output
    return model.max_output_tokens if limit is None else min(limit, model.max_output_tokens)


def stop_sequences(body: dict[str, Any]) -> list[str]:
    """`stop` as a list."""
    stop = body.get("stop")
    return [stop] if isinstance(stop, str) else list(stop or ())


def parts_of(message: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The content parts of a message with their places; a string is one part of text, and so is a refusal. Empty text
    is none. Raises GatewayError (400) for an earlier answer that only its vendor has."""
    if message.get("audio"):
        raise refused(f"{place}.audio", "An earlier answer in sound")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for position, part in enumerate(content or ()):
        if part.get("type") != "text" or part.get("text"):
            yield f"{place}.content[{position}]", part
    if message.get("refusal"):
        yield f"{place}.refusal", {"type": "refusal", "refusal": message["refusal"]}


def text_of(part: dict[str, Any], place: str) -> str:
    """The text of a part of text, or of a refusal. Raises GatewayError (400) where it has none."""
    text = part.get(part["type"]) if part.get("type") in ("text", "refusal") else None
    if not isinstance(text, str):
        raise bad_field(place, "A text part must have its text, which is a string.")
    return text


def calls_of(message: dict[str, Any], place: str) -> Iterator[tuple[dict[str, Any], str, str, dict[str, Any]]]:
    """(call, id, name, arguments) of each call that an assistant's message makes. Raises GatewayError (400) for a call
    that cannot be read."""
    if message.get("function_call") is not None:
        raise bad_field(f"{place}.function_call", "function_call is not supported by this model; use tool_calls.")
    for position, call in enumerate(message.get("tool_calls") or ()):
        where = f"{place}.tool_calls[{position}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise bad_field(where, "A tool call must be of a function, with its name.")
        yield call, str(call.get("id") or ""), function["name"], _arguments(function.get("arguments"), where)


def names_of_calls(messages: list[dict[str, Any]]) -> dict[str, str]:
    """Id of a call -> the name of its function, for all calls of a conversation."""
    return {
        call_id: name
        for index, message in enumerate(messages)
        if message["role"] == "assistant"
        for _, call_id, name, _ in calls_of(message, f"messages[{index}]")
    }


def media_of(part: dict[str, Any], place: str) -> Media:
    """The file of a part. Raises GatewayError (400) for one that is not there, or of another kind than its part."""
    media, wanted = _file_of(part, place), _MIME_TYPES.get(str(part.get("type")), "")
    if media.mime_type and not media.mime_type.lower().startswith(wanted):
        raise bad_field(place, f"A part of type {part['type']} must have a file of a type {wanted}*.")
    return media


def _file_of(part: dict[str, Any], place: str) -> Media:
    kind = str(part.get("type"))
    holder = part.get(kind)
    if not isinstance(holder, dict):
        raise bad_field(place, f"A part of type {kind} must have an object {kind}.")
    if kind == "input_audio":
        return _media(holder.get("data"), f"audio/{holder.get('format') or 'wav'}", place=place)
    if kind == "file":
        name = holder.get("filename")
        name = name if isinstance(name, str) else ""
        if holder.get("file_data") is None:
            raise bad_field(f"{place}.file", "Files must come with the request, in file_data: none are stored here.")
        assumed = mimetypes.guess_type(name)[0] or "application/pdf"
        return _media(holder["file_data"], assumed, place=place)._replace(name=name)
    return _media(holder.get("url"), "", place=place)


def tools_of(body: dict[str, Any]) -> Tools:
    """The functions of a request and the choice among them. Raises GatewayError (400) for a function that cannot be
    read, and for a call that is forced and impossible. Tools of other kinds are left out."""
    functions = tuple(
        _function(tool, f"tools[{index}]") for index, tool in enumerate(body.get("tools") or ()) if is_function(tool)
    )
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        functions, choice = _allowed(functions, choice.get("allowed_tools"))
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not any(name == offered.name for offered in functions):
            raise bad_field("tool_choice", "tool_choice forces a tool that is no function of this request.")
        return Tools(functions, "function", str(name))
    if choice not in ("auto", "none", "required"):
        raise bad_field("tool_choice", "tool_choice must be auto, none, required or an object.")
    if choice == "required" and not functions:
        raise bad_field("tool_choice", "tool_choice requires a call, and there is no function to be called.")
    return Tools(functions, choice)


def wanted_schema(body: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """(`text`, `json_object` or `json_schema`, the schema). Raises GatewayError (400) for other formats."""
    wanted = body.get("response_format") or {"type": "text"}
    kind = wanted.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise bad_field("response_format.type", "Must be text, json_object or json_schema.")
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if kind == "json_schema" and not isinstance(schema, dict):
        raise bad_field("response_format.json_schema", "A json_schema must have a schema, which is an object.")
    return kind, schema if kind == "json_schema" else None


def _unexpressed_in(messages: list[dict[str, Any]]) -> Iterator[str]:
    if any(message.get("name") and message["role"] != "tool" for message in messages):
        yield "messages.name"
    parts = (part for message in messages if isinstance(message.get("content"), list) for part in message["content"])
    images = (part.get("image_url") for part in parts)
    if any(isinstance(image, dict) and image.get("detail") not in (None, "auto") for image in images):
        yield "image_url.detail"


def _arguments(arguments: object, place: str) -> dict[str, Any]:
    try:
        parsed = orjson.loads(arguments) if isinstance(arguments, str) and arguments.strip() else {}
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        raise bad_field(f"{place}.function.arguments", "The arguments of a call must be a JSON object, as a string.")
    return parsed


def _media(source: object, assumed: str, *, place: str) -> Media:
    """A data URL, an address, or bare base64."""
    if not isinstance(source, str) or not source:
        raise bad_field(place, "The part has no content: neither a URL nor data.")
    if source.startswith("data:"):
        comma = source.find(",", 0, _MAX_HEAD)
        mime_type, *attributes = source[5 : max(comma, 0)].split(";")
        if comma < 0 or "base64" not in attributes:
            raise bad_field(place, "A data URL must be in base64.")
        return Media(mime_type or assumed, base64=tail_of(source, comma + 1))
    if "://" in source[:20]:
        return Media(mimetypes.guess_type(source.partition("?")[0])[0] or assumed, address=source)
    if not assumed:
        raise bad_field(place, "A URL must begin with https:// or data:.")
    return Media(assumed, base64=source)


def _function(tool: dict[str, Any], place: str) -> Function:
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad_field(f"{place}.function", "A function must be an object with a name.")
    parameters, description = function.get("parameters"), function.get("description")
    if parameters is not None and not isinstance(parameters, dict):
        raise bad_field(f"{place}.function.parameters", "The parameters of a function must be a JSON Schema.")
    strict = function.get("strict")
    return Function(
        function["name"],
        description if isinstance(description, str) else "",
        parameters,
        strict if isinstance(strict, bool) else None,
    )


def _allowed(functions: tuple[Function, ...], allowed: object) -> tuple[tuple[Function, ...], str]:
    """A choice among some of the functions only: the others are not offered."""
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
        raise bad_field("tool_choice.allowed_tools", "allowed_tools must be an object with a list of tools.")
    functions_named = [tool.get("function") for tool in allowed["tools"] if isinstance(tool, dict)]
    names = [function.get("name") for function in functions_named if isinstance(function, dict)]
    return tuple(each for each in functions if each.name in names), str(allowed.get("mode") or "auto")


def refused(place: str, what: str) -> GatewayError:
    """400 for what the model's provider has no form for."""
    return bad_field(place, f"{what} cannot be passed on to this model's provider.")
