"""A JSON document valid for a JSON schema, always the same one for the same schema. Pure."""

import math
import re
from collections.abc import Callable
from typing import Any

MAX_VALUES = 10_000
# Optional properties are shown down to this depth; below it only what is required.
MAX_DEPTH_OF_OPTIONAL = 6

# `variant` counts the items of an array, so that `uniqueItems` gets different ones.
_FORMATS: dict[str, Callable[[int], str]] = {
    "date": lambda variant: f"{2026 + variant}-01-02",
    "date-time": lambda variant: f"{2026 + variant}-01-02T03:04:05Z",
    "time": lambda variant: f"03:04:{variant % 60:02}Z",
    "duration": lambda variant: f"P{variant + 1}D",
    "email": lambda variant: f"user{variant or ''}@example.com",
    "hostname": lambda variant: f"host{variant or ''}.example.com",
    "uri": lambda variant: f"https://example.com/{variant or ''}",
    "ipv4": lambda variant: f"192.0.2.{variant % 255}",
    "ipv6": lambda variant: f"2001:db8::{variant:x}",
    "uuid": lambda variant: f"00000000-0000-4000-8000-{variant:012x}",
}
_UNSUPPORTED = ("not", "if", "dependentSchemas", "patternProperties", "contains")


class SchemaError(ValueError):
    """The schema allows no document, is malformed, or uses a keyword that the sandbox does not know."""


def example(schema: dict[str, Any]) -> Any:
    """A document valid for `schema`. Raises SchemaError."""
    try:
        return _Writer(schema).value(schema, 0, ())
    except SchemaError:
        raise
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SchemaError(f"a keyword has a value of the wrong type ({error})") from None


