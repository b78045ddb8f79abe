"""Rules that ask a moderation model: what it flags is blocked, and a rule says what happens when it cannot answer."""

import asyncio
from typing import Any

import msgspec
import orjson
import pytest
from django.conf import settings

from apps.core.limits import Limits
from apps.policies.rules import Guardrail
from apps.usage.contracts import Outcome, RequestClosed
from tests.factories import TARGET
from tests.gateway.conftest import UPSTREAM_KEY, Bench, Call
from tests.gateway.test_guarded_answers import said
from tests.gateway.test_guardrails import CANARY, MAIL, guard, verdicts
from tests.policies.rules import keywords, moderation, personal
from tests.upstream.conftest import upstream
from tests.upstream.scripted import ScriptedUpstream

__all__ = ["upstream"]
pytestmark = pytest.mark.asyncio
FINE = orjson.dumps({"id": "m", "model": "m", "results": [{"flagged": False, "categories": {"violence": False}}]})
BAD = orjson.dumps({"id": "m", "model": "m", "results": [{"flagged": True, "categories": {"violence": True}}]})


def set_up(bench: Bench, upstream: ScriptedUpstream | None, *rules: Guardrail) -> None:
    """The operator has set up this moderation model, and the organization these rules."""
    guard(bench, *rules)
    bench.offer("sandbox-echo")
    target = None
    if upstream is not None:
        target = msgspec.structs.replace(
            TARGET, base_url=f"{upstream.url}/v1", upstream_model="mod-1", api_key=UPSTREAM_KEY
        )
    current = bench.runtime.catalog.snapshot
    assert current is not None
    bench.runtime.catalog.snapshot = msgspec.structs.replace(current, moderation=target)


