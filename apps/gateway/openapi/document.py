"""The whole API document, made by drf-spectacular from the gateway's routes. Not loaded by the gateway itself."""

import json
from pathlib import Path
from typing import Any, Final

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

from apps.gateway import urls
from apps.gateway.openapi import account, asking, chat, conversations, messages, responses
from apps.gateway.openapi.operations import OPERATIONS
from apps.gateway.openapi.shapes import Schema, text

FILE: Final = Path(__file__).with_name("openapi.json")
"""What the gateway serves."""
VERSION: Final = "1.0.0"
_SCHEMAS: Final = {
    **chat.SCHEMAS, **asking.SCHEMAS, **messages.SCHEMAS, **responses.SCHEMAS, **conversations.SCHEMAS,
    **account.SCHEMAS,
}  # fmt: skip
_TAGS: Final = (
    "Chat",
    "Responses",
    "Conversations",
    "Messages",
    "Completions",
    "Embeddings",
    "Models",
    "Account",
    "Document",
)
_DESCRIPTION: Final = (
    "Language models of many vendors through one API that the clients of OpenAI speak. Send your key as"
    " `Authorization: Bearer KEY` or `X-API-KEY: KEY`. `HEAD` works wherever `GET` does."
)
_HEADERS: Final[dict[str, tuple[Schema, str, bool]]] = {
    "x-request-id": (text(pattern="^req_[0-9a-f]{32}$"), "Name it when you ask for help.", True),
    "x-crun-generation-id": (text(pattern="^req_[0-9a-f]{32}$"), "GET /generation has the receipt under it.", True),
    "x-crun-cost": (text(), "USD.", False),
    "x-crun-budget-remaining": (text(), "USD that this key could still spend.", False),
    "x-crun-dropped-params": (text(), "Fields that the upstream cannot be told, by commas.", False),
    "x-crun-idempotent-replay": (text(enum=["true"]), "Given again for its key, and not charged.", False),
    "x-crun-cache-status": (
        text(enum=["HIT", "MISS", "REFRESH", "BYPASS"]),
        "What the response cache did, where it was wanted.",
        False,
    ),
    "x-crun-cache-source-id": (text(pattern="^req_[0-9a-f]{32}$"), "The request whose answer a hit gives.", False),
    "age": (text(pattern="^[0-9]+$"), "Of a hit, in seconds.", False),
    "etag": (text(), "Send it back as If-None-Match.", True),
    "retry-after": (text(pattern="^[0-9]+$"), "Seconds.", False),
    "retry-after-ms": (text(pattern="^[0-9]+$"), "The same in milliseconds.", False),
    "x-should-retry": (text(enum=["false"]), "Trying again cannot help.", False),
    "x-crun-token-count": (text(enum=["exact", "estimated"]), "Whether the count is the upstream's own.", True),
    "request-id": (text(pattern="^req_[0-9a-f]{32}$"), "As x-request-id, under Anthropic's name.", True),
    **{
        f"anthropic-ratelimit-{of}-{what}": (text(), words, False)
        for of in ("requests", "tokens")
        for what, words in (
            ("limit", "Of a minute; of the level that has least left."),
            ("remaining", "Left of it."),
            ("reset", "When all of it is back, in RFC 3339."),
        )
    },
    **{
        f"x-ratelimit-{what}-{of}": (text(), words, False)
        for of in ("requests", "tokens")
        for what, words in (
            ("limit", "Of a minute; of the level that has least left."),
            ("remaining", "Left of it."),
            ("reset", "Until all of it is back: 250ms, 1s, 6m0s."),
        )
    },
}


class UndocumentedRoute(LookupError):
    """A route that OPERATIONS does not describe."""


class TableSchema(AutoSchema):
    """Takes each operation from the table: drf-spectacular walks the routes and asks."""

    def get_operation(self, path: str, path_regex: str, path_prefix: str, method: str, registry: Any) -> Schema:
        try:
            return OPERATIONS[path, method.lower()]
        except KeyError:
            raise UndocumentedRoute(f"{method} {path} is not in apps/gateway/openapi/operations.py") from None


class Generator(SchemaGenerator):
    """Views are asked by way of the table, whatever schema class they have."""

    def create_view(self, callback: Any, method: str, request: Any = None) -> Any:
        view = super().create_view(callback, method, request)  # type: ignore[no-untyped-call]  # drf-spectacular has no types here
        view.schema = TableSchema()
        view.schema.view = view
        return view


def api_document() -> dict[str, Any]:
    """The document. Raises UndocumentedRoute."""
    generator: Any = Generator  # without types, as its base is
    paths = generator(patterns=urls.urlpatterns, api_version=VERSION).get_schema(request=None, public=True)["paths"]
    return {
        "openapi": "3.1.0",
        "info": {"title": "CRUN API", "version": VERSION, "description": _DESCRIPTION,
                 "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/api/v1"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": name} for name in _TAGS],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(_SCHEMAS.items())),
            "headers": {
                name: {"schema": schema, "description": words, "required": required}
                for name, (schema, words, required) in _HEADERS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer YOUR_KEY"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
            },
        },
    }  # fmt: skip


def document_text() -> str:
    """The document as it stands in files."""
    return json.dumps(api_document(), indent=1, ensure_ascii=False) + "\n"
