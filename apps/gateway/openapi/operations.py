"""The operations of the API: for each path and method what is asked, and every answer that can come. Pure."""

from typing import Any, Final

from apps.gateway.listing.models import MAX_PAGE
from apps.gateway.openapi import asking, chat, conversations, messages, responses
from apps.gateway.openapi.making import (
    JSON,
    LIMITS,
    PAGE,
    SAYS_WHEN,
    WORDS,
    counted,
    errors,
    good,
    operation,
    parameter,
)
from apps.gateway.openapi.shapes import Schema, answer, integer, ref, text

EVENTS: Final = "text/event-stream"
_ANTHROPIC: Final = {JSON: ref("AnthropicError")}
_EITHER: Final = {JSON: {"anyOf": [ref("Error"), ref("AnthropicError")]}}
_CLIENT: Final = {JSON: {"anyOf": [ref("ClientError"), ref("Error")]}}


def _in_anthropics_words(asking: Schema) -> Schema:
    """An operation of the Messages API: its errors are Anthropic's, and its headers too."""
    statuses = {int(status) for status in asking["responses"]} - {200} | {402, 529}
    answers = {
        str(status): answer(
            WORDS[status],
            _ANTHROPIC if status != 503 else _EITHER,
            headers=("request-id", *(SAYS_WHEN if status in (402, 409, 429) or status >= 500 else ())),
        )
        for status in sorted(statuses)
    }
    answered = asking["responses"]["200"]
    named = ("request-id", *(_ANTHROPIC_LIMITS if LIMITS[0] in answered["headers"] else ()))
    headers = answered["headers"] | {name: {"$ref": f"#/components/headers/{name}"} for name in named}
    betas = parameter("anthropic-beta", "header", text(pattern="^[ -~]+$"), "Names of betas, by commas.")
    return {
        **asking,
        "parameters": [*asking.get("parameters", ()), betas],
        "responses": {"200": {**answered, "headers": headers}, **answers},
    }


