"""What an upstream of each dialect understands of a request: its shape is checked against its vendor's own, then read.

Shapes: the parameter types of the SDKs of OpenAI and Anthropic, botocore's service model of bedrock-runtime, and the
reference of Google's `models.generateContent`."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import orjson
from anthropic.types import message_create_params
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from pydantic import TypeAdapter

from tests.upstream.scripted import Received

Turn = tuple[str, list[tuple[Any, ...]]]


class Heard(NamedTuple):
    """A request, whichever dialect it came in."""

    system: str
    turns: list[Turn]
    """Role (`user`, `assistant`), with text, image, call and result in their order."""
    tools: dict[str, Any]
    """Name -> schema."""
    schema: Any
    """Of the answer; None where it is free."""
    thinks: bool
    limit: int
    stops: list[str]
    streams: bool


def heard(dialect: str, received: Received) -> Heard:
    """Raises AssertionError or ValidationError for what its vendor would refuse."""
    return _READ[dialect](received)


_OPENAI_KEYS: Final = completion_create_params.CompletionCreateParamsStreaming.__annotations__.keys()
_ANTHROPIC_KEYS: Final = message_create_params.MessageCreateParamsStreaming.__annotations__.keys() | (
    message_create_params.MessageCreateParamsBase.__annotations__.keys()
)


@cache
def _openai_shape() -> TypeAdapter[Any]:
    return TypeAdapter(completion_create_params.CompletionCreateParamsNonStreaming)


@cache
def _responses_shape() -> TypeAdapter[Any]:
    return TypeAdapter(response_create_params.ResponseCreateParamsNonStreaming)


@cache
def _anthropic_shape() -> TypeAdapter[Any]:
    return TypeAdapter(message_create_params.MessageCreateParamsNonStreaming)


@cache
def _bedrock_shape() -> Any:
    model = Loader().load_service_model("bedrock-runtime", "service-2")
    return ServiceModel(model, "bedrock-runtime").operation_model("Converse").input_shape


def _of_openai(received: Received) -> Heard:
    body = received.json
    known = _OPENAI_KEYS | completion_create_params.CompletionCreateParamsBase.__annotations__.keys()
    assert not body.keys() - known, f"unknown to OpenAI: {body.keys() - known}"
    _openai_shape().validate_python({**body, "stream": False})
    system = [_texts(each["content"]) for each in body["messages"] if each["role"] == "system"]
    turns: list[Turn] = []
    for message in body["messages"]:
        role, content = message["role"], message.get("content")
        parts: list[tuple[Any, ...]] = [("text", content)] if isinstance(content, str) else []
        for part in content if isinstance(content, list) else ():
            is_text = part["type"] == "text"
            parts.append(("text", part["text"]) if is_text else ("image", part["image_url"]["url"].partition(",")[2]))
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        parts += [("call", call["name"], orjson.loads(call["arguments"])) for call in calls]
        if role == "tool":
            turns.append(("user", [("result", message["tool_call_id"], content)]))
        elif role != "system":
            turns.append((role, parts))
    wanted = body.get("response_format") or {}
    return Heard(
        system="".join(system), turns=_joined(turns),
        tools={tool["function"]["name"]: tool["function"].get("parameters") for tool in body.get("tools") or ()},
        schema=(wanted.get("json_schema") or {}).get("schema"), thinks=body.get("reasoning_effort") == "high",
        limit=body.get("max_tokens") or body.get("max_completion_tokens") or 0, stops=body.get("stop") or [],
        streams=body.get("stream") is True and body["stream_options"]["include_usage"],
    )  # fmt: skip


def _texts(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _of_anthropic(received: Received) -> Heard:
    body = received.json
    assert not body.keys() - _ANTHROPIC_KEYS, f"unknown to Anthropic: {body.keys() - _ANTHROPIC_KEYS}"
    _anthropic_shape().validate_python({**body, "stream": False})
    turns = [(message["role"], _anthropic_parts(message["content"])) for message in body["messages"]]
    output = (body.get("output_config") or {}).get("format") or {}
    return Heard(
        system=_texts(body.get("system") or ""), turns=turns,
        tools={tool["name"]: tool["input_schema"] for tool in body.get("tools") or ()}, schema=output.get("schema"),
        thinks=(body.get("thinking") or {}).get("budget_tokens", 0) >= 1_024, limit=body["max_tokens"],
        stops=body.get("stop_sequences") or [], streams=body.get("stream") is True,
    )  # fmt: skip


def _anthropic_parts(content: Any) -> list[tuple[Any, ...]]:
    if isinstance(content, str):
        return [("text", content)]
    read: dict[str, Callable[[Any], tuple[Any, ...]]] = {
        "text": lambda block: ("text", block["text"]),
        "image": lambda block: ("image", block["source"]["data"]),
        "tool_use": lambda block: ("call", block["name"], block["input"]),
        "tool_result": lambda block: ("result", block["tool_use_id"], _texts(block["content"])),
    }
    return [read[block["type"]](block) for block in content]


_GEMINI: Final = {
    "contents": [{"role": None, "parts": [{
        "text": None, "thought": None, "thoughtSignature": None, "inlineData": {"mimeType": None, "data": None},
        "functionCall": {"id": None, "name": None, "args": None},
        "functionResponse": {"id": None, "name": None, "response": None},
    }]}],
    "systemInstruction": {"parts": [{"text": None}]},
    "tools": [{"functionDeclarations": [{"name": None, "description": None, "parametersJsonSchema": None}]}],
    "toolConfig": {"functionCallingConfig": {"mode": None, "allowedFunctionNames": None}},
    "generationConfig": {
        "maxOutputTokens": None, "stopSequences": None, "responseMimeType": None, "responseJsonSchema": None,
        "thinkingConfig": {"thinkingBudget": None, "thinkingLevel": None, "includeThoughts": None}, "temperature": None,
    },
}  # fmt: skip
"""Fields of a GenerateContentRequest, as far as they are used here. None: a value that is looked at elsewhere."""


def _check(value: Any, shape: Any, place: str) -> None:
    if isinstance(shape, dict):
        assert not value.keys() - shape.keys(), f"unknown to Google at {place}: {value.keys() - shape.keys()}"
        for name, each in value.items():
            _check(each, shape[name], f"{place}.{name}")
    elif isinstance(shape, list):
        for each in value:
            _check(each, shape[0], place)


def _of_gemini(received: Received) -> Heard:
    body = received.json
    _check(body, _GEMINI, "")
    read: dict[str, Callable[[Any], tuple[Any, ...]]] = {
        "text": lambda part: ("text", part),
        "inlineData": lambda part: ("image", part["data"]),
        "functionCall": lambda part: ("call", part["name"], part["args"]),
        "functionResponse": lambda part: ("result", part["id"], part["response"]["output"]),
    }
    turns = [
        ("assistant" if content["role"] == "model" else content["role"],
         [read[name](part[name]) for part in content["parts"] for name in read if name in part])
        for content in body["contents"]
    ]  # fmt: skip
    wanted = body["generationConfig"]
    declared = [each for tool in body.get("tools") or () for each in tool["functionDeclarations"]]
    return Heard(
        system=_texts((body.get("systemInstruction") or {"parts": []})["parts"]), turns=_joined(turns),
        tools={each["name"]: each.get("parametersJsonSchema") for each in declared},
        schema=wanted.get("responseJsonSchema"),
        thinks=(wanted.get("thinkingConfig") or {}).get("includeThoughts") is True, limit=wanted["maxOutputTokens"],
        stops=wanted.get("stopSequences") or [], streams=":streamGenerateContent" in received.target,
    )  # fmt: skip


def _of_bedrock(received: Received) -> Heard:
    body = received.json
    report = ParamValidator().validate({"modelId": "m", **body}, _bedrock_shape())
    assert not report.has_errors(), report.generate_report()
    read: dict[str, Callable[[Any], tuple[Any, ...]]] = {
        "text": lambda block: ("text", block),
        "image": lambda block: ("image", block["source"]["bytes"]),
        "toolUse": lambda block: ("call", block["name"], block["input"]),
        "toolResult": lambda block: ("result", block["toolUseId"], _texts(block["content"])),
    }
    turns = [
        (turn["role"], [read[name](block[name]) for block in turn["content"] for name in block])
        for turn in body["messages"]
    ]
    tools = [tool["toolSpec"] for tool in (body.get("toolConfig") or {"tools": ()})["tools"]]
    structure = ((body.get("outputConfig") or {}).get("textFormat") or {}).get("structure")
    extra, limits = body.get("additionalModelRequestFields") or {}, body["inferenceConfig"]
    return Heard(
        system=_texts(body.get("system") or ""), turns=turns,
        tools={tool["name"]: tool["inputSchema"]["json"] for tool in tools},
        schema=orjson.loads(structure["jsonSchema"]["schema"]) if structure else None,
        thinks=(extra.get("thinking") or {}).get("budget_tokens", 0) >= 1_024, limit=limits["maxTokens"],
        stops=limits.get("stopSequences") or [], streams=received.target.endswith("/converse-stream"),
    )  # fmt: skip


def _of_responses(received: Received) -> Heard:
    body = received.json
    known = response_create_params.ResponseCreateParamsBase.__annotations__.keys() | {"stream"}
    assert not body.keys() - known, f"unknown to OpenAI: {body.keys() - known}"
    _responses_shape().validate_python({**body, "stream": False})
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    turns: list[Turn] = []
    for item in items:
        kind, content = item.get("type", "message"), item.get("content")
        if kind == "function_call":
            turns.append(("assistant", [("call", item["name"], orjson.loads(item["arguments"]))]))
        elif kind == "function_call_output":
            turns.append(("user", [("result", item["call_id"], _texts(item["output"]))]))
        elif kind == "message" and item["role"] in ("user", "assistant"):
            parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
            turns.append((item["role"], [
                ("image", part["image_url"].partition(",")[2]) if part["type"] == "input_image"
                else ("text", part["text"]) for part in parts
            ]))  # fmt: skip
    instructing = [_texts(item["content"]) for item in items if item.get("role") in ("system", "developer")]
    return Heard(
        system=(body.get("instructions") or "") + "".join(instructing), turns=_joined(turns),
        tools={tool["name"]: tool["parameters"] for tool in body.get("tools") or ()},
        schema=((body.get("text") or {}).get("format") or {}).get("schema"),
        thinks=(body.get("reasoning") or {}) == {"effort": "high", "summary": "auto"},
        limit=body["max_output_tokens"], stops=[], streams=body.get("stream") is True and body["store"] is False,
    )  # fmt: skip


def _joined(turns: list[Turn]) -> list[Turn]:
    """Neighbours of one role as one turn, as vendors read them."""
    made: list[Turn] = []
    for role, parts in turns:
        if made and made[-1][0] == role:
            made[-1][1].extend(parts)
        else:
            made.append((role, list(parts)))
    return made


_READ: Final[dict[str, Callable[[Received], Heard]]] = {
    "openai": _of_openai,
    "openai-responses": _of_responses,
    "azure": _of_openai,
    "anthropic": _of_anthropic,
    "gemini": _of_gemini,
    "bedrock": _of_bedrock,
}
