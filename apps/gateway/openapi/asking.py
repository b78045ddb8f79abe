"""Embeddings and legacy Completions in the API document. Pure."""

from typing import Any, Final

from apps.gateway.dialects.chat_fields import MAX_TOP_LOGPROBS, TIERS
from apps.gateway.dialects.completions import DEFAULT_MAX_TOKENS, MAX_BEST_OF
from apps.gateway.dialects.embeddings import ENCODINGS, MAX_DIMENSIONS, MAX_INPUTS, MAX_TOKEN_ID
from apps.gateway.dialects.strict_json import MAX_INTEGER
from apps.gateway.openapi import chat
from apps.gateway.openapi.shapes import (
    Schema,
    boolean,
    closed,
    integer,
    listing,
    nullable,
    number,
    one_of,
    ref,
    taken,
    text,
)

_MODEL: Final = chat.REQUEST["properties"]["model"]
_SHARED: Final[dict[str, Schema]] = {
    name: chat.REQUEST["properties"][name]
    for name in ("user", "safety_identifier", "session_id", "metadata", "models", "provider")
}
_TOKEN_IDS: Final = listing(integer(minimum=0, maximum=MAX_TOKEN_ID), minItems=1)
_INPUT: Final[Schema] = {
    "anyOf": [
        text(minLength=1),
        listing(text(minLength=1), minItems=1, maxItems=MAX_INPUTS),
        _TOKEN_IDS,
        listing(_TOKEN_IDS, minItems=1, maxItems=MAX_INPUTS),
    ],
    "description": "A text, texts, token ids, or lists of token ids.",
}
_NOTHING: Final[Schema] = {"type": "null", "description": "Refused."}
EMBEDDINGS_REQUEST: Final = chat.MODEL_OR_MODELS | taken(
    "Fields that are not listed go through. null stands for a field that is not given.",
    required=("input",),
    model=_MODEL,
    input=_INPUT,
    encoding_format=nullable(one_of(*ENCODINGS)),
    dimensions=nullable(integer("Where the model can.", minimum=1, maximum=MAX_DIMENSIONS)),
    service_tier=nullable(one_of(*TIERS)),
    stream={"enum": [False, None], "description": "There are no streams of embeddings."},
    messages=_NOTHING,
    **_SHARED,
)
EMBEDDINGS: Final = closed(
    "A vector for each input, in their order.",
    object={"const": "list"},
    data=listing(
        closed(
            object={"const": "embedding"},
            index=integer(minimum=0),
            embedding={"anyOf": [listing(number(), minItems=1), text("32-bit floats in base64, little-endian.")]},
        ),
        minItems=1,
        maxItems=MAX_INPUTS,
    ),
    model=text("The public id that was asked for."),
    usage=closed(
        prompt_tokens=integer(minimum=0),
        total_tokens=integer(minimum=0),
        cost=chat.USAGE["properties"]["cost"],
        is_byok=chat.USAGE["properties"]["is_byok"],
        cost_details=chat.USAGE["properties"]["cost_details"],
    ),
)