_ANTHROPIC_LIMITS: Final = tuple(
    f"anthropic-ratelimit-{of}-{what}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
_KNOWN: Final = answer("The caller has this version.", {}, headers=("etag",))
_DIALECT: Final = parameter(
    "anthropic-version", "header", text(pattern="^[ -~]+$"), "Answer in Anthropic's shape.", example="2023-06-01"
)
_IF_NONE_MATCH: Final = parameter("If-None-Match", "header", text(pattern="^[ -~]+$"), "304 for this version.")
_MODEL_EXAMPLE: Final[Schema] = {
    "id": "sandbox-echo", "canonical_slug": "sandbox-echo", "object": "model", "created": 1_795_000_000,
    "owned_by": "CRUN", "name": "Sandbox Echo", "description": "Says what it was told.", "context_length": 128_000,
    "architecture": {
        "modality": "text->text", "input_modalities": ["text"], "output_modalities": ["text"], "tokenizer": None,
        "instruct_type": None,
    },
    "pricing": {
        "prompt": "0.00000015", "completion": "0.0000006", "input_cache_read": "0.000000075",
        "input_cache_write": "0.00000015", "internal_reasoning": "0.0000006", "request": "0", "image": "0",
    },
    "is_sandbox": True,
    "top_provider": {"context_length": 128_000, "max_completion_tokens": 16_384, "is_moderated": False},
    "per_request_limits": None, "supported_parameters": ["max_tokens", "temperature", "tools"],
    "default_parameters": {}, "hugging_face_id": None, "knowledge_cutoff": None, "expiration_date": None,
}  # fmt: skip

_ASKED: Final = (
    *LIMITS, "x-crun-budget-remaining", "x-crun-cost", "x-crun-dropped-params", "x-crun-idempotent-replay",
    "x-crun-cache-status", "x-crun-cache-source-id", "age",
)  # fmt: skip


_REPEATED: Final = parameter(
    "Idempotency-Key", "header", text(pattern="^[ -~]{1,255}$"),
    "The same request sent again with the same key gets the same answer and is charged once.",
)  # fmt: skip

_CACHE: Final = (
    parameter(
        "x-crun-cache", "header", text(enum=["on", "off", "refresh", "true", "false"]),
        "Whether a kept answer to the same request will do: docs/response-cache.md.",
    ),
    parameter(
        "x-crun-cache-ttl", "header", text(pattern="^[0-9]{1,6}$"),
        "Seconds that the answer is kept, and that a kept one may be old.",
    ),
)  # fmt: skip
_SESSION: Final = parameter(
    "x-session-id", "header", text(pattern="^[ -~]{1,256}$"),
    "The conversation that the request belongs to, where the body has no session_id.",
)  # fmt: skip


def _asking(
    name: str, summary: str, *, tag: str, request: str, examples: dict[str, Any], answers: dict[str, tuple[str, Any]]
) -> Schema:
    """An operation that asks a model: `answers` are media type -> name of a schema and example."""
    answered = answer(
        "The answer; with `stream: true` its events." if EVENTS in answers else "The answer.",
        {kind: ref(schema) for kind, (schema, _) in answers.items()},
        headers=_ASKED,
    )
    for kind, (_, example) in answers.items():
        answered["content"][kind]["example"] = example
    given = {named: {"value": value} for named, value in examples.items()}
    return operation(
        name,
        summary,
        tag=tag,
        parameters=[_REPEATED, _SESSION, *_CACHE],
        requestBody={"required": True, "content": {JSON: {"schema": ref(request), "examples": given}}},
        answers={"200": answered, **errors(404, 409, 429, 502, 504)},
    )  # fmt: skip


_CHAT: Final = _asking(
    "createChatCompletion",
    "An answer to a conversation, whole or as a stream",
    tag="Chat",
    request="ChatRequest",
    examples={"whole": chat.REQUEST_EXAMPLE, "stream": chat.STREAM_REQUEST_EXAMPLE},
    answers={
        JSON: ("ChatCompletion", chat.ANSWER_EXAMPLE),
        EVENTS: ("ChatCompletionEvent", chat.STREAM_EXAMPLE),
    },
)
_MESSAGES: Final = _in_anthropics_words(
    _asking(
        "createMessage",
        "An answer to a conversation in Anthropic's dialect, whole or as a stream",
        tag="Messages",
        request="MessagesRequest",
        examples={"whole": messages.REQUEST_EXAMPLE, "stream": {**messages.REQUEST_EXAMPLE, "stream": True}},
        answers={
            JSON: ("MessagesAnswer", messages.ANSWER_EXAMPLE),
            EVENTS: ("MessagesEvent", messages.STREAM_EXAMPLE),
        },
    )
)
_COUNT: Final = _in_anthropics_words(
    operation(
        "countTokens",
        "How many tokens a request in Anthropic's dialect has; free",
        tag="Messages",
        requestBody={
            "required": True,
            "content": {
                JSON: {"schema": ref("CountTokensRequest"), "examples": {"plain": {"value": messages.COUNT_EXAMPLE}}}
            },
        },
        answers={
            "200": good(
                "The count.",
                ref("TokenCount"),
                "x-crun-token-count",
                *LIMITS,
                "x-crun-budget-remaining",
                example={"input_tokens": 7},
            ),
            **errors(404, 429),
        },
    )
)
_RESPONSES: Final = _asking(
    "createResponse",
    "An answer in the form of OpenAI's Responses API, whole or as a stream",
    tag="Responses",
    request="ResponsesRequest",
    examples={"whole": responses.REQUEST_EXAMPLE, "stream": {**responses.REQUEST_EXAMPLE, "stream": True}},
    answers={
        JSON: ("ResponsesAnswer", responses.ANSWER_EXAMPLE),
        EVENTS: ("ResponsesEvent", responses.STREAM_EXAMPLE),
    },
)
_RESPONSE_ID: Final = parameter(
    "response_id", "path", text(pattern="^[^/]{1,100}$"), "Of an answer that was stored.", required=True,
    example="resp_01a2047828c0e179f1fcfbc952417224",
)  # fmt: skip
_COMPLETIONS: Final = _asking(
    "createCompletion",
    "A text that goes on from a prompt, whole or as a stream (legacy)",
    tag="Completions",
    request="CompletionsRequest",
    examples={
        "whole": asking.COMPLETIONS_REQUEST_EXAMPLE,
        "stream": {**asking.COMPLETIONS_REQUEST_EXAMPLE, "stream": True},
    },
    answers={
        JSON: ("Completion", asking.COMPLETION_EXAMPLE),
        EVENTS: ("CompletionEvent", asking.COMPLETION_STREAM_EXAMPLE),
    },
)
_EMBEDDINGS: Final = _asking(
    "createEmbedding",
    "A vector for each input",
    tag="Embeddings",
    request="EmbeddingsRequest",
    examples={"texts": asking.EMBEDDINGS_REQUEST_EXAMPLE},
    answers={JSON: ("Embeddings", asking.EMBEDDINGS_EXAMPLE)},
)

OPERATIONS: Final[dict[tuple[str, str], Schema]] = {
    ("/chat/completions", "post"): _CHAT,
    ("/responses", "post"): _RESPONSES,
    ("/responses/{response_id}", "get"): operation(
        "getResponse", "A stored answer", tag="Responses",
        parameters=[
            _RESPONSE_ID,
            parameter("stream", "query", text(enum=["false"]), "It is given in one piece."),
        ],
        answers={"200": counted("The answer.", ref("StoredResponse")), **errors(404, 429)},
    ),
    ("/responses/{response_id}", "delete"): operation(
        "deleteResponse", "Delete a stored answer", tag="Responses", parameters=[_RESPONSE_ID],
        answers={"200": counted("It is deleted.", ref("DeletedResponse")), **errors(404, 429)},
    ),
    ("/responses/{response_id}/input_items", "get"): operation(
        "listInputItems", "What a stored answer was made of", tag="Responses",
        parameters=[
            _RESPONSE_ID,
            *PAGE,
        ],
        answers={"200": counted("A page of items.", ref("InputItems")), **errors(404, 429)},
    ),
    ("/responses/{response_id}/cancel", "post"): operation(
        "cancelResponse", "Always refused: no answer is made in the background", tag="Responses",
        parameters=[_RESPONSE_ID], answers=errors(404, 429),
    ),
    **conversations.OPERATIONS,
    ("/messages", "post"): _MESSAGES,
    ("/messages/count_tokens", "post"): _COUNT,
    ("/completions", "post"): _COMPLETIONS,
    ("/embeddings", "post"): _EMBEDDINGS,
    ("/models", "get"): operation(
        "listModels",
        "The models that the key can call now",
        tag="Models",
        parameters=[
            _DIALECT,
            _IF_NONE_MATCH,
            parameter("limit", "query", integer(minimum=1, maximum=MAX_PAGE), "Of a page, in Anthropic's shape."),
            parameter("after_id", "query", text(), "The page after this model, in Anthropic's shape."),
            parameter("before_id", "query", text(), "The page before this model, in Anthropic's shape."),
        ],
        answers={
            "200": good(
                "The list.", {"anyOf": [ref("ModelList"), ref("AnthropicModelList")]}, "etag",
                example={"object": "list", "data": [_MODEL_EXAMPLE]},
            ),
            "304": _KNOWN,
            **errors(529, schemas=_EITHER),
        },
    ),
    ("/models/{model_id}", "get"): operation(
        "getModel",
        "One model",
        tag="Models",
        parameters=[
            parameter("model_id", "path", text(), "It may contain slashes.", required=True, example="sandbox-echo"),
            _DIALECT,
            _IF_NONE_MATCH,
        ],
        answers={
            "200": good(
                "The model.", {"anyOf": [ref("Model"), ref("AnthropicModel")]}, "etag", example=_MODEL_EXAMPLE
            ),
            "304": _KNOWN,
            **errors(404, 529, schemas=_EITHER),
        },
    ),
    ("/models/{model_id}/endpoints", "get"): operation(
        "listModelEndpoints",
        "The routes of a model, and how they do",
        tag="Models",
        parameters=[
            parameter("model_id", "path", text(), "It may contain slashes.", required=True, example="sandbox-echo"),
            _DIALECT,
        ],
        answers={"200": good("The routes.", ref("ModelEndpoints")), **errors(404, 529, schemas=_EITHER)},
    ),
    ("/key", "get"): operation(
        "getKey", "What the calling key is, may use and has left", tag="Account",
        answers={"200": good("The key.", ref("Key")), **errors()},
    ),
    ("/credits", "get"): operation(
        "getCredits", "What the organization has to spend", tag="Account",
        answers={
            "200": good("The sums.", ref("Credits"), example={"data": {
                "total_credits": 25.0, "total_usage": 1.5, "balance": 23.5, "held": 0.0, "credit_limit": 0.0,
                "available": 23.5, "is_sandbox": False,
            }}),
            **errors(),
        },
    ),
    ("/generation", "get"): operation(
        "getGeneration", "The receipt of one request", tag="Account",
        parameters=[
            parameter("id", "query", text(), "What `x-crun-generation-id` said, or the id of the completion.",
                       required=True, example="req_01a2047828c0e179f1fcfbc952417224"),
        ],
        answers={"200": good("The receipt.", ref("Generation")), **errors(404)},
    ),
    ("/client/account/balance", "get"): operation(
        "getAccountBalance", "The balance in CRUN's own envelope", tag="Account",
        answers={
            "200": good("The balance.", ref("AccountBalance"),
                         example={"code": 200, "message": "success", "data": {"balance": 23.5}}),
            **errors(schemas=_CLIENT),
        },
    ),
    ("/openapi.json", "get"): operation(
        "getApiDocument", "This document", tag="Document", security=[], parameters=[_IF_NONE_MATCH],
        answers={
            "200": good("The document.", ref("ApiDocument"), "etag"),
            "304": _KNOWN,
            **{status: made for status, made in errors().items() if status not in ("401", "403")},
        },
    ),
}  # fmt: skip
"""(path, method) -> operation. What is missing here stops the document from being made."""
