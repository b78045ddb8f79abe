"""POST /embeddings: the contract at the door, what goes out and comes back, and the money."""

import asyncio
import base64
from array import array
from typing import Any

import msgspec
import orjson
import pytest

from apps.catalog.contracts import Price
from apps.core.limits import Limits
from apps.gateway.answers import embeddings as embeddings_answer
from apps.gateway.dialects.embeddings import MAX_INPUTS, parse_embeddings
from apps.gateway.errors import GatewayError
from apps.usage.contracts import Outcome, TokenCounts
from crun.sandbox.embeddings import vector_of
from tests.factories import PRICE, offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.gateway.test_fallback import DEAR, ends, left
from tests.gateway.test_money import short_connections
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream

__all__ = ["short_connections", "upstream"]
EMBEDDINGS = "/api/v1/embeddings"
EMBED: Any = {"output_modalities": ("embeddings",), "context_length": 8_192, "max_output_tokens": 1}
SDK_LIKE = {"model": "embed", "input": "one two three"}


def put_on_offer(bench: Bench, **models: tuple[str, Price]) -> None:
    offers = [
        offered(id=name, targets=(bench.target(theirs),), prices=(price,), **EMBED)
        for name, (theirs, price) in models.items()
    ]
    bench.runtime.catalog.snapshot = snapshot(*offers, offered(id="talks", targets=(bench.target("sandbox-echo"),)))


async def ask(bench: Bench, body: Any, **kwargs: Any) -> Call:
    put_on_offer(bench, embed=("sandbox-embedding", PRICE))
    return await bench.call(EMBEDDINGS, body, **kwargs)


def answer_of(*vectors: Any, **more: Any) -> bytes:
    listed = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return orjson.dumps({"object": "list", "data": listed, "model": UPSTREAM_MODEL, "usage": usage, **more})


async def scripted(
    bench: Bench, upstream: ScriptedUpstream, body: bytes, *, dialect: str = "openai", **fields: Any
) -> Call:
    options = {"api_version": "2024-10-21"} if dialect == "azure" else {"region": "eu-central-1"}
    upstream.offer(bench, dialect, options=options if dialect in ("azure", "bedrock") else None)
    model = msgspec.structs.replace(bench.models[PUBLIC_MODEL], output_modalities=("embeddings",), context_length=8_192)
    bench.runtime.catalog.snapshot = snapshot(model)
    upstream.answer(body, headers={"content-type": "application/json"})
    return await bench.call(EMBEDDINGS, {"model": PUBLIC_MODEL, "input": ["one", "two"], **fields})


@pytest.mark.asyncio
async def test_an_answer_is_openais_with_the_cost(bench: Bench) -> None:
    call = await ask(bench, SDK_LIKE)
    assert call.status == 200
    assert call.json == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": vector_of("one two three")}],
        "model": "embed",
        "usage": {
            "prompt_tokens": 3, "total_tokens": 3, "cost": 4.5e-07, "is_byok": False,
            "cost_details": {"estimated": False},
        },
    }  # fmt: skip
    assert call.headers["x-crun-cost"] == "0.000000450"
    assert call.headers["content-type"] == "application/json"
    record = bench.record(call)
    assert (record.outcome, record.tokens, record.cost_nanos) == (Outcome.COMPLETED, TokenCounts(input=3), 450)
    assert not record.opened.streamed
    assert (await bench.truth_of(call)).outcome == "complete"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["one two", "three"], ["one two", "three"]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ],
)
async def test_inputs_of_all_four_kinds(bench: Bench, given: Any, expected: list[Any]) -> None:
    call = await ask(bench, {"model": "embed", "input": given, "dimensions": 16, "user": "me"})
    assert [each["embedding"] for each in call.json["data"]] == [vector_of(value, 16) for value in expected]
    assert call.json["usage"]["prompt_tokens"] == 3


