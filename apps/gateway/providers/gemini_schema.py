"""JSON Schema as the Schema object that Gemini's stable API takes: the subset that OpenAPI 3.0 has. Pure.

Source: the `Schema` type in the reference of the Gemini API."""

from typing import Any, Final

from apps.gateway.errors import bad_field

MAX_DEPTH: Final = 32
"""A schema that leads deeper refers to itself."""
MAX_SCHEMAS: Final = 10_000
"""So many places a schema may have when its references are resolved: what refers twice to what refers twice doubles
with every step."""
_AS_THEY_ARE: Final = (
    "title", "description", "format", "nullable", "minItems", "maxItems", "minLength", "maxLength", "pattern",
    "minimum", "maximum", "minProperties", "maxProperties", "required", "default", "example",
)  # fmt: skip


def to_gemini_schema(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """The schema with its references resolved. Raises GatewayError (400) for one that refers to itself or to nothing:
    the API has no form for those."""
    return _Conversion(schema, place).of(schema, depth=0)


class _Conversion:
    """One schema on its way, and how much of it was seen."""

    def __init__(self, root: dict[str, Any], place: str) -> None:
        self._root = root
        self._place = place
        self._seen = 0

    def of(self, schema: Any, *, depth: int) -> dict[str, Any]:
        self._seen += 1
        if depth > MAX_DEPTH or self._seen > MAX_SCHEMAS:
            message = "The schema refers to itself, or is too deep or too large; this model's provider takes none such."
            raise bad_field(self._place, message)
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            return self.of(self._referred(schema["$ref"]), depth=depth + 1)
        converted = {name: schema[name] for name in _AS_THEY_ARE if name in schema}
        _take_type(schema.get("type"), converted)
        _take_values(schema, converted)
        if isinstance(schema.get("properties"), dict):
            converted.setdefault("type", "OBJECT")
            converted["properties"] = {
                name: self.of(each, depth=depth + 1) for name, each in schema["properties"].items()
            }
        if "items" in schema:
            converted["items"] = self.of(schema["items"], depth=depth + 1)
        choices = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(choices, list):
            _take_choices([self.of(each, depth=depth + 1) for each in choices], converted)
        whole = schema.get("allOf")
        for each in whole if isinstance(whole, list) else ():
            converted |= self.of(each, depth=depth + 1)
        return converted

    def _referred(self, reference: object) -> Any:
        found: Any = self._root
        for step in str(reference).removeprefix("#").strip("/").split("/") if reference != "#" else ():
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if found is None:
            raise bad_field(self._place, f"The schema refers to {str(reference)[:100]}, which it does not have.")
        return found


def _take_values(schema: dict[str, Any], converted: dict[str, Any]) -> None:
    """Values are text here, whatever they are in JSON Schema."""
    if "const" in schema:
        converted["enum"] = [str(schema["const"])]
    elif isinstance(schema.get("enum"), list):
        converted["enum"] = [str(value) for value in schema["enum"] if value is not None]
        if None in schema["enum"]:
            converted["nullable"] = True
    if "enum" in converted:
        converted["type"] = "STRING"


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