class _Writer:
    """One run over one schema: where `$ref` points, and how many values were written."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._values = 0

    def value(self, schema: Any, variant: int, open_refs: tuple[str, ...], depth: int = 0) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or depth > 64:
            raise SchemaError(f"its document would have more than {MAX_VALUES} values or 64 levels")
        if schema is True:
            return "text"
        if not isinstance(schema, dict):
            raise SchemaError("a schema is an object")
        for keyword in _UNSUPPORTED:
            if keyword in schema:
                raise SchemaError(f"the sandbox does not support '{keyword}'")
        if "$ref" in schema:
            return self._referenced(schema, variant, open_refs, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return _enumerated(schema["enum"], variant)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._first_possible(schema, keyword, variant, open_refs, depth)
        if "allOf" in schema:
            return self.value(self._merged(schema), variant, open_refs, depth)
        return self._typed(schema, variant, open_refs, depth)

    def _referenced(self, schema: dict[str, Any], variant: int, open_refs: tuple[str, ...], depth: int) -> Any:
        reference = schema["$ref"]
        if reference in open_refs:
            raise SchemaError(f"'{reference}' contains itself and has no way out")
        target = self._resolve(reference)
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        if siblings and isinstance(target, dict):
            target = _merge(target, siblings)
        return self.value(target, variant, (*open_refs, reference), depth)

    def _resolve(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(f"$ref {reference!r} does not point into the schema itself")
        target: Any = self._root
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(key)] if isinstance(target, list) else target[key]
            except (KeyError, IndexError, TypeError, ValueError):
                raise SchemaError(f"$ref '{reference}' points nowhere") from None
        return target

    def _first_possible(
        self, schema: dict[str, Any], keyword: str, variant: int, open_refs: tuple[str, ...], depth: int
    ) -> Any:
        base = {key: value for key, value in schema.items() if key != keyword}
        choices = schema[keyword]
        if not isinstance(choices, list) or not choices:
            raise SchemaError(f"'{keyword}' is a list of schemas")
        reasons = []
        for choice in choices:
            try:
                whole = _merge(base, choice) if base and isinstance(choice, dict) else choice
                return self.value(whole, variant, open_refs, depth)
            except SchemaError as error:
                reasons.append(str(error))
        raise SchemaError(reasons[0])

    def _merged(self, schema: dict[str, Any]) -> dict[str, Any]:
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        if not isinstance(schema["allOf"], list):
            raise SchemaError("'allOf' is a list of schemas")
        for part in schema["allOf"]:
            merged = _merge(merged, self._without_ref(part))
        return merged

    def _without_ref(self, schema: Any) -> Any:
        """`schema` with the target of its `$ref` (and that one's, and so on) merged into it."""
        while isinstance(schema, dict) and "$ref" in schema:
            self._values += 1
            if self._values > MAX_VALUES:
                raise SchemaError("'allOf' refers to itself")
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = _merge(self._resolve(schema["$ref"]), rest)
        return schema

    def _typed(self, schema: dict[str, Any], variant: int, open_refs: tuple[str, ...], depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        match kind or _implied_type(schema):
            case "object":
                return self._object(schema, open_refs, depth)
            case "array":
                return self._array(schema, open_refs, depth)
            case "string":
                return _string(schema, variant)
            case "integer":
                return _number(schema, variant, whole=True)
            case "number":
                return _number(schema, variant, whole=False)
            case "boolean":
                return variant % 2 == 0
            case "null":
                return None
        raise SchemaError(f"type {kind!r} is unknown")

    def _object(self, schema: dict[str, Any], open_refs: tuple[str, ...], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise SchemaError("'properties' is an object and 'required' a list")
        document = {}
        for name, wanted in properties.items():
            if name not in required and depth >= MAX_DEPTH_OF_OPTIONAL:
                continue
            try:
                document[name] = self.value(wanted, 0, open_refs, depth + 1)
            except SchemaError:
                if name in required:
                    raise
        for name in required:
            if name not in document:
                document[name] = self.value(schema.get("additionalProperties", True), 0, open_refs, depth + 1)
        return document

    def _array(self, schema: dict[str, Any], open_refs: tuple[str, ...], depth: int) -> list[Any]:
        fixed, items = schema.get("prefixItems", []), schema.get("items", True)
        least = int(_bound(schema, "minItems", 0))
        most = _bound(schema, "maxItems", max(least, len(fixed), 1))
        wanted = [*fixed, *([items] * (max(least, 1) - len(fixed)))][: min(int(most), MAX_VALUES)]
        document: list[Any] = []
        for place, item in enumerate(wanted):
            try:
                document.append(self.value(item, place, open_refs, depth + 1))
            except SchemaError:
                if len(document) < least:
                    raise
                break
        return document


def _merge(first: Any, second: Any) -> dict[str, Any]:
    """Both schemas at once: properties and required united, bounds narrowed, else the second one's word."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        raise SchemaError("a schema is an object")
    merged = {**first, **second}
    for key in first.keys() & second.keys():
        one, other = first[key], second[key]
        if key in ("properties", "$defs", "definitions"):
            merged[key] = {**one, **other}
        elif key == "required":
            merged[key] = [*one, *(name for name in other if name not in one)]
        elif key in ("minimum", "exclusiveMinimum", "minLength", "minItems"):
            merged[key] = max(one, other)
        elif key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems"):
            merged[key] = min(one, other)
    return merged


def _implied_type(schema: dict[str, Any]) -> str:
    if schema.keys() & {"properties", "required", "additionalProperties"}:
        return "object"
    if schema.keys() & {"items", "prefixItems", "minItems"}:
        return "array"
    if schema.keys() & {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}:
        return "number"
    return "string"


def _enumerated(values: Any, variant: int) -> Any:
    if not isinstance(values, list) or not values:
        raise SchemaError("'enum' is a list with at least one value")
    return values[variant % len(values)]


def _bound(schema: dict[str, Any], keyword: str, default: float) -> float:
    value = schema.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SchemaError(f"'{keyword}' is a number")
    return value


def _limit(schema: dict[str, Any], keyword: str, default: float) -> float:
    return _bound(schema, keyword, 0) if keyword in schema else default


def _string(schema: dict[str, Any], variant: int) -> str:
    least, most = int(_bound(schema, "minLength", 0)), int(_bound(schema, "maxLength", 1_000_000))
    written = _FORMATS.get(schema.get("format", ""))
    text = written(variant) if written else f"text{variant or ''}"
    if written is None:
        text = text[-most:] if 0 < most < len(text) else text[:most]
        text = text.ljust(min(least, 1_000_000), "x")
    pattern = schema.get("pattern")
    if least <= len(text) <= most and (pattern is None or _fits(pattern, text)):
        return text
    raise SchemaError("the sandbox writes no string for this combination of format, length and pattern")


def _fits(pattern: str, text: str) -> bool:
    if len(text) > 100:  # a pattern from outside may need exponential time: only short strings are tried
        return False
    try:
        return re.search(pattern, text) is not None
    except re.error:
        raise SchemaError(f"pattern {pattern!r} is not a regular expression") from None


def _number(schema: dict[str, Any], variant: int, *, whole: bool) -> float:
    """The number allowed that is nearest to 0, preferably above it; each variant is a step further."""
    low = max(_limit(schema, "minimum", -math.inf), _above(schema, whole=whole))
    high = min(_limit(schema, "maximum", math.inf), _below(schema, whole=whole))
    step = _bound(schema, "multipleOf", 1 if whole else 0.5)
    if step <= 0:
        raise SchemaError("'multipleOf' is above 0")
    if "multipleOf" in schema or whole:
        lowest = math.ceil(low / step) * step if low > 0 else 0
        highest = math.floor(high / step) * step if high < 0 else None
    else:
        lowest, highest = max(low, 0), high if high < 0 else None
    value = lowest + variant * step if highest is None else highest - variant * step
    if not low <= value <= high:
        raise SchemaError("its bounds allow no number")
    return int(value) if whole else value


def _above(schema: dict[str, Any], *, whole: bool) -> float:
    if "exclusiveMinimum" not in schema:
        return -math.inf
    bound = _bound(schema, "exclusiveMinimum", 0)
    return math.floor(bound) + 1 if whole else math.nextafter(bound, math.inf)


def _below(schema: dict[str, Any], *, whole: bool) -> float:
    if "exclusiveMaximum" not in schema:
        return math.inf
    bound = _bound(schema, "exclusiveMaximum", 0)
    return math.ceil(bound) - 1 if whole else math.nextafter(bound, -math.inf)
