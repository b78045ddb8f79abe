"""What clients send beside what the reference names, at every endpoint: other methods, paths and query parameters."""

import re
from typing import Any

import pytest
from django.urls import get_resolver

from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench
from tests.gateway.test_money import short_connections
from tests.gateway.test_stored_responses import owners

__all__ = ["owners", "short_connections"]
pytestmark = pytest.mark.asyncio
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 5}
ASKED: dict[str, dict[str, Any]] = {
    "chat/completions": CHAT,
    "messages": CHAT,
    "messages/count_tokens": CHAT,
    "completions": {"model": "base", "prompt": "one two", "max_tokens": 5},
    "responses": {"model": "base", "input": "one two", "store": False},
    "embeddings": {"model": "embed", "input": "one two"},
    "conversations": {"metadata": {}},
}
"""Endpoints that ask a model, or make something -> a request that is right."""
POSSIBLE_ID = "resp_" + 32 * "0"
NO_ID = "resp_0"
"""Of what no response is looked for in the database."""


def paths_in_use(response_id: str) -> dict[str, set[str]]:
    """Every path of the gateway with what stands in it, and the methods that it has; not those that are always 404."""
    found = {}
    for pattern in get_resolver("apps.gateway.urls").url_patterns:
        view = pattern.callback.view_class
        path = re.sub(r"<\w+:model_id>", "base", str(pattern.pattern)).replace("<str:response_id>", response_id)
        methods = {name for name in METHODS if hasattr(view, name.lower()) and name.lower() in view.http_method_names}
        if methods and "<" not in path:
            found[path] = methods | ({"HEAD"} if "GET" in methods else set())
    return found


PATHS = paths_in_use(NO_ID)


async def ask(bench: Bench, path: str, method: str, **kwargs: Any) -> Any:
    body = ASKED.get(path, {}) if method in ("POST", "PUT", "PATCH") else None
    bench.runtime.catalog.snapshot = snapshot(
        bench.models["base"],
        offered(id="embed", targets=(bench.target("sandbox-embedding"),), output_modalities=("embeddings",)),
    )
    return await bench.call(f"/api/v1/{path}", body, method=method, **kwargs)


async def test_other_methods_of_every_path_are_told_those_that_it_has(bench: Bench) -> None:
    assert len(PATHS) >= 17 and set(ASKED) <= set(PATHS)
    for path, known in paths_in_use(POSSIBLE_ID).items():
        for method in set(METHODS) - known:
            call = await ask(bench, path, method)
            assert (call.status, set(call.headers["allow"].split(", "))) == (405, known), (path, method)


async def test_what_is_beneath_a_path_is_404_whatever_the_method(bench: Bench) -> None:
    beneath = [f"{path}/nix" for path in PATHS if not path.startswith(("models", "conversations"))]
    unknown = [
        "models/a/b/c",
        "conversations/conv_0/nix",
        "models/nobody",
        "models/nobody/endpoints",
        "models/base/nix",
        "responses/compact",
    ]
    unknown += ["responses/input_tokens", "responses/compact/input_items", "responses/nix/cancel", "messages/batches"]
    for path in (*beneath, *unknown):
        for method in METHODS:
            call = await ask(bench, path, method)
            assert call.status == 404, (path, method, call.body)


async def test_head_is_get_without_its_body(bench: Bench) -> None:
    for path in (path for path, methods in PATHS.items() if "GET" in methods):
        got, head = await ask(bench, path, "GET"), await ask(bench, path, "HEAD")
        assert head.status < 500
        assert (head.status, head.headers["content-type"]) == (got.status, got.headers["content-type"]), path


@pytest.mark.usefixtures("owners")
async def test_compressed_bodies_are_415_at_every_path_that_takes_one(bench: Bench) -> None:
    given = {"authorization": f"Bearer {bench.key}", "content-type": "application/json"}
    for path in (path for path, methods in PATHS.items() if "POST" in methods):
        for encoding in ("gzip", "br", "zstd", "deflate"):
            call = await ask(bench, path, "POST", headers={**given, "content-encoding": encoding})
            assert (call.status, call.json["error"]["message"][:10]) == (415, "Compressed"), (path, encoding)
        call = await ask(bench, path, "POST", headers={**given, "content-encoding": "identity"})
        assert call.status == (200 if path in ASKED else 404), (path, call.body)


@pytest.mark.usefixtures("owners")
async def test_unknown_query_parameters_change_nothing(bench: Bench) -> None:
    for path, methods in PATHS.items():
        for method in methods:
            plain = await ask(bench, path, method)
            call = await ask(bench, path, method, query="beta=true&api-version=2024-10-21&x=%00&x=1&&=")
            assert call.status == plain.status, (path, method, call.body)
            assert call.status == 200 or (call.status == 404 and NO_ID in path) or path == "generation", (
                path,
                method,
                call.body,
            )
