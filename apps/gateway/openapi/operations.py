"""The operations of the API: for each path and method what is asked, and every answer that can come. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from apps.gateway.listing.models import MAX_PAGE
from apps.gateway.openapi import asking, chat, messages, responses
from apps.gateway.openapi.shapes import Schema, answer, integer, ref, text

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
_WORDS: Final = {
    400: "The request is wrong; `param` names the field.",
    401: "No key, or one that is not valid.",
    402: "There is no money for it: `x-should-retry: false`, unless running requests hold it.",
    403: "The key may not do this.",
    404: "There is no such thing, or not for this key.",
    408: "The body did not arrive in time.",
    409: "The Idempotency-Key was used before, and its answer cannot be given.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "A limit says no; `retry-after` or `x-should-retry: false` tells whether to wait.",
    500: "A bug of ours.",
    502: "The upstream failed.",
    503: "Something is away or overloaded.",
    504: "The upstream was too slow.",
    529: "As 503, for callers who send `anthropic-version`.",
}
_OF_EVERY_ANSWER: Final = (400, 401, 403, 408, 413, 415, 500, 503)
_SAYS_WHEN: Final = ("retry-after", "retry-after-ms", "x-should-retry")
"""Headers of the errors that tell whether and when to try again: 409, 429, 500 and above."""
_PLAIN: Final = {JSON: ref("Error")}
_ANTHROPIC: Final = {JSON: ref("AnthropicError")}
_EITHER: Final = {JSON: {"anyOf": [ref("Error"), ref("AnthropicError")]}}
_CLIENT: Final = {JSON: {"anyOf": [ref("ClientError"), ref("Error")]}}


def _errors(*more: int, schemas: dict[str, Schema] = _PLAIN) -> dict[str, Schema]:
    statuses = sorted({*_OF_EVERY_ANSWER, *more})
    return {
        str(status): answer(
            _WORDS[status],
            schemas,
            headers=_SAYS_WHEN if status in (409, 429) or status >= 500 else (),
        )
        for status in statuses
    }


def _in_anthropics_words(asking: Schema) -> Schema:
    """An operation of the Messages API: its errors are Anthropic's, and its headers too."""
    statuses = {int(status) for status in asking["responses"]} - {200} | {402, 529}
    answers = {
        str(status): answer(
            _WORDS[status],
            _ANTHROPIC if status != 503 else _EITHER,
            headers=("request-id", *(_SAYS_WHEN if status in (402, 409, 429) or status >= 500 else ())),
        )
        for status in sorted(statuses)
    }
    good = asking["responses"]["200"]
    named = ("request-id", *(_ANTHROPIC_LIMITS if _LIMITS[0] in good["headers"] else ()))
    headers = good["headers"] | {name: {"$ref": f"#/components/headers/{name}"} for name in named}
    betas = _parameter("anthropic-beta", "header", text(pattern="^[ -~]+$"), "Names of betas, by commas.")
    return {
        **asking,
        "parameters": [*asking.get("parameters", ()), betas],
        "responses": {"200": {**good, "headers": headers}, **answers},
    }


def _counted(words: str, schema: Schema) -> Schema:
    """The answer of what is free, and counts as a request."""
    return _good(words, schema, *_LIMITS, "x-crun-budget-remaining")


def _operation(
    name: str, summary: str, *, tag: str, answers: dict[str, Schema], parameters: Iterable[Schema] = (), **more: Any
) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        **({"parameters": list(parameters)} if parameters else {}),
        **more,
        "responses": dict(sorted(answers.items())),
    }


def _parameter(name: str, where: str, schema: Schema, description: str, **more: Any) -> Schema:
    return {"name": name, "in": where, "schema": schema, "description": description, **more}


def _good(description: str, schema: Schema, *headers: str, example: Any = None) -> Schema:
    made = answer(description, {JSON: schema}, headers=headers)
    if example is not None:
        made["content"][JSON]["example"] = example
    return made