async def test_what_is_not_flagged_passes_and_the_model_is_asked_as_openai_is(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    set_up(bench, upstream, personal("email", direction="input"), moderation(direction="input"))
    upstream.answer(FINE)
    call = await bench.chat("sandbox-echo", f"hello {MAIL}")
    assert call.status == 200
    request = upstream.request
    assert (request.method, request.target) == ("POST", "/v1/moderations")
    assert request.json == {"model": "mod-1", "input": ["hello [EMAIL_1]"]}
    assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"


async def test_a_flagged_request_is_refused_and_free(bench: Bench, upstream: ScriptedUpstream) -> None:
    rule = moderation(direction="input")
    set_up(bench, upstream, rule)
    upstream.answer(BAD)
    call = await bench.chat("sandbox-echo", CANARY)
    assert (call.status, call.json["error"]["code"]) == (400, "content_policy_violation")
    assert verdicts(bench, call) == [(rule.id, "input", "blocked")]
    end = bench.record(call)
    assert bench.truth() == {} and (end.cost_nanos, end.opened.provider) == (0, "")
    assert not bench.runtime.reservations.is_running(call.request_id)


async def test_who_has_no_money_or_is_at_a_limit_makes_nobody_ask_the_moderation_model(
    bench: Bench, upstream: ScriptedUpstream, empty_store: Any
) -> None:
    set_up(bench, upstream, moderation(direction="input"))
    upstream.answer(FINE)
    bench.limit(key_limits=Limits(requests_per_minute=1))
    assert (await bench.chat("sandbox-echo", "x")).status == 200
    call = await bench.chat("sandbox-echo", "x")
    assert (call.status, call.json["error"]["code"]) == (429, "rate_limit_exceeded")
    bench.limit(key_limits=Limits())
    empty_store.hset("crun:{org_1}:money", "balance", 0)
    for more in ({}, {"models": ["sandbox-echo"]}):  # the ordinary way, and that of a request with a list
        call = await bench.chat("sandbox-echo", "x", **more)
        assert (call.status, call.json["error"]["code"]) == (429, "credit_balance_exhausted")
    assert len(upstream.requests) == 1


async def test_a_refused_request_counts_as_one_of_its_minute_and_gives_its_money_back(
    bench: Bench, upstream: ScriptedUpstream, empty_store: Any
) -> None:
    set_up(bench, upstream, moderation(direction="input"))
    upstream.answer(BAD)
    bench.limit(key_limits=Limits(requests_per_minute=2, concurrency=1))
    calls = [await bench.chat("sandbox-echo", "x", stream=stream) for stream in (False, True, False)]
    assert [call.status for call in calls] == [400, 400, 429] and len(upstream.requests) == 2
    assert calls[1].headers["x-ratelimit-remaining-requests"] == "0"
    await bench.runtime.reservations.drain()
    assert int(empty_store.hget("crun:{org_1}:money", "held")) == 0


async def test_a_client_that_leaves_while_the_model_thinks_gets_everything_back(
    bench: Bench, upstream: ScriptedUpstream, empty_store: Any
) -> None:
    rule = moderation(direction="input")
    set_up(bench, upstream, rule)
    waiting = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    _moderated_by(bench, f"http://127.0.0.1:{waiting.sockets[0].getsockname()[1]}")
    call = bench.start("/api/v1/chat/completions", bench.chat_body("sandbox-echo", "x"))
    async with asyncio.timeout(10):
        while not bench.journal():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.005)
        call.leave()
        assert call.task is not None
        await asyncio.gather(call.task, return_exceptions=True)
    waiting.close()
    (end,) = [entry for entry in bench.journal() if isinstance(entry, RequestClosed)]
    assert (end.outcome, end.cost_nanos, bench.truth()) == (Outcome.CANCELLED, 0, {})
    await bench.runtime.reservations.drain()
    assert int(empty_store.hget("crun:{org_1}:money", "held")) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_answer_is_not_given_where_the_model_flags_the_request_by_now(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    set_up(bench, upstream, moderation(direction="input"))
    headers = {"authorization": f"Bearer {bench.key}", "content-type": "application/json", "x-crun-cache": "on"}
    body = bench.chat_body("sandbox-echo", "x", stream=stream)
    upstream.answer(FINE)
    upstream.answer(FINE)
    upstream.answer(BAD)
    first, again = [await _cached(bench, body, headers) for _ in range(2)]
    assert (first.status, again.status, again.headers["x-crun-cache-status"]) == (200, 200, "HIT")
    call = await _cached(bench, body, headers)
    assert (call.status, call.json["error"]["code"]) == (400, "content_policy_violation")
    end = bench.record(call)
    assert (end.cost_nanos, end.saved_nanos, end.opened.provider) == (0, 0, "") and end.guardrails
    assert len(bench.truth()) == 1 and not bench.runtime.reservations.is_running(call.request_id)


async def _cached(bench: Bench, body: Any, headers: dict[str, str]) -> Call:
    call = await bench.call("/api/v1/chat/completions", body, headers=headers)
    async with asyncio.timeout(10):
        while bench.runtime.cached_answers.keeping:  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.005)
    return call


def _moderated_by(bench: Bench, url: str) -> None:
    current = bench.runtime.catalog.snapshot
    assert current is not None and current.moderation is not None
    target = msgspec.structs.replace(current.moderation, base_url=url)
    bench.runtime.catalog.snapshot = msgspec.structs.replace(current, moderation=target)


async def test_only_the_named_categories_count(bench: Bench, upstream: ScriptedUpstream) -> None:
    check = msgspec.structs.replace(moderation().check, categories=("self-harm",))  # type: ignore[type-var]  # a union
    rule = msgspec.structs.replace(moderation(direction="input"), check=check)
    set_up(bench, upstream, rule)
    upstream.answer(BAD)
    assert (await bench.chat("sandbox-echo", "x")).status == 200


async def test_a_rule_that_logs_lets_flagged_texts_pass(bench: Bench, upstream: ScriptedUpstream) -> None:
    rule = moderation(direction="input", mode="log")
    set_up(bench, upstream, rule)
    upstream.answer(BAD)
    call = await bench.chat("sandbox-echo", "x")
    assert call.status == 200 and verdicts(bench, call) == [(rule.id, "input", "logged")]


