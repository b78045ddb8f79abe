"""Chat Completions in the API document: what is checked of a request, and the published shape of answers. Pure."""

from typing import Any, Final

from apps.gateway.dialects.chat_fields import (
    MAX_CHOICES,
    MAX_METADATA,
    MAX_METADATA_KEY,
    MAX_METADATA_VALUE,
    MAX_MODEL_ID,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
    MAX_USER,
    TIERS,
)
from apps.gateway.dialects.strict_json import MAX_INTEGER
from apps.gateway.openapi.shapes import (
    Schema,
    boolean,
    closed,
    integer,
    listing,
    mapping,
    nullable,
    number,
    one_of,
    ref,
    taken,
    text,
)
from apps.gateway.routing.wishes import MAX_MODELS

_NAME: Final = r"^[^\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*$"
_WHOLE: Final[dict[str, Any]] = {"minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}

MESSAGE: Final = taken(
    "A message. Fields that are not listed go through.",
    required=("role",),
    role=text("system, developer, user, assistant, tool, or what else the model knows."),
    content=nullable({"anyOf": [text(), listing(ref("ContentPart"))]}),
    name=nullable(text()),
    tool_calls=nullable(listing(ref("ToolCall"))),
    tool_call_id=nullable(text()),
)
CONTENT_PART: Final = taken(
    "Text, or media where the model takes them: `image_url`, `input_audio`, `file`, `video_url`.",
    required=("type",),
    type=one_of("text", "refusal", "thinking", "image_url", "input_audio", "file", "video_url"),
) | {
    "if": {"properties": {"type": {"const": "text"}}, "required": ["type"]},
    "then": {"properties": {"text": {"type": "string"}}, "required": ["text"]},
}
TOOL_CALL: Final = taken(
    "A call of a tool, in a message of the assistant.",
    id=nullable(text()),
    type=nullable(text()),
    function=nullable(taken(required=("name",), name=text(minLength=1), arguments=nullable(text()))),
)
FUNCTION: Final = taken(
    required=("name",),
    name=text(minLength=1),
    description=nullable(text()),
    parameters=nullable({"type": "object", "description": "A JSON schema."}),
    strict=nullable(boolean()),
)
TOOL: Final = taken(
    "A function, or a tool of a vendor's own.",
    required=("type",),
    type=text(),
    function={"description": "For the type `function`."},
) | {
    "if": {"properties": {"type": {"const": "function"}}, "required": ["type"]},
    "then": {"required": ["function"], "properties": {"function": ref("Function")}},
}
RESPONSE_FORMAT: Final = taken(
    required=("type",),
    type=text("text, json_object, json_schema, or a vendor's own."),
) | {
    "if": {"properties": {"type": {"const": "json_schema"}}, "required": ["type"]},
    "then": {
        "required": ["json_schema"],
        "properties": {
            "json_schema": taken(name=nullable(text()), schema=nullable({"type": "object"}), strict={}),
        },
    },
}
ROUTING: Final = taken("Which providers may serve it, and in which order: see routing.md.")


def _optional() -> dict[str, Schema]:
    whole = {**_WHOLE, "minimum": 1}
    name = text(pattern=_NAME, maxLength=MAX_USER)
    return {
        "stream": boolean("Send the answer as server-sent events."),
        "stream_options": taken(include_usage=nullable(boolean()), include_obfuscation=nullable(boolean())),
        "max_tokens": integer("Capped at what the model gives.", **whole),
        "max_completion_tokens": integer("As max_tokens.", **whole),
        "n": integer(minimum=1, maximum=MAX_CHOICES),
        "temperature": number(minimum=0, maximum=2),
        "top_p": number(minimum=0, maximum=1),
        "presence_penalty": number(minimum=-2, maximum=2),
        "frequency_penalty": number(minimum=-2, maximum=2),
        "stop": {"anyOf": [text(), listing(text(), maxItems=MAX_STOPS)]},
        "seed": integer(**_WHOLE),
        "logprobs": boolean(),
        "top_logprobs": integer(minimum=0, maximum=MAX_TOP_LOGPROBS),
        "logit_bias": mapping(number(minimum=-100, maximum=100)),
        "tools": listing(ref("Tool")),
        "tool_choice": {"anyOf": [text(), taken(required=("type",), type=text())]},
        "parallel_tool_calls": boolean(),
        "functions": listing(ref("Function"), "The tools of old clients.", deprecated=True),
        "function_call": {"anyOf": [text(), taken(required=("name",), name=text())], "deprecated": True},
        "response_format": ref("ResponseFormat"),
        "reasoning_effort": text(),
        "verbosity": text(),
        "modalities": listing(text()),
        "audio": {"type": "object"},
        "prediction": {"type": "object"},
        "web_search_options": {"type": "object"},
        "service_tier": one_of(*TIERS),
        "store": boolean(),
        "user": text("Your own name for whom this is for.", pattern=_NAME, maxLength=MAX_USER),
        "safety_identifier": {**name, "minLength": 1},
        "session_id": {**name, "minLength": 1, "description": "Requests that belong together. Not forwarded."},
        "prompt_cache_key": text(),
        "metadata": mapping(
            text(pattern=_NAME, maxLength=MAX_METADATA_VALUE),
            "Not forwarded.",
            maxProperties=MAX_METADATA,
            propertyNames={"minLength": 1, "maxLength": MAX_METADATA_KEY, "pattern": _NAME},
        ),
        "models": listing(
            text(), "Models to be tried in this order, after `model`. Not forwarded.", maxItems=MAX_MODELS
        ),
        "provider": ref("ProviderPreferences"),
    }


MODEL_OR_MODELS: Final[Schema] = {
    "anyOf": [
        {"required": ["model"]},
        {"required": ["models"], "properties": {"models": {"type": "array", "minItems": 1}}},
    ]
}
"""Without a `model` it is the first of `models` that is asked."""
REQUEST: Final = MODEL_OR_MODELS | taken(
    "Any field of OpenAI's, and whatever the upstream takes beside it: unknown fields go through. null stands for a"
    " field that is not given.",
    required=("messages",),
    model=text(
        "A public id, as GET /models lists it. Not needed beside `models`.",
        minLength=1,
        maxLength=MAX_MODEL_ID,
        pattern=_NAME,
    ),
    messages=listing(ref("ChatMessage"), minItems=1),
    **{field: nullable(schema) for field, schema in _optional().items()},
)
USAGE: Final = taken(
    "OpenAI's usage, and what it cost.",
    required=("prompt_tokens", "completion_tokens", "total_tokens", "cost", "is_byok", "cost_details"),
    prompt_tokens=integer(minimum=0),
    completion_tokens=integer(minimum=0),
    total_tokens=integer(minimum=0),
    prompt_tokens_details=taken(),
    completion_tokens_details=taken(),
    cost=number("USD.", minimum=0),
    is_byok=boolean("The organization's own provider key served it, and the cost is the fee for that."),
    cost_details=closed(
        optional=("is_sandbox", "cached", "saved"),
        estimated=boolean(),
        is_sandbox=boolean(),
        cached=boolean("The response cache answered."),
        saved=number("USD that this saved.", minimum=0),
    ),
)
_ANSWER_OPTIONAL: Final = ("service_tier", "created")
COMPLETION: Final = closed(
    "An answer.",
    optional=_ANSWER_OPTIONAL,
    id=text(pattern="^chatcmpl-[0-9a-f]{32}$"),
    object={"const": "chat.completion"},
    created=integer(),
    model=text("The public id that was asked for."),
    choices=listing(
        taken(
            required=("index", "message", "finish_reason"),
            index=integer(minimum=0),
            message=taken(required=("role",)),
            finish_reason=nullable(text()),
        ),
        minItems=1,
    ),
    usage=ref("Usage"),
    service_tier=nullable(text()),
)
CHUNK: Final = taken(
    "An event of a stream. The last one before `[DONE]` has `usage` and no choices; one with a top-level `error` is"
    " the end of a stream that is not whole.",
    id=text(),
    object={"const": "chat.completion.chunk"},
    created=integer(),
    model=text(),
    choices=listing(taken()),
    usage=nullable(ref("Usage")),
    error=taken(),
)
EVENT: Final = taken(
    "One server-sent event. The last one of a whole answer has the data `[DONE]`.",
    required=("data",),
    data={
        "anyOf": [
            {"const": "[DONE]"},
            text(contentMediaType="application/json", contentSchema=ref("ChatCompletionChunk")),
        ]
    },
)
SCHEMAS: Final[dict[str, Schema]] = {
    "ChatRequest": REQUEST,
    "ChatMessage": MESSAGE,
    "ContentPart": CONTENT_PART,
    "ToolCall": TOOL_CALL,
    "Tool": TOOL,
    "Function": FUNCTION,
    "ResponseFormat": RESPONSE_FORMAT,
    "ProviderPreferences": ROUTING,
    "ChatCompletion": COMPLETION,
    "ChatCompletionChunk": CHUNK,
    "ChatCompletionEvent": EVENT,
    "Usage": USAGE,
}
REQUEST_EXAMPLE: Final = {
    "model": "sandbox-echo",
    "messages": [{"role": "user", "content": "one two three"}],
    "max_tokens": 50,
}
STREAM_REQUEST_EXAMPLE: Final = {**REQUEST_EXAMPLE, "stream": True}
ANSWER_EXAMPLE: Final = {
    "id": "chatcmpl-01a2047828c0e179f1fcfbc952417224",
    "object": "chat.completion",
    "created": 1_795_000_000,
    "model": "sandbox-echo",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "one two three"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "cost": 2.25e-06,
        "is_byok": False,
        "cost_details": {"estimated": False},
    },
}
STREAM_EXAMPLE: Final = {
    "data": '{"id":"chatcmpl-01a2047828c0e179f1fcfbc952417224","object":"chat.completion.chunk","created":1795000000,'
    '"model":"sandbox-echo","choices":[{"index":0,"delta":{"content":"one "},"finish_reason":null}]}'
}
