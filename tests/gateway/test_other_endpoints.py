"""GET /models, /models/{id}, /key, health, and paths that do not exist."""

import pytest

from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench

pytestmark = pytest.mark.asyncio


async def test_models_are_listed_with_prices_per_token(bench: Bench) -> None:
    call = await bench.call("/api/v1/models")
    (model,) = call.json["data"]
    assert (call.json["object"], model["id"], model["object"], model["owned_by"]) == ("list", "base", "model", "Local")
    assert model["pricing"]["prompt"] == "0.00000015"
    assert model["pricing"]["completion"] == "0.0000006"
    assert model["top_provider"]["max_completion_tokens"] == 100
    assert b"sk-" not in call.body and b"127.0.0.1" not in call.body and b"sandbox-echo" not in call.body


async def test_one_model_by_an_id_with_a_slash(bench: Bench) -> None:
    bench.runtime.catalog.snapshot = snapshot(offered(id="meta/llama-4"))
    assert (await bench.call("/api/v1/models/meta/llama-4")).json["id"] == "meta/llama-4"
    call = await bench.call("/api/v1/models/nobody")
    assert (call.status, call.json["error"]["code"]) == (404, "model_not_found")


async def test_a_key_sees_what_it_is(bench: Bench) -> None:
    answer = (await bench.call("/api/v1/key")).json
    assert (answer["id"], answer["data"]["organization"]["slug"]) == ("key_1", "demo")
    assert bench.key not in str(answer)


async def test_unknown_paths_are_404_and_wrong_methods_405(bench: Bench) -> None:
    assert (await bench.call("/api/v1/nix")).status == 404
    assert (await bench.call("/api/v1/key", {"a": 1})).status == 405
    assert (await bench.call("/api/v1/models", method="HEAD")).status == 200


async def test_health(bench: Bench) -> None:
    assert (await bench.call("/healthz", headers={})).status == 200
    assert (await bench.call("/readyz", headers={})).status == 200
    bench.runtime.catalog.snapshot = None
    call = await bench.call("/readyz", headers={})
    assert (call.status, call.json["reason"]) == (503, "the catalog is not loaded yet")
    call = await bench.chat("base")
    assert (call.status, call.json["error"]["type"]) == (503, "service_unavailable_error")


async def test_a_bug_is_a_500_that_tells_only_its_request_id(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("apps.gateway.views.asking.admit", broken)
    call = await bench.chat("base")
    assert call.status == 500
    assert call.request_id in call.json["error"]["message"]
    assert "secret" not in call.body.decode()


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/console/", "/o/demo/", "/static/css/portal.css"])
async def test_no_page_of_the_web_process_is_served_here(bench: Bench, path: str) -> None:
    assert (await bench.call(path)).status == 404


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "DELETE", "FOO"])
async def test_other_methods_are_405_not_a_bug(bench: Bench, method: str) -> None:
    assert (await bench.call("/api/v1/models", method=method)).status == 405


async def test_the_same_key_twice_is_one_key_and_two_different_ones_are_400(bench: Bench) -> None:
    bearer = f"Bearer {bench.key}"
    assert (await bench.call("/api/v1/key", headers={"authorization": f"{bearer},{bearer}"})).status == 200
    call = await bench.call("/api/v1/key", headers={"authorization": f"{bearer},Bearer ak_other"})
    assert call.status == 400
