"""E34, E35, E36, E42: upstreams that fail before they answer. What client, upstream and record say of it."""

import asyncio
import socket
from typing import Any

import msgspec
import pytest

from apps.billing.receipts import Payer, Rule, receipt_of
from apps.catalog.contracts import Target
from apps.gateway.routing.health import FAILURES_TO_REST, LEAST_RETRIES, Upstreams
from apps.gateway.server import deadline
from apps.usage.contracts import Outcome
from tests.clocks import Clock
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.upstream.faulty import ANSWER, FaultyUpstream, refusing, reset, saying

pytestmark = pytest.mark.asyncio
CHAT = "/api/v1/chat/completions"


def offer(bench: Bench, *targets: Target) -> None:
    bench.runtime.catalog.snapshot = snapshot(offered(id="m", targets=targets))


async def ask(bench: Bench, **fields: Any) -> Call:
    return await bench.call(CHAT, {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields})


async def nothing_is_held(bench: Bench, store: Any) -> bool:
    await bench.runtime.reservations.drain(10)
    held = store.hget("crun:{org_1}:money", "held")
    return int(held) == bench.runtime.transport.open_connections == bench.runtime.reservations.running_requests == 0


def closed_port() -> Target:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return msgspec.structs.replace(
        offered().targets[0], provider="closed", base_url=f"http://127.0.0.1:{port}/v1", weight=1_000_000
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_e34_a_route_that_refuses_connections_is_another_ones_turn(
    bench: Bench, empty_store: Any, stream: bool
) -> None:
    body = saying(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        b'data: {"choices":[{"index":0,"delta":{"content":"fine"},"finish_reason":"stop"}]}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    )
    async with FaultyUpstream(body if stream else ANSWER) as good:
        offer(bench, closed_port(), good.target(provider="good"))
        call = await ask(bench, stream=stream)
    assert call.status == 200 and (not stream or call.events[-1] == "[DONE]")
    assert good.requests == 1
    end = bench.record(call)
    assert [(each.provider, each.error_code, each.paid_by) for each in end.attempts] == [
        ("closed", "upstream_failed", "operator"), ("good", "", "customer"),
    ]  # fmt: skip
    assert (end.opened.provider, end.outcome, end.cost_nanos) == ("good", Outcome.COMPLETED, 3 * 150 + 2 * 600)
    attempts = receipt_of(end, end.opened.price).attempts
    assert [(each.paid_by, each.cost_nanos) for each in attempts] == [
        (Payer.OPERATOR, 0), (Payer.CUSTOMER, end.cost_nanos),
    ]  # fmt: skip
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("stream", [False, True])
async def test_e34_one_that_resets_after_it_had_the_request_is_not_tried_again_and_is_free(
    bench: Bench, empty_store: Any, stream: bool
) -> None:
    async with FaultyUpstream(reset) as bad, FaultyUpstream(ANSWER) as good:
        offer(bench, bad.target(provider="bad", weight=1_000_000), good.target(provider="good"))
        call = await ask(bench, stream=stream)
    assert (call.status, call.json["error"]["code"]) == (502, "upstream_failed")
    assert (bad.requests, good.requests) == (1, 0)
    end = bench.record(call)
    assert (end.outcome, end.cost_nanos, end.attempts) == (Outcome.FAILED, 0, ())
    assert receipt_of(end, end.opened.price).rule is Rule.NOTHING
    assert await nothing_is_held(bench, empty_store)


async def test_e35_one_that_hangs_is_given_up_in_time_and_then_passed_over(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "configured_limits", lambda: [0.3, 60.0, 600.0, 30.0])
    async with FaultyUpstream(ANSWER) as bad, FaultyUpstream(refusing(500)) as good:
        bad.behaviour = bad.hang
        offer(bench, bad.target(provider="bad", weight=1_000_000), good.target(provider="good"))
        calls = await asyncio.gather(*(ask(bench, stream=True) for _ in range(FAILURES_TO_REST)))
        assert {(call.status, call.json["error"]["code"]) for call in calls} == {(504, "upstream_timeout")}
        assert (bad.requests, good.requests) == (FAILURES_TO_REST, 0)  # it may charge: nobody else is asked
        good.behaviour = ANSWER
        after = [await ask(bench) for _ in range(5)]
        assert {call.status for call in after} == {200}
        assert (bad.requests, good.requests) == (FAILURES_TO_REST, 5)
        async with asyncio.timeout(10):
            while bad.hung_up < FAILURES_TO_REST:  # noqa: ASYNC110 - the upstream sees it when it does
                await asyncio.sleep(0.01)
    for call in calls:
        end = bench.record(call)
        assert (end.outcome, end.cost_nanos, end.error_code) == (Outcome.FAILED, 0, "upstream_timeout")
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("status", [429, 503])
async def test_e36_retry_after_is_honoured_and_others_take_over(bench: Bench, empty_store: Any, status: int) -> None:
    clock = Clock()
    bench.runtime.upstreams = Upstreams(clock)
    async with FaultyUpstream(refusing(status, retry_after="30")) as busy, FaultyUpstream(ANSWER) as good:
        offer(bench, busy.target(provider="busy", weight=1_000_000), good.target(provider="good"))
        calls = [await ask(bench) for _ in range(6)]
        assert {call.status for call in calls} == {200}
        assert (busy.requests, good.requests) == (1, 6)
        assert [len(bench.record(call).attempts) for call in calls] == [2, 0, 0, 0, 0, 0]
        clock.now += 31
        busy.behaviour = ANSWER
        assert bench.record(await ask(bench)).opened.provider == "busy"
        busy.behaviour = refusing(status, retry_after="30")
        offer(bench, busy.target(provider="busy"))
        alone = await ask(bench)
        assert (alone.status, alone.json["error"]["code"]) == (503, "upstream_overloaded")
        assert alone.headers["retry-after"] == "30"
        end = bench.record(alone)
        assert (end.outcome, end.cost_nanos, end.attempts) == (Outcome.FAILED, 0, ())
    assert await nothing_is_held(bench, empty_store)


async def test_e36_upstreams_that_are_down_get_no_more_than_a_tenth_more(bench: Bench) -> None:
    async with FaultyUpstream(refusing(500)) as one, FaultyUpstream(refusing(500)) as two:
        offer(bench, one.target(provider="one"), two.target(provider="two"))
        calls = [await ask(bench) for _ in range(150)]
        assert {call.status for call in calls} == {502}
        assert one.requests + two.requests <= 150 + max(LEAST_RETRIES, 15)


async def test_e36_retries_run_out_before_the_routes_do(bench: Bench) -> None:
    """Half of all requests fail, never five times in a row: only the budget bounds what is tried again."""
    flips = 0

    async def flip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal flips
        flips += 1
        await (ANSWER if flips % 2 else refusing(500))(reader, writer)

    bench.runtime.upstreams = Upstreams(Clock())
    async with FaultyUpstream(flip) as bad, FaultyUpstream(ANSWER) as good:
        offer(bench, bad.target(provider="bad", weight=10**9), good.target(provider="good"))
        calls = [await ask(bench) for _ in range(120)]
    failed = sum(call.status == 502 for call in calls)
    assert failed + good.requests == 60
    assert good.requests == max(LEAST_RETRIES, 12)


async def test_e42_one_of_two_dead_for_a_minute_is_tried_a_few_times_and_back_soon_after(bench: Bench) -> None:
    clock = Clock()
    bench.runtime.upstreams = Upstreams(clock)
    async with FaultyUpstream(refusing(401)) as dead, FaultyUpstream(ANSWER) as good:
        offer(bench, dead.target(provider="dead"), good.target(provider="good"))
        calls = []
        for _ in range(120):  # a minute
            clock.now += 0.5
            calls.append(await ask(bench))
        assert {call.status for call in calls} == {200}
        assert FAILURES_TO_REST <= dead.requests <= FAILURES_TO_REST + 4
        assert good.requests == 120
        assert sum(bool(bench.record(call).attempts) for call in calls) == dead.requests
        failed, dead.behaviour = dead.requests, ANSWER
        began = clock.now
        while dead.requests == failed and clock.now < began + 60:
            clock.now += 0.5
            assert (await ask(bench)).status == 200
        assert clock.now - began <= 35
        before = dead.requests
        for _ in range(60):
            assert (await ask(bench)).status == 200
        assert 10 <= dead.requests - before <= 50  # it has its share again


async def test_e42_a_lone_route_is_always_tried(bench: Bench) -> None:
    async with FaultyUpstream(refusing(401)) as dead:
        offer(bench, dead.target())
        for _ in range(3 * FAILURES_TO_REST):
            assert (await ask(bench)).status == 502
        assert dead.requests == 3 * FAILURES_TO_REST
        dead.behaviour = ANSWER
        assert (await ask(bench)).status == 200


async def test_a_route_without_words_for_a_request_stands_in_nobodys_way(bench: Bench) -> None:
    """It was not asked: what follows is no retry, its own trial goes on waiting, and what others say counts."""
    upstreams = bench.runtime.upstreams = Upstreams(clock := Clock())
    old = {"functions": [{"name": "f"}]}
    async with FaultyUpstream(ANSWER) as good:
        wordless = good.target(provider="wordless", dialect="anthropic", weight=10**9)
        offer(bench, wordless, good.target(provider="good"))
        for _ in range(FAILURES_TO_REST):
            upstreams.of(wordless).failed()
        clock.now += 16
        for _ in range(FAILURES_TO_REST):
            upstreams.of(good.target(provider="good")).failed()
        while upstreams.retries.take():
            pass
        assert (await ask(bench, **old)).status == 200
        assert not upstreams.of(wordless).is_resting
        good.behaviour = refusing(503)
        bench.runtime.upstreams = Upstreams(clock)
        call = await ask(bench, provider={"order": ["good", "wordless"]}, **old)
        assert (call.status, call.json["error"]["code"]) == (503, "upstream_overloaded")
        assert good.requests == 2


async def test_e35_a_model_that_thinks_for_long_may_have_a_limit_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other limits are out of reach: what ends the wait is the model's own."""
    monkeypatch.setattr(deadline, "configured_limits", lambda: [600.0, 600.0, 600.0, 600.0])
    async with FaultyUpstream(ANSWER) as mute:
        mute.behaviour = mute.hang
        bench.runtime.catalog.snapshot = snapshot(
            offered(id="m", targets=(mute.target(),), first_byte_timeout_s=1), offered(id="free")
        )
        call = await ask(bench, stream=True)
    assert (call.status, call.json["error"]["code"]) == (504, "upstream_timeout")
    assert bench.record(call).cost_nanos == 0