COMPLETIONS_REQUEST: Final = chat.MODEL_OR_MODELS | taken(
    "Asked of the model as a chat with one message of the user, or as it is where its provider serves Completions"
    " itself. Fields that are not listed go through.",
    required=("prompt",),
    model=_MODEL,
    prompt={"anyOf": [text(), listing(text(), minItems=1, maxItems=1)]},
    max_tokens=nullable(
        integer(f"{DEFAULT_MAX_TOKENS} without it; capped at what the model gives.", minimum=1, maximum=MAX_INTEGER)
    ),
    echo=nullable(boolean("Put the prompt before the text.")),
    suffix=nullable(text("What stands behind the gap. Only where the model's provider serves Completions itself.")),
    logprobs=nullable(
        integer(
            "So many of the most likely tokens are told. Beside echo only where the model's provider serves Completions"
            " itself.",
            minimum=0,
            maximum=MAX_TOP_LOGPROBS,
        )
    ),
    best_of=nullable(
        integer(
            "As n, or more where the model's provider serves Completions itself: all are billed. Not with stream.",
            minimum=1,
            maximum=MAX_BEST_OF,
        )
    ),
    **{
        name: chat.REQUEST["properties"][name]
        for name in (
            "stream", "stream_options", "temperature", "top_p", "presence_penalty", "frequency_penalty", "stop", "seed",
            "logit_bias", "service_tier", "n", "response_format", "reasoning_effort", "verbosity",
        )
    },
    **dict.fromkeys(
        (
            "messages", "max_completion_tokens", "tools", "tool_choice", "functions", "function_call", "modalities",
            "audio",
        ),
        _NOTHING,
    ),
    **_SHARED,
)  # fmt: skip
_CHOICE: Final = closed(
    text=text(),
    index=integer(minimum=0),
    logprobs=nullable(
        closed(
            tokens=listing(text()),
            token_logprobs=listing({"type": ["number", "null"]}),
            top_logprobs=nullable(listing({"type": "object"})),
            text_offset=listing(integer(minimum=0)),
        )
    ),
    finish_reason=nullable(text()),
)
COMPLETION: Final = closed(
    "A text completion.",
    id=text(pattern="^cmpl-[0-9a-f]{32}$"),
    object={"const": "text_completion"},
    created=integer(),
    model=text("The public id that was asked for."),
    choices=listing(_CHOICE, minItems=1),
    usage=ref("Usage"),
)
CHUNK: Final = taken(
    "An event of a stream. The last one before `[DONE]` has `usage` and no choices; one with a top-level `error` is"
    " the end of a stream that is not whole.",
    id=text(),
    object={"const": "text_completion"},
    created=integer(),
    model=text(),
    choices=listing(_CHOICE),
    usage=ref("Usage"),
    error=taken(),
)
EVENT: Final = taken(
    "One server-sent event. The last one of a whole answer has the data `[DONE]`.",
    required=("data",),
    data={
        "anyOf": [{"const": "[DONE]"}, text(contentMediaType="application/json", contentSchema=ref("CompletionChunk"))]
    },
)
SCHEMAS: Final[dict[str, Schema]] = {
    "EmbeddingsRequest": EMBEDDINGS_REQUEST,
    "Embeddings": EMBEDDINGS,
    "CompletionsRequest": COMPLETIONS_REQUEST,
    "Completion": COMPLETION,
    "CompletionChunk": CHUNK,
    "CompletionEvent": EVENT,
}
EMBEDDINGS_REQUEST_EXAMPLE: Final[dict[str, Any]] = {"model": "sandbox-embedding", "input": ["one two", "three"]}
EMBEDDINGS_EXAMPLE: Final[dict[str, Any]] = {
    "object": "list",
    "data": [
        {"object": "embedding", "index": 0, "embedding": [0.6, -0.8]},
        {"object": "embedding", "index": 1, "embedding": [-0.28, 0.96]},
    ],
    "model": "sandbox-embedding",
    "usage": {
        "prompt_tokens": 3,
        "total_tokens": 3,
        "cost": 6e-08,
        "is_byok": False,
        "cost_details": {"estimated": False},
    },
}
COMPLETIONS_REQUEST_EXAMPLE: Final[dict[str, Any]] = {"model": "sandbox-echo", "prompt": "one two three"}
COMPLETION_EXAMPLE: Final[dict[str, Any]] = {
    "id": "cmpl-01a2047828c0e179f1fcfbc952417224",
    "object": "text_completion",
    "created": 1_795_000_000,
    "model": "sandbox-echo",
    "choices": [{"text": "one two three", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    "usage": chat.ANSWER_EXAMPLE["usage"],
}
COMPLETION_STREAM_EXAMPLE: Final = {
    "data": '{"id":"cmpl-01a2047828c0e179f1fcfbc952417224","object":"text_completion","created":1795000000,'
    '"choices":[{"text":"one ","index":0,"logprobs":null,"finish_reason":null}],"model":"sandbox-echo"}'
}