@pytest.mark.parametrize("failure", ["away", "status", "garbage", "slow", "nobody"])
@pytest.mark.parametrize("decided", ["block", "allow"])
async def test_when_nobody_can_judge_the_rule_decides(
    bench: Bench, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, failure: str, decided: Any
) -> None:
    rule = moderation(decided, direction="input")
    set_up(bench, None if failure == "nobody" else upstream, rule)
    if failure == "away":
        await upstream.__aexit__()
    elif failure == "slow":
        monkeypatch.setattr(settings, "MODERATION_TIMEOUT_S", 0.05)
        waiting = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        _moderated_by(bench, f"http://127.0.0.1:{waiting.sockets[0].getsockname()[1]}")
    else:
        upstream.answer(b"what?", status=500 if failure == "status" else 200)
    call = await bench.chat("sandbox-echo", "x")
    if failure == "slow":
        waiting.close()
    if decided == "block":
        assert (call.status, call.json["error"]["code"]) == (503, "moderation_unavailable")
        assert "retry-after" in call.headers and bench.truth() == {} and bench.record(call).cost_nanos == 0
    else:
        assert call.status == 200 and verdicts(bench, call) == [(rule.id, "input", "unchecked")]


async def test_a_flagged_answer_is_withheld_whole_and_in_a_stream(bench: Bench, upstream: ScriptedUpstream) -> None:
    rule = moderation(direction="output")
    set_up(bench, upstream, rule)
    upstream.answer(BAD)
    whole = await bench.chat("sandbox-echo", f"the {CANARY}")
    assert (whole.status, whole.json["error"]["code"]) == (400, "content_policy_violation")
    assert bench.record(whole).cost_nanos > 0
    stream = await bench.chat("sandbox-echo", f"the {CANARY}", stream=True)
    assert stream.events[-1]["error"]["code"] == "content_policy_violation"
    assert CANARY not in stream.body.decode() and verdicts(bench, stream) == [(rule.id, "output", "blocked")]
    assert bench.record(stream).cost_nanos == 0


async def test_a_stream_goes_on_in_parts_that_were_judged(bench: Bench, upstream: ScriptedUpstream) -> None:
    set_up(bench, upstream, moderation(direction="output"), personal("email", direction="output"))
    upstream.answer(FINE)
    text = "word " * 1_000 + MAIL
    call = await bench.chat("sandbox-echo", text, stream=True)
    assert said(call) == text.replace(MAIL, "[EMAIL_1]") and call.events[-1] == "[DONE]"
    assert len(upstream.requests) == 3
    assert "".join(request.json["input"][0].replace("\n", "") for request in upstream.requests) == said(call)


async def test_what_stands_before_a_forbidden_place_is_judged_and_goes_on(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    rule = keywords(CANARY, direction="output")
    set_up(bench, upstream, moderation(direction="output"), rule)
    upstream.answer(FINE)
    text = "word " * 30
    call = await bench.chat("sandbox-echo", f"{text}{CANARY} and more", stream=True)
    *chunks, last = call.events
    assert said_before(chunks) == text and last["error"]["code"] == "content_policy_violation"
    assert verdicts(bench, call) == [(rule.id, "output", "blocked")]
    end = bench.record(call)
    assert 30 <= end.tokens.output <= 40 and end.cost_nanos > 0 and len(upstream.requests) == 1
    upstream.answers.clear()
    upstream.answer(BAD)
    again = await bench.chat("sandbox-echo", f"{text}{CANARY} and more", stream=True)
    assert again.events[-1]["error"]["message"] == last["error"]["message"]
    assert (said_before(again.events[:-1]), bench.record(again).cost_nanos) == ("", 0)


def said_before(chunks: list[Any]) -> str:
    """The content of a stream that has no end."""
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


async def test_an_answer_that_nobody_could_judge_is_free(bench: Bench, upstream: ScriptedUpstream) -> None:
    set_up(bench, None, moderation(direction="output"))
    call = await bench.chat("sandbox-echo", "x")
    assert (call.status, bench.record(call).cost_nanos) == (503, 0)