@pytest.mark.asyncio
async def test_base64_comes_as_it_is(bench: Bench) -> None:
    call = await ask(bench, {**SDK_LIKE, "encoding_format": "base64"})
    packed = base64.b64decode(call.json["data"][0]["embedding"])
    assert array("f", packed).tolist() == vector_of("one two three")


@pytest.mark.asyncio
async def test_what_the_upstream_gets(bench: Bench, upstream: ScriptedUpstream) -> None:
    wished: Any = {"metadata": {"a": "b"}, "session_id": "s", "models": [PUBLIC_MODEL], "provider": {"only": ["local"]}}
    call = await scripted(bench, upstream, answer_of([1.5], [2]), dimensions=8, truncate="END", **wished)
    assert call.status == 200
    assert upstream.request.target == "/embeddings"
    assert upstream.request.headers["authorization"].startswith("Bearer ")
    expected = {"model": UPSTREAM_MODEL, "input": ["one", "two"], "dimensions": 8, "truncate": "END"}
    assert upstream.request.json == expected


@pytest.mark.asyncio
async def test_azure_is_asked_at_its_own_address(bench: Bench, upstream: ScriptedUpstream) -> None:
    call = await scripted(bench, upstream, answer_of([1.5], [2]), dialect="azure")
    assert call.status == 200
    assert upstream.request.target == f"/openai/deployments/{UPSTREAM_MODEL}/embeddings?api-version=2024-10-21"
    assert "api-key" in upstream.request.headers


@pytest.mark.asyncio
@pytest.mark.parametrize("dialect", ["anthropic", "gemini", "bedrock"])
async def test_other_dialects_refuse_and_name_the_model(
    bench: Bench, upstream: ScriptedUpstream, empty_store: Any, dialect: str
) -> None:
    call = await scripted(bench, upstream, b"", dialect=dialect)
    error = call.json["error"]
    assert (call.status, error["code"], error["param"]) == (400, "unsupported_modality", "model")
    assert PUBLIC_MODEL in error["message"]
    assert upstream.requests == []
    assert bench.record(call).cost_nanos == 0
    assert (await left(bench, empty_store))[1:] == (0, 0)


@pytest.mark.asyncio
async def test_nothing_of_the_upstream_leaks(bench: Bench, upstream: ScriptedUpstream) -> None:
    body = answer_of([0.1], [0.2], id="secret-id", system_fingerprint="secret-fp", provider="secret")
    call = await scripted(bench, upstream, body.replace(b'"index":0', b'"index":0,"secret-more":1'))
    assert b"secret" not in call.body
    assert set(call.json) == {"object", "data", "model", "usage"}
    assert set(call.json["data"][0]) == {"object", "index", "embedding"}