_LIMITS: Final = tuple(
    f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
_ANTHROPIC_LIMITS: Final = tuple(
    f"anthropic-ratelimit-{of}-{what}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
_KNOWN: Final = answer("The caller has this version.", {}, headers=("etag",))
_DIALECT: Final = _parameter(
    "anthropic-version", "header", text(pattern="^[ -~]+$"), "Answer in Anthropic's shape.", example="2023-06-01"
)
_IF_NONE_MATCH: Final = _parameter("If-None-Match", "header", text(pattern="^[ -~]+$"), "304 for this version.")
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
    *_LIMITS, "x-crun-budget-remaining", "x-crun-cost", "x-crun-dropped-params", "x-crun-idempotent-replay",
    "x-crun-cache-status", "x-crun-cache-source-id", "age",
)  # fmt: skip


_REPEATED: Final = _parameter(
    "Idempotency-Key", "header", text(pattern="^[ -~]{1,255}$"),
    "The same request sent again with the same key gets the same answer and is charged once.",
)  # fmt: skip

_CACHE: Final = (
    _parameter(
        "x-crun-cache", "header", text(enum=["on", "off", "refresh", "true", "false"]),
        "Whether a kept answer to the same request will do: docs/response-cache.md.",
    ),
    _parameter(
        "x-crun-cache-ttl", "header", text(pattern="^[0-9]{1,6}$"),
        "Seconds that the answer is kept, and that a kept one may be old.",
    ),
)  # fmt: skip
_SESSION: Final = _parameter(
    "x-session-id", "header", text(pattern="^[ -~]{1,256}$"),
    "The conversation that the request belongs to, where the body has no session_id.",
)  # fmt: skip


def _asking(
    name: str, summary: str, *, tag: str, request: str, examples: dict[str, Any], answers: dict[str, tuple[str, Any]]
) -> Schema:
    """An operation that asks a model: `answers` are media type -> name of a schema and example."""
    good = answer(
        "The answer; with `stream: true` its events." if EVENTS in answers else "The answer.",
        {kind: ref(schema) for kind, (schema, _) in answers.items()},
        headers=_ASKED,
    )
    for kind, (_, example) in answers.items():
        good["content"][kind]["example"] = example
    given = {named: {"value": value} for named, value in examples.items()}
    return _operation(
        name,
        summary,
        tag=tag,
        parameters=[_REPEATED, _SESSION, *_CACHE],
        requestBody={"required": True, "content": {JSON: {"schema": ref(request), "examples": given}}},
        answers={"200": good, **_errors(404, 409, 429, 502, 504)},
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
    _operation(
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
            "200": _good(
                "The count.",
                ref("TokenCount"),
                "x-crun-token-count",
                *_LIMITS,
                "x-crun-budget-remaining",
                example={"input_tokens": 7},
            ),
            **_errors(404, 429),
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
_RESPONSE_ID: Final = _parameter(
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
    ("/responses/{response_id}", "get"): _operation(
        "getResponse", "A stored answer", tag="Responses",
        parameters=[
            _RESPONSE_ID,
            _parameter("stream", "query", text(enum=["false"]), "It is given in one piece."),
        ],
        answers={"200": _counted("The answer.", ref("StoredResponse")), **_errors(404, 429)},
    ),
    ("/responses/{response_id}", "delete"): _operation(
        "deleteResponse", "Delete a stored answer", tag="Responses", parameters=[_RESPONSE_ID],
        answers={"200": _counted("It is deleted.", ref("DeletedResponse")), **_errors(404, 429)},
    ),
    ("/responses/{response_id}/input_items", "get"): _operation(
        "listInputItems", "What a stored answer was made of", tag="Responses",
        parameters=[
            _RESPONSE_ID,
            _parameter("limit", "query", integer(minimum=1, maximum=100), "Of a page; 20 unless it is said."),
            _parameter("order", "query", text(enum=["asc", "desc"]), "The latest first unless it is said."),
            _parameter("after", "query", text(), "The page after this item."),
        ],
        answers={"200": _counted("A page of items.", ref("InputItems")), **_errors(404, 429)},
    ),
    ("/responses/{response_id}/cancel", "post"): _operation(
        "cancelResponse", "Always refused: no answer is made in the background", tag="Responses",
        parameters=[_RESPONSE_ID], answers=_errors(404, 429),
    ),
    ("/messages", "post"): _MESSAGES,
    ("/messages/count_tokens", "post"): _COUNT,
    ("/completions", "post"): _COMPLETIONS,
    ("/embeddings", "post"): _EMBEDDINGS,
    ("/models", "get"): _operation(
        "listModels",
        "The models that the key can call now",
        tag="Models",
        parameters=[
            _DIALECT,
            _IF_NONE_MATCH,
            _parameter("limit", "query", integer(minimum=1, maximum=MAX_PAGE), "Of a page, in Anthropic's shape."),
            _parameter("after_id", "query", text(), "The page after this model, in Anthropic's shape."),
            _parameter("before_id", "query", text(), "The page before this model, in Anthropic's shape."),
        ],
        answers={
            "200": _good(
                "The list.", {"anyOf": [ref("ModelList"), ref("AnthropicModelList")]}, "etag",
                example={"object": "list", "data": [_MODEL_EXAMPLE]},
            ),
            "304": _KNOWN,
            **_errors(529, schemas=_EITHER),
        },
    ),
    ("/models/{model_id}", "get"): _operation(
        "getModel",
        "One model",
        tag="Models",
        parameters=[
            _parameter("model_id", "path", text(), "It may contain slashes.", required=True, example="sandbox-echo"),
            _DIALECT,
            _IF_NONE_MATCH,
        ],
        answers={
            "200": _good(
                "The model.", {"anyOf": [ref("Model"), ref("AnthropicModel")]}, "etag", example=_MODEL_EXAMPLE
            ),
            "304": _KNOWN,
            **_errors(404, 529, schemas=_EITHER),
        },
    ),
    ("/models/{model_id}/endpoints", "get"): _operation(
        "listModelEndpoints",
        "The routes of a model, and how they do",
        tag="Models",
        parameters=[
            _parameter("model_id", "path", text(), "It may contain slashes.", required=True, example="sandbox-echo"),
            _DIALECT,
        ],
        answers={"200": _good("The routes.", ref("ModelEndpoints")), **_errors(404, 529, schemas=_EITHER)},
    ),
    ("/key", "get"): _operation(
        "getKey", "What the calling key is, may use and has left", tag="Account",
        answers={"200": _good("The key.", ref("Key")), **_errors()},
    ),
    ("/credits", "get"): _operation(
        "getCredits", "What the organization has to spend", tag="Account",
        answers={
            "200": _good("The sums.", ref("Credits"), example={"data": {
                "total_credits": 25.0, "total_usage": 1.5, "balance": 23.5, "held": 0.0, "credit_limit": 0.0,
                "available": 23.5, "is_sandbox": False,
            }}),
            **_errors(),
        },
    ),
    ("/generation", "get"): _operation(
        "getGeneration", "The receipt of one request", tag="Account",
        parameters=[
            _parameter("id", "query", text(), "What `x-crun-generation-id` said, or the id of the completion.",
                       required=True, example="req_01a2047828c0e179f1fcfbc952417224"),
        ],
        answers={"200": _good("The receipt.", ref("Generation")), **_errors(404)},
    ),
    ("/client/account/balance", "get"): _operation(
        "getAccountBalance", "The balance in CRUN's own envelope", tag="Account",
        answers={
            "200": _good("The balance.", ref("AccountBalance"),
                         example={"code": 200, "message": "success", "data": {"balance": 23.5}}),
            **_errors(schemas=_CLIENT),
        },
    ),
    ("/openapi.json", "get"): _operation(
        "getApiDocument", "This document", tag="Document", security=[], parameters=[_IF_NONE_MATCH],
        answers={
            "200": _good("The document.", ref("ApiDocument"), "etag"),
            "304": _KNOWN,
            **{status: made for status, made in _errors().items() if status not in ("401", "403")},
        },
    ),
}  # fmt: skip
"""(path, method) -> operation. What is missing here stops the document from being made."""
