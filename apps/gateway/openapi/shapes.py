"""Small makers of JSON schemas, so that those of the API read like tables. Pure."""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str = "", **more: Any) -> Schema:
    return _described({"type": "string", **more}, description)


def integer(description: str = "", **more: Any) -> Schema:
    return _described({"type": "integer", **more}, description)


def number(description: str = "", **more: Any) -> Schema:
    return _described({"type": "number", **more}, description)


def boolean(description: str = "", **more: Any) -> Schema:
    return _described({"type": "boolean", **more}, description)


def moment(description: str = "") -> Schema:
    return text(description, format="date-time")


def usd(description: str = "") -> Schema:
    """An exact amount as a decimal string."""
    return text(description, pattern=r"^-?[0-9]+(\.[0-9]+)?$")


def listing(items: Schema, description: str = "", **more: Any) -> Schema:
    return _described({"type": "array", "items": items, **more}, description)


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        return {**schema, "type": [schema["type"], "null"], "enum": [*schema["enum"], None]}
    return {"anyOf": [schema, {"type": "null"}]}


def closed(description: str = "", /, *, optional: tuple[str, ...] = (), **fields: Schema) -> Schema:
    """An object of ours: every field is there, but for the optional ones, and there are no others."""
    return {**taken(description, required=tuple(name for name in fields if name not in optional), **fields),
            "additionalProperties": False}  # fmt: skip


def taken(description: str = "", /, *, required: tuple[str, ...] = (), **fields: Schema) -> Schema:
    """An object of somebody else's, who may say more than is listed."""
    schema: Schema = {"type": "object", "properties": fields}
    if required:
        schema["required"] = list(required)
    return _described(schema, description)


def named_event(description: str) -> Schema:
    """A server-sent event with its name before its data."""
    of_a_type = taken(required=("type",), type=text())
    return taken(
        description,
        required=("event", "data"),
        event=text(),
        data=text(contentMediaType="application/json", contentSchema=of_a_type),
    )


def mapping(values: Schema, description: str = "", **more: Any) -> Schema:
    return _described({"type": "object", "additionalProperties": values, **more}, description)


def answer(description: str, schemas: Mapping[str, Schema], *, headers: tuple[str, ...] = ()) -> Schema:
    """One answer of an operation: media type -> schema. Every answer names its request."""
    named = ("x-request-id", "x-crun-generation-id", *headers)
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in named},
        **({"content": content} if content else {}),
    }


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description} if description else schema
