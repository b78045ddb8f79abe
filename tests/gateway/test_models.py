"""GET /models and /models/{id}: OpenRouter's fields, tags, Anthropic's list, and what stands in the headers."""

import time
from typing import Any

import msgspec
import pytest

from apps.billing.pricing.book import BookRule, PriceBook
from apps.gateway.providers import PROVIDERS
from tests.factories import PRICE, TARGET, offered, snapshot
from tests.gateway.conftest import Bench, Call

pytestmark = pytest.mark.asyncio
PATH = "/api/v1/models"


def offer(bench: Bench, *models: Any) -> None:
    bench.runtime.catalog.snapshot = snapshot(*models)


async def ask(bench: Bench, path: str = PATH, *, query: str = "", method: str = "", **headers: str) -> Call:
    given = {
        "authorization": f"Bearer {bench.key}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return await bench.call(path, headers=given, query=query, method=method)


async def test_a_model_has_openrouters_fields_and_null_for_what_nobody_knows(bench: Bench) -> None:
    offer(bench, offered(id="a/b", input_modalities=("text", "image"), tokenizer="o200k_base"))
    (listed,) = (await ask(bench)).json["data"]
    assert listed == (await ask(bench, f"{PATH}/a/b")).json
    assert (listed["id"], listed["canonical_slug"], listed["object"], listed["owned_by"]) == (
        "a/b",
        "a/b",
        "model",
        "Local",
    )
    assert listed["architecture"] == {
        "modality": "text+image->text", "input_modalities": ["text", "image"], "output_modalities": ["text"],
        "tokenizer": "o200k_base", "instruct_type": None,
    }  # fmt: skip
    assert listed["top_provider"] == {"context_length": 128_000, "max_completion_tokens": 100, "is_moderated": False}
    assert {"tools", "response_format", "temperature"} <= set(listed["supported_parameters"])
    unknown = ("per_request_limits", "hugging_face_id", "knowledge_cutoff", "expiration_date")
    assert [listed[name] for name in unknown] == [None] * 4 and listed["default_parameters"] == {}


async def test_supported_parameters_do_not_tell_what_the_upstream_speaks(bench: Bench) -> None:
    options = {"region": "us-east-1", "auth": "bearer"}
    targets = [msgspec.structs.replace(TARGET, dialect=dialect, options=options) for dialect in PROVIDERS]
    offer(bench, *(offered(id=target.dialect, targets=(target,)) for target in targets))
    listed = {model["id"]: set(model["supported_parameters"]) for model in (await ask(bench)).json["data"]}
    assert listed.keys() == PROVIDERS.keys() and "temperature" in listed["openai"]
    assert [dialect for dialect, names in listed.items() if "stop" not in names] == ["openai-responses"]
    assert {frozenset(names - {"stop"}) for names in listed.values()} == {frozenset(listed["openai"] - {"stop"})}


async def test_a_caller_who_has_the_list_gets_304_until_it_changes(bench: Bench) -> None:
    first = await ask(bench)
    etag = first.headers["etag"]
    assert first.status == 200 and first.headers["vary"] == "authorization, x-api-key, anthropic-version"
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await ask(bench, if_none_match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        assert "content-type" not in again.headers and "content-length" not in again.headers
        assert again.headers["x-request-id"] == again.headers["x-crun-generation-id"]
    assert (await ask(bench, if_none_match='"other"')).status == 200
    offer(bench, *bench.models.values(), offered(id="new"))
    changed = await ask(bench, if_none_match=etag)
    assert changed.status == 200 and len(changed.json["data"]) == 2
    offer(bench, *bench.models.values())
    assert (await ask(bench, if_none_match=etag)).status == 304  # as it was: the tag is that of the content
    detail = await ask(bench, f"{PATH}/base")
    assert (await ask(bench, f"{PATH}/base", if_none_match=detail.headers["etag"])).status == 304


async def test_another_organization_another_price_and_another_list(bench: Bench) -> None:
    first = await ask(bench)
    bench.runtime.catalog.book = PriceBook([BookRule("rule_1", "org_2", "", 0.0, change=-500_000)])
    assert (await ask(bench)).headers["etag"] == first.headers["etag"]
    bench.limit(organization_id="org_2")
    theirs = await ask(bench, if_none_match=first.headers["etag"])
    assert theirs.status == 200
    assert theirs.json["data"][0]["pricing"]["prompt"] == "0.000000075"
    assert theirs.json["data"][0]["list_pricing"]["prompt"] == "0.00000015"


async def test_a_price_that_begins_changes_the_list_when_it_begins(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = time.time()
    later = msgspec.structs.replace(PRICE, version_id=2, starts_at=moment + 100, input=300_000_000)
    offer(bench, offered(prices=(later, PRICE)))
    before = await ask(bench)
    monkeypatch.setattr("apps.gateway.views.models.time.time", lambda: moment + 101)
    after = await ask(bench, if_none_match=before.headers["etag"])
    assert (after.status, after.json["data"][0]["pricing"]["prompt"]) == (200, "0.0000003")


async def test_a_sandbox_key_sees_the_sandbox_alone(bench: Bench) -> None:
    assert len((await ask(bench)).json["data"]) == 1
    bench.limit(sandbox=True)
    assert (await ask(bench)).json["data"] == []
    assert (await ask(bench, anthropic_version="2023-06-01")).json["data"] == []


async def test_anthropics_clients_get_their_own_list_in_pages(bench: Bench) -> None:
    offer(bench, *(offered(id=f"m{number}", name=f"M {number}", created=number * 86_400) for number in range(5)))
    whole = (await ask(bench, anthropic_version="2023-06-01")).json
    assert whole["data"][0] == {
        "type": "model",
        "id": "m4",
        "display_name": "M 4",
        "created_at": "1970-01-05T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 128_000,
        "max_tokens": 100,
    }
    assert (whole["has_more"], whole["first_id"], whole["last_id"]) == (False, "m4", "m0")

    async def page(query: str) -> tuple[list[str], bool]:
        content = (await ask(bench, query=query, anthropic_version="2023-06-01")).json
        return [model["id"] for model in content["data"]], content["has_more"]

    assert await page("limit=2") == (["m4", "m3"], True)
    assert await page("limit=2&after_id=m3") == (["m2", "m1"], True)
    assert await page("limit=2&after_id=m1") == (["m0"], False)
    assert await page("limit=2&before_id=m1") == (["m3", "m2"], True)
    assert await page("limit=2&before_id=m3") == (["m4"], False)
    assert await page("after_id=m0") == ([], False)
    one = await ask(bench, f"{PATH}/m2", anthropic_version="2023-06-01")
    assert (one.json["type"], one.json["id"], one.json["display_name"]) == ("model", "m2", "M 2")
    assert one.json["created_at"] == "1970-01-03T00:00:00Z"


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=", "limit"), ("limit=٣", "limit"),
     ("limit=99999999999", "limit"), ("after_id=nobody", "after_id"), ("before_id=nobody", "before_id"),
     ("after_id=base&before_id=base", "before_id")],
)  # fmt: skip
async def test_a_wrong_page_is_an_error_in_anthropics_envelope(bench: Bench, query: str, param: str) -> None:
    call = await ask(bench, query=query, anthropic_version="2023-06-01")
    assert (call.status, call.json["type"], call.json["request_id"]) == (400, "error", call.request_id)
    assert (call.json["error"]["type"], call.json["error"]["param"]) == ("invalid_request_error", param)


async def test_anthropics_clients_get_errors_that_both_kinds_of_client_can_read(bench: Bench) -> None:
    call = await ask(bench, f"{PATH}/nobody", anthropic_version="2023-06-01")
    error = call.json["error"]
    assert (call.status, error["type"], error["code"], error["param"]) == (
        404,
        "not_found_error",
        "model_not_found",
        "model",
    )
    call = await bench.call(PATH, headers={"x-api-key": "ak_wrong", "anthropic-version": "2023-06-01"})
    assert (call.status, call.json["error"]["type"]) == (401, "authentication_error")
    bench.runtime.catalog.snapshot = None
    call = await ask(bench, anthropic_version="2023-06-01")
    assert (call.status, call.json["error"]["type"], call.headers["retry-after"]) == (529, "overloaded_error", "1")


async def test_head_works_wherever_get_does(bench: Bench) -> None:
    for path in (PATH, f"{PATH}/base", "/api/v1/key", "/api/v1/credits", "/api/v1/client/account/balance"):
        got, head = await ask(bench, path), await ask(bench, path, method="HEAD")
        assert (head.status, head.headers["content-type"]) == (got.status, got.headers["content-type"])


async def test_a_wrong_method_is_told_the_right_ones(bench: Bench) -> None:
    call = await ask(bench, method="DELETE")
    assert (call.status, call.headers["allow"], call.json["error"]["code"]) == (405, "GET, HEAD", "method_not_allowed")
    assert (await ask(bench, "/api/v1/chat/completions", method="HEAD")).headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    ["/api/v1/chat", "/api/v1/chat/completions/x", "/api/v1/models/", "/api/v1/key/x", "/api/v1/", "/api/v1/client/x"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD", "PATCH"])
async def test_unknown_paths_are_404_in_the_right_envelope_whatever_the_method(
    bench: Bench, path: str, method: str
) -> None:
    call = await ask(bench, path, method=method)
    assert call.status == 404
    assert call.headers["x-request-id"] == call.headers["x-crun-generation-id"]
    if "client" in path:
        assert (call.json["code"], call.json["data"]) == (404, None)
    else:
        assert call.json["error"]["code"] == "not_found"


async def test_every_answer_has_its_ids(bench: Bench) -> None:
    calls = [
        await ask(bench),
        await bench.chat("base"),
        await bench.chat("base", stream=True),
        await bench.chat("nobody"),
        await bench.call("/api/v1/chat/completions", b"{"),
        await bench.call("/api/v1/nix"),
        await bench.call(PATH, headers={}),
    ]
    for call in calls:
        assert call.request_id.startswith("req_") and call.headers["x-crun-generation-id"] == call.request_id
    assert [call.status for call in calls] == [200, 200, 200, 404, 400, 404, 401]


async def test_options_of_a_stream_that_go_nowhere_are_named(bench: Bench) -> None:
    options = {"include_usage": False, "include_obfuscation": True, "odd\r\nx: y": 1}
    call = await bench.chat("base", stream=True, stream_options=options)
    assert call.headers["x-crun-dropped-params"] == "stream_options.include_obfuscation, other"
    call = await bench.chat("base", stream_options={"include_usage": True})
    assert (call.status, call.headers["x-crun-dropped-params"]) == (200, "stream_options.include_usage")
    for plain in ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}):
        assert "x-crun-dropped-params" not in (await bench.chat("base", **plain)).headers
