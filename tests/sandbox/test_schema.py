"""The JSON-schema example writer: what it writes is valid, what it cannot write it says."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator as Validator  # type: ignore[import-untyped]  # it has no stubs

from crun.sandbox.schema import SchemaError, example

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    },
    "required": ["value", "next"],
    "additionalProperties": False,
}
SCHEMAS: list[dict[str, Any]] = [
    {},
    {"const": {"a": [1]}},
    {"enum": ["b", "c"]},
    {"type": ["string", "null"]},
    {"type": "null"},
    {"type": "boolean"},
    {"type": "string", "minLength": 12},
    {"type": "string", "maxLength": 2},
    {"type": "string", "maxLength": 0},
    {"type": "string", "pattern": "^[a-z]+$"},
    *({"type": "string", "format": name} for name in ("date", "date-time", "time", "email", "uuid", "ipv4", "ipv6")),
    {"type": "integer", "minimum": 3},
    {"type": "integer", "maximum": -3},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "multipleOf": 7, "minimum": 8},
    {"type": "integer", "multipleOf": 7, "maximum": -8},
    {"type": "integer", "minimum": 2.5},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    {"type": "number", "minimum": -2.5, "maximum": -1.5},
    {"type": "number", "multipleOf": 0.25, "minimum": 0.3},
    {"type": "array", "minItems": 3, "items": {"type": "integer"}},
    {"type": "array", "maxItems": 0},
    {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"type": "string", "format": "email"}},
    {"type": "array", "minItems": 2, "uniqueItems": True, "items": {"enum": ["x", "y"]}},
    {"type": "array", "minItems": 4, "uniqueItems": True, "items": {"type": "number", "minimum": 1}},
    {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "integer"}],
        "items": False,
        "maxItems": 2,
    },
    {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {}}, "required": ["b"]}}},
    {"type": "object", "required": ["unlisted"]},
    {"properties": {"implied": {"type": "integer"}}, "required": ["implied"]},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"anyOf": [{"not": {}}, {"type": "string"}]},
    {"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "integer", "minimum": 4}}}]},
    {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "integer", "minimum": 9}}},
    {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "boolean"}}},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    {
        "type": "object",
        "properties": {"self": {"$ref": "#"}, "name": {"type": "string"}},
        "required": ["name"],
    },
    {"type": "array", "items": {"$ref": "#"}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_the_example_is_valid_and_always_the_same(schema: dict[str, Any]) -> None:
    written = example(schema)
    checker = Validator(schema, format_checker=Validator.FORMAT_CHECKER)
    assert list(checker.iter_errors(written)) == []
    assert example(schema) == written


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": []},
        {"type": "strange"},
        {"not": {}},
        {"$ref": "http://example.com/schema"},
        {"$ref": "#/$defs/absent"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"type": "string", "pattern": "^[0-9]{5}$"},
        {"type": "string", "pattern": "("},
        {"type": "string", "format": "uuid", "maxLength": 3},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "minimum": "3"},
        {"type": "number", "multipleOf": 0},
        {"type": "array", "minItems": 3, "items": False},
        {"type": "array", "minItems": 20_000},
        {"type": "object", "properties": [], "required": []},
        {"type": "object", "required": [["a"]]},
        {"type": "array", "prefixItems": 5},
        {"anyOf": []},
        {"anyOf": [{"not": {}}]},
        {"allOf": [{"minimum": 1}, {"minimum": "x"}]},
        {"properties": {"a": 5}, "required": ["a"]},
    ],
    ids=str,
)
def test_what_it_cannot_write_it_refuses(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        example(schema)


def test_a_schema_that_multiplies_is_bounded() -> None:
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for level in range(1, 20):
        reference = {"$ref": f"#/$defs/d{level - 1}"}
        definitions[f"d{level}"] = {
            "type": "object",
            "properties": {"a": reference, "b": reference},
            "required": ["a", "b"],
        }
    with pytest.raises(SchemaError, match="10000 values"):
        example({"$ref": "#/$defs/d19", "$defs": definitions})
