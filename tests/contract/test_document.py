"""The API document: it is current, it is that of the routes, it is valid, and its examples are true to it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from django.urls import URLPattern, get_resolver
from drf_spectacular.validation import validate_schema

from apps.gateway import errors
from apps.gateway.openapi.document import FILE, UndocumentedRoute, api_document, document_text
from apps.gateway.openapi.operations import OPERATIONS
from apps.gateway.server.http import AsyncAPIView
from tests.gateway.conftest import Bench, bench, empty_store

__all__ = ["bench", "empty_store"]
DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENT = orjson.loads(FILE.read_bytes())
METHODS = ("get", "post", "put", "patch", "delete")


def routes() -> set[tuple[str, str]]:
    """What the gateway's views answer, by path and method."""
    found = set()
    for pattern in get_resolver("apps.gateway.urls").url_patterns:
        assert isinstance(pattern, URLPattern)
        view = pattern.callback.view_class
        assert issubclass(view, AsyncAPIView)
        path = "/" + re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern))
        found |= {(path, method) for method in METHODS if hasattr(view, method)}
    return found


def operations() -> Iterator[tuple[str, str, Any]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_files_are_current() -> None:
    assert FILE.read_text(encoding="utf-8") == document_text(), "run: python -m docs.write_openapi"
    assert (DOCS / "openapi.json").read_bytes() == FILE.read_bytes()


def test_the_document_is_that_of_the_routes() -> None:
    documented = {(path, method) for path, method, _ in operations()}
    assert documented == routes() == set(OPERATIONS)
    assert len(documented) >= 8


def test_a_route_that_is_not_described_stops_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPERATIONS, ("/key", "get"))
    with pytest.raises(UndocumentedRoute, match="/key"):
        api_document()


def test_it_is_valid_openapi() -> None:
    validate_schema(DOCUMENT)
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (target for name, target in value.items() if name == "$ref")
            for child in value.values():
                yield from references(child)
        elif isinstance(value, list):
            for child in value:
                yield from references(child)

    used = set(references(DOCUMENT))
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "headers") for name in DOCUMENT["components"][kind]}
    assert used == there


def test_every_operation_names_its_answers_its_errors_and_its_tag() -> None:
    names = []
    for _, _, operation in operations():
        names.append(operation["operationId"])
        assert operation["summary"] and operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
        is_always_refused = operation["operationId"] == "cancelResponse"
        assert {"500", "503"} <= set(operation["responses"])
        assert ("200" in operation["responses"]) != is_always_refused
        for answer in operation["responses"].values():
            assert {"x-request-id", "x-crun-generation-id"} <= set(answer["headers"])
    assert len(names) == len(set(names))


def test_errors_that_say_whether_to_try_again_name_the_headers() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, errors.ErrorKind)]
    told = {(str(kind.status), name) for kind in kinds for name in errors.GatewayError(kind, "").headers()}
    assert len(told) > 8
    for _, _, operation in operations():
        for status, name in told:
            assert status not in operation["responses"] or name in operation["responses"][status]["headers"]


def test_its_examples_are_true_to_its_schemas() -> None:
    checked = 0
    for _, _, operation in operations():
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for body in [*bodies, *operation["responses"].values()]:
            for kind, content in body.get("content", {}).items():
                examples = [example["value"] for example in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                for example in examples:
                    check(example, content["schema"])
                    checked += kind == "application/json"
    assert checked >= 6


def check(value: Any, schema: Any) -> None:
    """Raises jsonschema's ValidationError for a value that the schema of the document does not describe."""
    jsonschema.validate(value, {**schema, "components": DOCUMENT["components"]}, jsonschema.Draft202012Validator)


@pytest.mark.asyncio
async def test_anybody_gets_the_document_and_once_only(bench: Bench) -> None:
    call = await bench.call("/api/v1/openapi.json", headers={})
    assert (call.status, call.body) == (200, FILE.read_bytes())
    again = await bench.call("/api/v1/openapi.json", headers={"if-none-match": call.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.asyncio
async def test_the_events_of_a_stream_are_chunks(bench: Bench) -> None:
    call = await bench.chat("sandbox-echo", stream=True)
    assert call.events[-1] == "[DONE]" and len(call.events) > 3
    for event in call.events[:-1]:
        check(event, {"$ref": "#/components/schemas/ChatCompletionChunk"})
    broken = await bench.chat("sandbox-fault-cut-1", stream=True)
    assert broken.events[-1]["error"]["code"] == "upstream_failed"
    check(broken.events[-1], {"$ref": "#/components/schemas/ChatCompletionChunk"})
