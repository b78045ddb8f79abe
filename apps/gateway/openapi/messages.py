"""Anthropic's Messages in the API document: what is checked of a request, and the published shape of answers. Pure."""

from typing import Any, Final

from apps.gateway.dialects.strict_json import MAX_INTEGER
from apps.gateway.openapi import chat
from apps.gateway.openapi.shapes import (
    Schema,
    boolean,
    closed,
    integer,
    listing,
    named_event,
    nullable,
    number,
    one_of,
    ref,
    taken,
    text,
)

_TOKENS: Final = integer(minimum=0)
_TEXT_TOO: Final[Schema] = {
    "if": {"properties": {"type": {"const": "text"}}, "required": ["type"]},
    "then": {"properties": {"text": {"type": "string"}}, "required": ["text"]},
}
BLOCK: Final = (
    taken(
        "A content block of Anthropic's: text, image, document, search_result, tool_use, tool_result, thinking,"
        " redacted_thinking. Others are for models of Anthropic's.",
        required=("type",),
        type=text(),
    )
    | _TEXT_TOO
)
MESSAGE: Final = taken(
    "A turn.",
    required=("role", "content"),
    role=one_of("user", "assistant", "system", "developer"),
    content={"anyOf": [text(), listing(ref("ContentBlock"))]},
)
TOOL: Final = taken(
    "A tool of the caller's (without a type, or custom), or one of Anthropic's own kinds.",
    type=nullable(text()),
) | {
    "if": {"properties": {"type": {"enum": ["custom", None]}}},
    "then": {
        "required": ["name", "input_schema"],
        "properties": {
            "name": text(minLength=1),
            "input_schema": {"type": "object", "description": "A JSON schema."},
            "description": nullable(text()),
            "strict": nullable(boolean()),
        },
    },
}
_SYSTEM_BLOCK: Final = taken(required=("type", "text"), type={"const": "text"}, text=text())
_SHARED: Final[dict[str, Schema]] = {
    "model": chat.REQUEST["properties"]["model"],
    "messages": listing(ref("MessagesTurn"), minItems=1),
    "system": nullable({"anyOf": [text(), listing(_SYSTEM_BLOCK)]}),
    "tools": nullable(listing(ref("MessagesTool"))),
    "tool_choice": nullable(taken(required=("type",), type=one_of("auto", "any", "tool", "none"))),
    "thinking": nullable(taken("How to think: Anthropic's own, or an effort for other models.")),
    "output_config": nullable(taken("`effort` and `format`.")),
    "cache_control": {"description": "For upstreams of Anthropic's."},
    **{name: chat.REQUEST["properties"][name] for name in ("session_id", "models", "provider")},
}
REQUEST: Final = chat.MODEL_OR_MODELS | taken(
    "Anthropic's request. What a model has no place for is named in `x-crun-dropped-params`.",
    required=("messages", "max_tokens"),
    max_tokens=integer("Capped at what the model gives.", minimum=1, maximum=MAX_INTEGER),
    stream=nullable(boolean("Send the answer as server-sent events.")),
    temperature=nullable(number(minimum=0, maximum=1)),
    top_p=nullable(number(minimum=0, maximum=1)),
    top_k=nullable(integer(minimum=0, maximum=MAX_INTEGER)),
    stop_sequences=nullable(listing(text(), maxItems=64)),
    metadata=nullable(taken("`user_id` is passed on.")),
    service_tier=nullable(one_of("auto", "standard_only")),
    **_SHARED,
)
COUNT_REQUEST: Final = chat.MODEL_OR_MODELS | taken(
    "The fields of a request that have tokens; others are taken too.", required=("messages",), **_SHARED
)
COUNT: Final = closed("What it would be billed as input.", input_tokens=_TOKENS)
USAGE: Final = taken(
    "Anthropic's usage: `input_tokens` does not have the caches' part in it. And what it cost.",
    required=("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cost"),
    input_tokens=_TOKENS,
    output_tokens=_TOKENS,
    cache_read_input_tokens=_TOKENS,
    cache_creation_input_tokens=_TOKENS,
    cost=chat.USAGE["properties"]["cost"],
    is_byok=chat.USAGE["properties"]["is_byok"],
    cost_details=chat.USAGE["properties"]["cost_details"],
)
ANSWER: Final = taken(
    "An answer.",
    required=("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"),
    id=text(pattern="^msg_[0-9a-f]{32}$"),
    type={"const": "message"},
    role={"const": "assistant"},
    model=text("The public id that was asked for."),
    content=listing(ref("ContentBlock")),
    stop_reason=text(),
    stop_sequence=nullable(text()),
    usage=ref("MessagesUsage"),
)
EVENT: Final = named_event(
    "One server-sent event: message_start, content_block_start, content_block_delta, content_block_stop, message_delta,"
    " message_stop, ping, or error, which ends a stream that is not whole."
)
SCHEMAS: Final[dict[str, Schema]] = {
    "MessagesRequest": REQUEST,
    "CountTokensRequest": COUNT_REQUEST,
    "TokenCount": COUNT,
    "MessagesTurn": MESSAGE,
    "MessagesTool": TOOL,
    "ContentBlock": BLOCK,
    "MessagesUsage": USAGE,
    "MessagesAnswer": ANSWER,
    "MessagesEvent": EVENT,
}
REQUEST_EXAMPLE: Final[dict[str, Any]] = {
    "model": "sandbox-echo",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "one two three"}],
}
COUNT_EXAMPLE: Final = {name: REQUEST_EXAMPLE[name] for name in ("model", "messages")}
ANSWER_EXAMPLE: Final[dict[str, Any]] = {
    "id": "msg_01a2047828c0e179f1fcfbc952417224",
    "type": "message",
    "role": "assistant",
    "model": "sandbox-echo",
    "content": [{"type": "text", "text": "one two three", "citations": []}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 3,
        "service_tier": "standard",
        "cost": 2.25e-06,
        "is_byok": False,
        "cost_details": {"estimated": False},
    },
}
STREAM_EXAMPLE: Final = {
    "event": "content_block_delta",
    "data": '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"one "}}',
}