@pytest.mark.asyncio
async def test_vectors_come_in_the_order_of_the_inputs_and_as_they_were_asked_for(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    packed = base64.b64encode(array("f", [0.5, -2.0]).tobytes()).decode()
    turned = {"data": [{"index": 1, "embedding": [1e-3, 2]}, {"index": 0, "embedding": packed}]}
    call = await scripted(bench, upstream, orjson.dumps(turned))
    assert [each["embedding"] for each in call.json["data"]] == [[0.5, -2.0], [0.001, 2]]
    upstream.answers.clear()
    call = await scripted(bench, upstream, orjson.dumps(turned), encoding_format="base64")
    told = [array("f", base64.b64decode(each["embedding"])).tolist() for each in call.json["data"]]
    assert told == [[0.5, -2.0], array("f", [0.001, 2]).tolist()]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        answer_of([1.0]),
        answer_of([1.0], [1.0], [1.0]),
        answer_of([1.0], []),
        answer_of([1.0], [[1.0]]),
        answer_of([1.0], ["x"]),
        answer_of([1.0], None),
        answer_of([1.0], {"a": 1}),
        answer_of([1.0], 5),
        answer_of([1.0], "not base64!"),
        answer_of([1.0], "AAAA"),
        answer_of([1.0], base64.b64encode(array("f", [float("nan")]).tobytes()).decode()),
        answer_of([1.0], [1.0]).replace(b'"index":1', b'"index":0'),
        answer_of([1.0], [1.0])[:-40],
    ],
)
async def test_a_broken_answer_is_an_error_and_free(
    bench: Bench, upstream: ScriptedUpstream, empty_store: Any, body: bytes
) -> None:
    call = await scripted(bench, upstream, body)
    assert (call.status, call.json["error"]["code"]) == (502, "upstream_failed")
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos, record.tokens) == (Outcome.FAILED, 0, TokenCounts())
    assert (await left(bench, empty_store))[1:] == (0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("usage", "tokens", "estimated", "is_reviewed"),
    [
        (None, 1, True, False),
        ({"total_tokens": 5}, 5, False, False),
        ({"prompt_tokens": 5}, 5, False, False),
        ({"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}, 5, False, False),
        ({"prompt_tokens": 5, "completion_tokens": None, "total_tokens": 5}, 5, False, False),
        ({"prompt_tokens": None, "total_tokens": 5}, 5, False, False),
        ({"prompt_tokens": 0, "total_tokens": 0}, 0, False, True),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, 1, True, True),
        ({"prompt_tokens": 5, "total_tokens": 7}, 1, True, True),
        ({"prompt_tokens": -5, "total_tokens": -5}, 1, True, True),
        ({"prompt_tokens": "5"}, 1, True, True),
        ({"prompt_tokens": 50_000_000, "total_tokens": 50_000_000}, 1, True, True),
        ([], 1, True, True),
    ],
)
async def test_usage_is_billed_as_told_or_estimated(
    bench: Bench, upstream: ScriptedUpstream, usage: Any, tokens: int, estimated: bool, is_reviewed: bool
) -> None:
    call = await scripted(bench, upstream, answer_of([1.0], [1.0], usage=usage))
    assert call.status == 200
    record = bench.record(call)
    assert (record.tokens, record.estimated, bool(record.review)) == (TokenCounts(input=tokens), estimated, is_reviewed)
    assert call.json["usage"]["prompt_tokens"] == tokens
    assert call.json["usage"]["cost_details"] == {"estimated": estimated}
    assert orjson.loads(record.raw_usage or "null") == usage


@pytest.mark.asyncio
async def test_token_ids_are_estimated_as_what_they_are(bench: Bench) -> None:
    put_on_offer(bench, embed=("sandbox-fault-no-usage", PRICE))
    call = await bench.call(EMBEDDINGS, {"model": "embed", "input": [[1, 2, 3], [4]]})
    assert bench.record(call).tokens == TokenCounts(input=4)


@pytest.mark.asyncio
async def test_the_hold_is_the_bound_on_the_input_and_no_output(bench: Bench, empty_store: Any) -> None:
    body = orjson.dumps({"model": "embed", "input": ["one two", "three"]})
    call = await ask(bench, body)
    opened = bench.record(call).opened
    assert opened.hold_nanos == -(-(len(body) + 2 * 8) * PRICE.input // 10**6)
    ids = await ask(bench, {"model": "embed", "input": [[100_000, 100_001], [5]]})
    assert bench.record(ids).opened.hold_nanos == -(-(3 + 2 * 8) * PRICE.input // 10**6)
    told = await ask(bench, {"model": "embed", "input": [[1], [5]], "instruct": "Query: ", "user": "me"})
    of_vendor = len(orjson.dumps({"instruct": "Query: "}))
    assert bench.record(told).opened.hold_nanos == -(-(2 + 2 * (8 + of_vendor)) * PRICE.input // 10**6)
    balance, held, holds = await left(bench, empty_store)
    assert (held, holds) == (0, 0)
    again = await ask(bench, SDK_LIKE)
    after, held, holds = await left(bench, empty_store)
    assert (balance - after, held, holds) == (bench.record(again).cost_nanos, 0, 0)
    assert bench.record(again).cost_nanos == 450


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fault", "status"),
    [("500", 502), ("503", 503), ("401", 502), ("bad-json", 502), ("short-body", 502), ("400", 400)],
)
async def test_a_failure_gives_the_hold_back(bench: Bench, empty_store: Any, fault: str, status: int) -> None:
    await ask(bench, SDK_LIKE)
    before, *_ = await left(bench, empty_store)
    put_on_offer(bench, embed=(f"sandbox-fault-{fault}", PRICE))
    call = await bench.call(EMBEDDINGS, SDK_LIKE)
    assert call.status == status
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos) == (Outcome.FAILED, 0)
    assert record.opened.hold_nanos
    assert await left(bench, empty_store) == (before, 0, 0)


@pytest.mark.asyncio
async def test_the_caller_leaves_and_pays_for_the_input_once(bench: Bench, empty_store: Any) -> None:
    put_on_offer(bench, embed=("sandbox-embedding", PRICE))
    call = bench.start(EMBEDDINGS, {**SDK_LIKE, "sandbox": {"delay_ms": 60_000}})
    while bench.runtime.reservations.running_requests == 0 or not bench.truth():  # noqa: ASYNC110 - the log is a file
        await asyncio.sleep(0.01)
    call.leave()
    assert call.task is not None
    await call.task
    (end,) = ends(bench)
    assert (end.outcome, end.tokens, end.estimated) == (Outcome.CANCELLED, TokenCounts(input=3), True)
    assert (await left(bench, empty_store))[1:] == (0, 0)


@pytest.mark.asyncio
async def test_other_models_are_tried_and_the_one_that_ran_is_billed(bench: Bench) -> None:
    put_on_offer(bench, a=("sandbox-fault-503", PRICE), b=("sandbox-embedding", DEAR))
    call = await bench.call(EMBEDDINGS, {"model": "talks", "models": ["a", "b"], "input": "one two three"})
    assert (call.status, call.json["model"]) == (200, "b")
    end = bench.record(call)
    assert (end.opened.model, end.cost_nanos) == ("b", 3 * 3_000)
    assert [each.model for each in end.attempts] == ["a", "b"]


@pytest.mark.asyncio
async def test_an_idempotency_key_gives_the_same_answer_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    headers = {"authorization": f"Bearer {bench.key}", "idempotency-key": "k"}
    first = await ask(bench, SDK_LIKE, headers=headers)
    again = await ask(bench, SDK_LIKE, headers=headers)
    assert again.body == first.body
    assert again.headers["x-crun-idempotent-replay"] == "true"
    assert len(ends(bench)) == 1
    other = await bench.call("/api/v1/completions", {"model": "talks", "prompt": "x"}, headers=headers)
    assert (other.status, other.json["error"]["code"]) == (409, "idempotency_key_reused")


@pytest.mark.asyncio
async def test_the_receipt_is_one_of_embeddings(bench: Bench, short_connections: None, transactional_db: None) -> None:
    call = await ask(bench, SDK_LIKE)
    await bench.runtime.reservations.drain(10)
    receipt = (await bench.call("/api/v1/generation", query=f"id={call.request_id}")).json["data"]
    assert (receipt["api_type"], receipt["model"], receipt["tokens_prompt"]) == ("embeddings", "embed", 3)
    assert receipt["endpoint"] == "embeddings"
    assert receipt["receipt"]["cost"] == "0.000000450"
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    chat = await bench.chat("base")
    receipt = (await bench.call("/api/v1/generation", query=f"id={chat.request_id}")).json["data"]
    assert receipt["api_type"] == "completions"


@pytest.mark.asyncio
async def test_limits_count_the_input_and_are_told(bench: Bench) -> None:
    bench.limit(key_limits=Limits(tokens_per_minute=100))
    call = await ask(bench, {"model": "embed", "input": [1] * 50})
    assert call.status == 200
    assert call.headers["x-ratelimit-limit-tokens"] == "100"
    refused = await ask(bench, {"model": "embed", "input": [1] * 60})
    assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
    never = await ask(bench, {"model": "embed", "input": [1] * 101})
    assert (never.status, never.json["error"]["code"]) == (429, "request_larger_than_rate_limit")


@pytest.mark.asyncio
async def test_many_inputs_may_fill_their_contexts_each(bench: Bench) -> None:
    """The whole is longer than the context, counted or not; each input is not."""
    target = bench.target("sandbox-embedding")
    bench.runtime.catalog.snapshot = snapshot(offered(id="embed", targets=(target,), tokenizer="o200k_base", **EMBED))
    bench.limit(key_limits=Limits(tokens_per_minute=300_000))
    words = " ".join(["word"] * 6_000)
    call = await bench.call(EMBEDDINGS, {"model": "embed", "input": [words] * 40})
    assert call.status == 200, call.json
    assert call.json["usage"]["prompt_tokens"] == 240_000
    assert bench.record(call).tokens == TokenCounts(input=240_000)
    assert bench.record(call).overage_nanos == 0
    assert (bench.record(call).opened.hold_nanos or 0) < 300_000 * PRICE.input // 10**6


@pytest.mark.asyncio
async def test_what_is_certainly_too_long_is_refused_here(bench: Bench) -> None:
    call = await ask(bench, {"model": "embed", "input": [[1], [1] * 8_193]})
    error = call.json["error"]
    assert (call.status, error["code"], error["param"]) == (400, "context_length_exceeded", "input[1]")
    put_on_offer(bench, embed=("sandbox-embedding", PRICE))
    bench.runtime.catalog.snapshot = snapshot(offered(id="embed", tokenizer="cl100k_base", **EMBED))
    call = await bench.call(EMBEDDINGS, {"model": "embed", "input": ["a", "one two three " * 6_000]})
    error = call.json["error"]
    assert (call.status, error["code"], error["param"]) == (400, "context_length_exceeded", "input")


@pytest.mark.asyncio
async def test_a_model_is_asked_where_it_answers(bench: Bench) -> None:
    call = await ask(bench, {"model": "talks", "input": "x"})
    error = call.json["error"]
    assert (call.status, error["code"], error["param"]) == (400, "unsupported_modality", "model")
    assert "talks" in error["message"]
    for path, body in (
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("completions", {"prompt": "x"}),
    ):
        call = await bench.call(f"/api/v1/{path}", {"model": "embed", **body})
        error = call.json["error"]
        assert (call.status, error["code"], error["param"]) == (400, "unsupported_modality", "model")
    assert ends(bench) == []


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("model", {"model": ""}),
        ("model", {"model": 5}),
        ("input", {"input": None}),
        ("input", {"input": ""}),
        ("input", {"input": []}),
        ("input", {"input": 5}),
        ("input", {"input": {"a": 1}}),
        ("input[1]", {"input": ["a", ""]}),
        ("input[1]", {"input": ["a", 5]}),
        ("input[0]", {"input": [None]}),
        ("input[0]", {"input": [True]}),
        ("input", {"input": [1, "a"]}),
        ("input", {"input": [1, True]}),
        ("input", {"input": [1, 1.0]}),
        ("input", {"input": [1, -1]}),
        ("input", {"input": [2**31]}),
        ("input[0]", {"input": [[]]}),
        ("input[1]", {"input": [[1], "a"]}),
        ("input[1]", {"input": [[1], [1, None]]}),
        ("input", {"input": ["a"] * (MAX_INPUTS + 1)}),
        ("encoding_format", {"encoding_format": "int8"}),
        ("encoding_format", {"encoding_format": ["float"]}),
        ("dimensions", {"dimensions": 0}),
        ("dimensions", {"dimensions": True}),
        ("dimensions", {"dimensions": 8.0}),
        ("dimensions", {"dimensions": 65_537}),
        ("user", {"user": 5}),
        ("user", {"user": "a\x00"}),
        ("stream", {"stream": True}),
        ("messages", {"messages": [{"role": "user", "content": "what is billed and not seen"}]}),
        ("service_tier", {"service_tier": "fast"}),
        ("metadata", {"metadata": []}),
    ],
)
def test_a_bad_field_is_named(param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as refused:
        parse_embeddings(orjson.dumps({**SDK_LIKE, **fields}))
    assert (refused.value.kind.status, refused.value.param) == (400, param)


def test_null_is_as_if_it_was_not_given() -> None:
    empty = dict.fromkeys(("encoding_format", "dimensions", "user", "stream", "metadata"))
    assert parse_embeddings(orjson.dumps({**SDK_LIKE, **empty})).inputs == 1


def test_the_most_that_may_come() -> None:
    assert parse_embeddings(orjson.dumps({"model": "m", "input": ["a"] * MAX_INPUTS})).inputs == MAX_INPUTS
    with pytest.raises(GatewayError) as refused:
        parse_embeddings(orjson.dumps({"model": "m", "input": "a" * (2 << 20)}))
    assert refused.value.kind.status == 413


@pytest.mark.asyncio
async def test_a_large_answer_passes(bench: Bench, upstream: ScriptedUpstream) -> None:
    large = b"[" + b",".join([b"-0.012345678"] * 1_500_000) + b"]"
    body = answer_of("LARGE", [1]).replace(b'"LARGE"', large)
    call = await scripted(bench, upstream, body)
    assert call.status == 200
    assert large in call.body


@pytest.mark.asyncio
@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_many_vectors_are_made_ready_in_steps_and_are_the_same(
    bench: Bench, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    numbers = [[0.5, -0.25, float(position)] for position in range(2)]
    packed = [base64.b64encode(array("f", each).tobytes()).decode() for each in numbers]
    other = packed if encoding == "float" else numbers
    whole = await scripted(bench, upstream, answer_of(*other), encoding_format=encoding)
    for name in ("INLINE_BYTES", "STEP_BYTES"):
        monkeypatch.setattr(f"apps.gateway.answers.embeddings.{name}", 1)
    again = await scripted(bench, upstream, answer_of(*other), encoding_format=encoding)
    assert (whole.status, again.status) == (200, 200)
    assert again.body == whole.body
    assert [each["embedding"] for each in again.json["data"]] == (numbers if encoding == "float" else packed)


@pytest.mark.asyncio
async def test_a_broken_answer_of_many_vectors_is_an_error_and_free(
    bench: Bench, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, empty_store: Any
) -> None:
    monkeypatch.setattr("apps.gateway.answers.embeddings.INLINE_BYTES", 1)
    for wrong in (answer_of([1.5], ["x"]), answer_of([1.5]), answer_of([1.5], "AAA="), answer_of([1], [2])[:-1]):
        upstream.answers.clear()
        call = await scripted(bench, upstream, wrong)
        assert (call.status, bench.record(call).cost_nanos) == (502, 0)
    assert (await left(bench, empty_store))[1:] == (0, 0)


@pytest.mark.asyncio
async def test_who_leaves_while_vectors_are_made_ready_pays_what_was_told_and_stops_the_work(
    bench: Bench, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, empty_store: Any
) -> None:
    for name in ("INLINE_BYTES", "STEP_BYTES"):
        monkeypatch.setattr(f"apps.gateway.answers.embeddings.{name}", 1)
    monkeypatch.setattr("apps.gateway.dialects.embeddings.MAX_INPUTS", 3_000)
    put_on_offer(bench, embed=("sandbox-embedding", PRICE))
    made: list[int] = []
    convert = embeddings_answer._encoded

    def note(embedding: msgspec.Raw, encoding: str) -> msgspec.Raw:
        made.append(1)
        if len(made) == 3:
            call.leave()
        return convert(embedding, encoding)

    monkeypatch.setattr(embeddings_answer, "_encoded", note)
    call = bench.start(EMBEDDINGS, {**SDK_LIKE, "input": ["one two three"] * 2_500})
    assert call.task is not None
    await call.task
    assert 3 <= len(made) < 2_000
    (end,) = ends(bench)
    assert (end.outcome, end.tokens, end.estimated) == (Outcome.CANCELLED, TokenCounts(input=7_500), False)
    assert (await left(bench, empty_store))[1:] == (0, 0)
