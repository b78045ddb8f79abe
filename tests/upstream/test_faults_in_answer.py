"""E37, E38: upstreams that fail in the middle of an answer. What client, upstream and record say of it, together."""

import asyncio
from typing import Any

import pytest

from apps.billing.receipts import Payer, Rule, receipt_of
from apps.gateway.server import deadline
from apps.usage.contracts import Outcome
from tests.gateway.conftest import Bench, Call
from tests.upstream.faulty import ANSWER, HEAD, FaultyUpstream, chunk, reset, saying, whole_answer, words
from tests.upstream.test_faults_before_answer import ask, nothing_is_held, offer

pytestmark = pytest.mark.asyncio
STOP = chunk(b'data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
CUTS = {
    "FIN": saying(HEAD, words(3)),
    "RST": saying(HEAD, words(3), then=reset),
    "a short chunk": saying(HEAD, words(3), b"400\r\ndata: {"),
    "a chunk that is none": saying(HEAD, words(3), b"zzz\r\n"),
    "no end and no [DONE]": saying(HEAD, words(3), b"0\r\n\r\n"),
    "half an event": saying(HEAD, words(3), chunk(b'data: {"choices":[{"ind'), b"0\r\n\r\n"),
    "fewer bytes than announced": saying(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n",
        *[b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'] * 3,
    ),
}
SHORT = {
    "FIN": saying(whole_answer()[:-20]),
    "RST": saying(whole_answer()[:-20], then=reset),
    "no body at all": saying(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n"),
    "a short chunk": saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\n{"),
}


def delivered(call: Call) -> list[Any]:
    """The pieces of output that the client got."""
    return [event for event in call.events if "choices" in event and event["choices"][0]["delta"].get("content")]


@pytest.mark.parametrize("cut", CUTS)
async def test_e37_a_stream_that_is_cut_ends_as_an_error_and_bills_what_came(
    bench: Bench, empty_store: Any, cut: str
) -> None:
    async with FaultyUpstream(CUTS[cut]) as bad, FaultyUpstream(ANSWER) as good:
        offer(bench, bad.target(provider="bad", weight=10**9), good.target(provider="good"))
        call = await ask(bench, stream=True)
    assert call.status == 200
    assert call.events[-1]["error"]["code"] == "upstream_failed" and b"[DONE]" not in call.body
    assert (bad.requests, good.requests) == (1, 0)
    end = bench.record(call)
    assert (end.outcome, end.error_code, end.opened.provider) == (Outcome.FAILED, "upstream_failed", "bad")
    assert end.tokens.output == len(delivered(call)) == 3
    assert end.estimated and end.tokens.input == end.opened.input_estimate
    assert end.cost_nanos == end.tokens.input * 150 + 3 * 600
    receipt = receipt_of(end, end.opened.price)
    assert receipt.rule is Rule.UPSTREAM_BROKE
    assert [(each.paid_by, each.cost_nanos) for each in receipt.attempts] == [(Payer.CUSTOMER, end.cost_nanos)]
    assert await nothing_is_held(bench, empty_store)


async def test_e37_a_stream_without_done_that_says_that_it_is_over_is_whole(bench: Bench, empty_store: Any) -> None:
    async with FaultyUpstream(saying(HEAD, words(3), STOP, b"0\r\n\r\n")) as upstream:
        offer(bench, upstream.target())
        call = await ask(bench, stream=True)
    assert call.events[-1] == "[DONE]"
    end = bench.record(call)
    assert (end.outcome, end.estimated, end.tokens.output) == (Outcome.COMPLETED, True, 3)
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("cut", SHORT)
async def test_e37_a_whole_answer_that_is_cut_is_an_error_and_free(bench: Bench, empty_store: Any, cut: str) -> None:
    async with FaultyUpstream(SHORT[cut]) as bad, FaultyUpstream(ANSWER) as good:
        offer(bench, bad.target(provider="bad", weight=10**9), good.target(provider="good"))
        call = await ask(bench)
    assert (call.status, call.json["error"]["code"]) == (502, "upstream_failed")
    assert (bad.requests, good.requests) == (1, 0)
    end = bench.record(call)
    assert (end.outcome, end.cost_nanos, end.attempts) == (Outcome.FAILED, 0, ())
    receipt = receipt_of(end, end.opened.price)
    assert (receipt.rule, receipt.attempts[0].paid_by) == (Rule.NOTHING, Payer.OPERATOR)
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("stream", [False, True])
async def test_e38_one_that_stalls_in_the_middle_is_cut_and_sees_that(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(deadline, "configured_limits", lambda: [60.0, 0.5, 60.0 if stream else 0.5, 30.0])
    async with FaultyUpstream(ANSWER) as bad, FaultyUpstream(ANSWER) as good:
        begun = (HEAD, words(3)) if stream else (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{",)
        bad.behaviour = saying(*begun, then=bad.hang)
        offer(bench, bad.target(provider="bad", weight=10**9), good.target(provider="good"))
        call = await ask(bench, stream=stream)
        async with asyncio.timeout(10):
            while not bad.hung_up:  # noqa: ASYNC110 - the upstream sees it when it does
                await asyncio.sleep(0.01)
    error = call.events[-1]["error"] if stream else call.json["error"]
    assert error["code"] == "upstream_timeout" and b"[DONE]" not in call.body
    assert call.status == (200 if stream else 504)
    assert (bad.requests, good.requests) == (1, 0)
    end = bench.record(call)
    assert (end.outcome, end.error_code) == (Outcome.FAILED, "upstream_timeout")
    assert (end.tokens.output, end.estimated) == ((3, True) if stream else (0, False))
    rule = receipt_of(end, end.opened.price).rule
    assert rule is (Rule.UPSTREAM_BROKE if stream else Rule.NOTHING)
    assert await nothing_is_held(bench, empty_store)


async def test_e37_routes_that_keep_breaking_off_are_passed_over(bench: Bench) -> None:
    good_stream = saying(HEAD, words(2), STOP, chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")
    async with FaultyUpstream(CUTS["FIN"]) as bad, FaultyUpstream(good_stream) as good:
        offer(bench, bad.target(provider="bad", weight=10**9), good.target(provider="good"))
        calls = [await ask(bench, stream=True) for _ in range(9)]
    assert [call.events[-1] == "[DONE]" for call in calls] == [False] * 5 + [True] * 4
    assert (bad.requests, good.requests) == (5, 4)
