"""OpenAI's Responses in the API document: what is checked of a request, and the published shape of answers. Pure."""

from typing import Any, Final

from apps.gateway.dialects.strict_json import MAX_INTEGER
from apps.gateway.openapi import chat
from apps.gateway.openapi.shapes import (
    Schema,
    boolean,
    integer,
    listing,
    named_event,
    nullable,
    one_of,
    ref,
    taken,
    text,
)

_TOKENS: Final = integer(minimum=0)
INPUT_ITEM: Final[Schema] = {
    "anyOf": [
        taken(
            "A message.",
            required=("role", "content"),
            type={"const": "message"},
            role=one_of("user", "assistant", "system", "developer"),
            content=text(),
        ),
        taken(
            "What a tool gave.",
            required=("type", "call_id", "output"),
            type=one_of("function_call_output", "custom_tool_call_output"),
            call_id=text(),
            output=text(),
        ),
        taken(
            "Content parts, calls, reasoning, and whatever else OpenAI has.",
            required=("type",),
            type=text(minLength=1),
        ),
    ]
}
TOOL: Final = taken(
    "A function, a custom tool, or a kind of OpenAI's own, which no route can run.", required=("type",), type=text()
) | {
    "if": {"properties": {"type": {"enum": ["function", "custom"]}}, "required": ["type"]},
    "then": {"required": ["name"], "properties": {"name": text(minLength=1)}},
}
_CHAT: Final = chat.REQUEST["properties"]
REQUEST: Final = chat.MODEL_OR_MODELS | taken(
    "OpenAI's request. What a model has no place for is named in `x-crun-dropped-params`.",
    model=_CHAT["model"],
    input={
        "anyOf": [text(), listing(ref("ResponsesItem"), minItems=1)],
        "description": "Only with a `conversation` that has some it can be left out.",
    },
    instructions=nullable(text()),
    max_output_tokens=nullable(integer("Capped at what the model gives.", minimum=1, maximum=MAX_INTEGER)),
    stream=nullable(boolean("Send the answer as server-sent events.")),
    tools=nullable(listing(ref("ResponsesTool"))),
    tool_choice={"description": "auto, none, required, a function, a custom tool, or allowed_tools."},
    text=nullable(taken("`format` and `verbosity`.")),
    reasoning=nullable(taken("`effort` and `summary`.")),
    include=nullable(listing(text())),
    store=nullable(boolean("Store the answer, so that another can go on from it. Yes, unless it is forbidden.")),
    previous_response_id=nullable(text("The stored answer to go on from: all that was said is put before `input`.")),
    conversation={
        "anyOf": [text(), taken(required=("id",), id=text()), {"type": "null"}],
        "description": "Its items are put before `input`; afterwards input and answer are added to it.",
    },
    top_logprobs=nullable(integer(minimum=0, maximum=20)),
    truncation=nullable(text()),
    stream_options=nullable(taken()),
    background={"enum": [False, None], "description": "Answers are not made in the background."},
    **{
        name: _CHAT[name]
        for name in (
            "temperature", "top_p", "parallel_tool_calls", "service_tier", "safety_identifier", "prompt_cache_key",
            "user", "metadata", "session_id", "models", "provider",
        )
    },
)  # fmt: skip
USAGE: Final = taken(
    "OpenAI's usage in this form, and what it cost.",
    required=("input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details", "total_tokens", "cost"),
    input_tokens=_TOKENS,
    input_tokens_details=taken(
        required=("cached_tokens", "cache_write_tokens"), cached_tokens=_TOKENS, cache_write_tokens=_TOKENS
    ),
    output_tokens=_TOKENS,
    output_tokens_details=taken(required=("reasoning_tokens",), reasoning_tokens=_TOKENS),
    total_tokens=_TOKENS,
    cost=chat.USAGE["properties"]["cost"],
    cost_details=chat.USAGE["properties"]["cost_details"],
)
ANSWER: Final = taken(
    "An answer.",
    required=("id", "object", "created_at", "status", "model", "output", "output_text", "usage"),
    id=text(pattern="^resp_[0-9a-f]{32}$"),
    object={"const": "response"},
    created_at=integer(),
    status=one_of("completed", "incomplete"),
    incomplete_details=nullable(taken(required=("reason",), reason=text())),
    model=text("The public id that was asked for."),
    output=listing(taken("A message, a call or reasoning.", required=("type", "id"), type=text(), id=text())),
    output_text=text("All text of the output."),
    usage=ref("ResponsesUsage"),
)
STORED: Final = taken(
    "A stored answer, as it was given. One that failed has no usage.",
    required=("id", "object", "status", "model", "output"),
    id=text(),
    object={"const": "response"},
    status=one_of("completed", "incomplete", "failed"),
    model=text(),
    output=listing(taken(required=("type", "id"), type=text(), id=text())),
)
DELETED: Final = taken(
    required=("id", "object", "deleted"), id=text(), object={"const": "response"}, deleted={"const": True}
)
INPUT_ITEMS: Final = taken(
    "A page of items: of the earlier turns, and of the request itself.",
    required=("object", "data", "first_id", "last_id", "has_more"),
    object={"const": "list"},
    data=listing(taken(required=("type", "id"), type=text(), id=text())),
    first_id=nullable(text()),
    last_id=nullable(text()),
    has_more=boolean(),
)
EVENT: Final = named_event(
    "One server-sent event, numbered by `sequence_number`. The last one is response.completed, response.incomplete or"
    " response.failed."
)
SCHEMAS: Final[dict[str, Schema]] = {
    "ResponsesRequest": REQUEST,
    "ResponsesItem": INPUT_ITEM,
    "ResponsesTool": TOOL,
    "ResponsesUsage": USAGE,
    "ResponsesAnswer": ANSWER,
    "ResponsesEvent": EVENT,
    "StoredResponse": STORED,
    "DeletedResponse": DELETED,
    "InputItems": INPUT_ITEMS,
}
REQUEST_EXAMPLE: Final[dict[str, Any]] = {"model": "sandbox-echo", "input": "one two three"}
ANSWER_EXAMPLE: Final[dict[str, Any]] = {
    "id": "resp_01a2047828c0e179f1fcfbc952417224",
    "object": "response",
    "created_at": 1_795_000_000,
    "status": "completed",
    "incomplete_details": None,
    "model": "sandbox-echo",
    "output": [
        {
            "type": "message",
            "id": "msg_01a2047828c0e179f1fcfbc95241722400",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "one two three", "annotations": [], "logprobs": []}],
        }
    ],
    "output_text": "one two three",
    "usage": {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 6,
        "cost": 2.25e-06,
        "cost_details": {"estimated": False},
    },
}
STREAM_EXAMPLE: Final = {
    "event": "response.output_text.delta",
    "data": '{"type":"response.output_text.delta","item_id":"msg_01a2047828c0e179f1fcfbc95241722400","output_index":0,'
    '"content_index":0,"delta":"one ","logprobs":[],"sequence_number":4}',
}
