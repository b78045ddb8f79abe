"""Makers of the operations of the API document: parameters, and every answer that can come. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from apps.gateway.openapi.shapes import Schema, answer, integer, ref, text

JSON: Final = "application/json"
WORDS: Final = {
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
SAYS_WHEN: Final = ("retry-after", "retry-after-ms", "x-should-retry")
"""Headers of the errors that tell whether and when to try again: 409, 429, 500 and above."""
LIMITS: Final = tuple(
    f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
_PLAIN: Final = {JSON: ref("Error")}


def errors(*more: int, schemas: dict[str, Schema] = _PLAIN) -> dict[str, Schema]:
    """The errors that every answer can be, and these."""
    statuses = sorted({*_OF_EVERY_ANSWER, *more})
    return {
        str(status): answer(
            WORDS[status],
            schemas,
            headers=SAYS_WHEN if status in (409, 429) or status >= 500 else (),
        )
        for status in statuses
    }


def operation(
    name: str, summary: str, *, tag: str, answers: dict[str, Schema], parameters: Iterable[Schema] = (), **more: Any
) -> Schema:
    """One operation."""
    return {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        **({"parameters": list(parameters)} if parameters else {}),
        **more,
        "responses": dict(sorted(answers.items())),
    }


def parameter(name: str, where: str, schema: Schema, description: str, **more: Any) -> Schema:
    """What is said beside the body."""
    return {"name": name, "in": where, "schema": schema, "description": description, **more}


def good(description: str, schema: Schema, *headers: str, example: Any = None) -> Schema:
    """The answer of an operation that did what it was to do."""
    made = answer(description, {JSON: schema}, headers=headers)
    if example is not None:
        made["content"][JSON]["example"] = example
    return made


def counted(words: str, schema: Schema) -> Schema:
    """The answer of what is free, and counts as a request."""
    return good(words, schema, *LIMITS, "x-crun-budget-remaining")


PAGE: Final = (
    parameter("limit", "query", integer(minimum=1, maximum=100), "Of a page; 20 unless it is said."),
    parameter("order", "query", text(enum=["asc", "desc"]), "The latest first unless it is said."),
    parameter("after", "query", text(), "The page after this item."),
)
"""Which page of a list of items."""
