"""JSON Schema as the Schema object that Gemini's stable API takes: the subset that OpenAPI 3.0 has. Pure.

Source: the `Schema` type in the reference of the Gemini API."""

from typing import Any, Final

from apps.gateway.errors import bad_field

MAX_DEPTH: Final = 32
"""A schema that leads deeper refers to itself."""
_AS_THEY_ARE: Final = (
    "title", "description", "format", "nullable", "minItems", "maxItems", "minLength", "maxLength", "pattern",
    "minimum", "maximum", "minProperties", "maxProperties", "required", "default", "example",
)  # fmt: skip


def to_gemini_schema(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """The schema with its references resolved. Raises GatewayError (400) for one that refers to itself or to nothing:
    the API has no form for those."""
    return _converted(schema, schema, place=place, depth=0)


def _converted(schema: Any, root: dict[str, Any], *, place: str, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise bad_field(place, "The schema refers to itself, or is too deep; this model's provider takes none such.")
    if not isinstance(schema, dict):
        return {}
    if "$ref" in schema:
        return _converted(_referred(schema["$ref"], root, place), root, place=place, depth=depth + 1)
    converted = {name: schema[name] for name in _AS_THEY_ARE if name in schema}
    _take_type(schema.get("type"), converted)
    if "const" in schema:
        converted["enum"] = [str(schema["const"])]
    elif isinstance(schema.get("enum"), list):
        converted["enum"] = [str(value) for value in schema["enum"] if value is not None]
        if None in schema["enum"]:
            converted["nullable"] = True
    if "enum" in converted:
        converted["type"] = "STRING"
    if isinstance(schema.get("properties"), dict):
        converted.setdefault("type", "OBJECT")
        converted["properties"] = {
            name: _converted(each, root, place=place, depth=depth + 1) for name, each in schema["properties"].items()
        }
    if "items" in schema:
        converted["items"] = _converted(schema["items"], root, place=place, depth=depth + 1)
    choices = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(choices, list):
        _take_choices([_converted(each, root, place=place, depth=depth + 1) for each in choices], converted)
    for each in schema.get("allOf") or ():
        converted |= _converted(each, root, place=place, depth=depth + 1)
    return converted


def _take_type(kind: object, converted: dict[str, Any]) -> None:
    """JSON Schema has null among the types; here it is a flag."""
    kinds = [each for each in (kind if isinstance(kind, list) else [kind]) if isinstance(each, str)]
    if "null" in kinds:
        converted["nullable"] = True
    named = [each.upper() for each in kinds if each != "null"]
    if len(named) == 1:
        converted["type"] = named[0]
    elif named:
        converted["anyOf"] = [{"type": each} for each in named]


def _take_choices(choices: list[dict[str, Any]], converted: dict[str, Any]) -> None:
    real = [each for each in choices if each != {"nullable": True}]
    if len(real) < len(choices):
        converted["nullable"] = True
    if len(real) == 1:
        converted |= real[0] | converted
    else:
        converted["anyOf"] = real


def _referred(reference: object, root: dict[str, Any], place: str) -> Any:
    found: Any = root
    for step in str(reference).removeprefix("#").strip("/").split("/") if reference != "#" else ():
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if found is None:
        raise bad_field(place, f"The schema refers to {str(reference)[:100]}, which it does not have.")
    return found
