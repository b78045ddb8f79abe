"""Heartbeats: a stream that has nothing to say sends comments, also before its upstream has answered; nobody pays."""

import asyncio
from typing import Any

import pytest
from django.conf import settings

from apps.gateway.server.heartbeat import COMMENT
from apps.usage.contracts import Outcome
from tests.gateway.conftest import Bench, Call
from tests.upstream.faulty import HEAD, FaultyUpstream, chunk, refusing, saying, whole_answer, words
from tests.upstream.test_faults_before_answer import CHAT, nothing_is_held, offer

pytestmark = pytest.mark.asyncio
BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
STOP = chunk(b'data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
USAGE = chunk(b'data: {"id":"a","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\ndata: [DONE]\n\n')
REST = (words(2), STOP, USAGE, b"0\r\n\r\n")


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "HEARTBEAT_S", 0.05)


class Held:
    """Says the first pieces, and the others when it may."""

    def __init__(self, *first: bytes, then: Any) -> None:
        self.may_go_on = asyncio.Event()
        self._first = saying(*first, then=self._wait)
        self._then = then

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._first(reader, writer)

    async def _wait(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.may_go_on.wait()
        await self._then(reader, writer)


async def ended(call: Call) -> Call:
    assert call.task is not None
    async with asyncio.timeout(20):
        await call.task
    return call


@pytest.mark.parametrize("is_direct", [True, False])
async def test_a_stream_begins_before_a_slow_upstream_has_answered(
    bench: Bench, empty_store: Any, is_direct: bool
) -> None:
    held = Held(then=saying(HEAD, *REST))
    async with FaultyUpstream(held) as upstream:
        offer(bench, upstream.target())
        call = bench.start(CHAT, BODY, is_direct=is_direct)
        await call.until(lambda call: COMMENT in call.body)
        assert (call.status, call.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        held.may_go_on.set()
        await ended(call)
    assert call.body.startswith(COMMENT) and call.body.count(b"word ") == 2
    assert call.events[-1] == "[DONE]"
    assert sum(message["type"] == "http.response.start" for message in call.sent) == 1
    end = bench.record(call)
    assert (end.outcome, end.tokens.output, end.estimated) == (Outcome.COMPLETED, 4, False)
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        (CHAT, BODY, b'\n\ndata: {"error":{"message":'),
        (
            "/api/v1/responses",
            {"model": "m", "input": "x", "stream": True},
            b'\n\nevent: error\ndata: {"error":{"message":',
        ),
        ("/api/v1/messages", {**BODY, "max_tokens": 5}, b'\n\nevent: error\ndata: {"type":"error","'),
    ],
)
async def test_what_fails_after_that_is_the_last_event(
    bench: Bench, empty_store: Any, path: str, body: dict[str, Any], last: bytes
) -> None:
    held = Held(then=refusing(500))
    async with FaultyUpstream(held) as upstream:
        offer(bench, upstream.target())
        call = bench.start(path, body)
        await call.until(lambda call: COMMENT in call.body)
        held.may_go_on.set()
        await ended(call)
    assert call.status == 200 and last in call.body and call.body.endswith(b"}\n\n")
    assert b"[DONE]" not in call.body and "retry-after" not in call.headers
    end = bench.record(call)
    assert (end.outcome, end.error_code, end.cost_nanos) == (Outcome.FAILED, "upstream_failed", 0)
    assert await nothing_is_held(bench, empty_store)


async def test_a_quick_failure_keeps_its_status(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "HEARTBEAT_S", 60.0)
    async with FaultyUpstream(refusing(429, retry_after="7")) as upstream:
        offer(bench, upstream.target())
        call = await bench.call(CHAT, BODY)
    assert (call.status, call.headers["retry-after"]) == (503, "7") and COMMENT not in call.body


async def test_comments_fill_a_silence_between_two_pieces_and_are_no_output(bench: Bench, empty_store: Any) -> None:
    held = Held(HEAD, words(2), then=saying(*REST))
    async with FaultyUpstream(held) as upstream:
        offer(bench, upstream.target())
        call = bench.start(CHAT, BODY, is_direct=True)
        await call.until(lambda call: call.body.count(COMMENT) >= 3 and b"word " in call.body)
        held.may_go_on.set()
        await ended(call)
    pieces = call.body.split(b"\n\n")
    assert all(piece == COMMENT[:-2] or piece.startswith(b"data: ") for piece in pieces if piece)
    assert call.events[-1] == "[DONE]" and call.body.count(b"word ") == 4
    assert bench.record(call).tokens.output == 4
    assert await nothing_is_held(bench, empty_store)


async def test_a_client_that_leaves_while_it_waits_frees_everything(bench: Bench, empty_store: Any) -> None:
    async with FaultyUpstream(Held(then=saying())) as upstream:
        upstream.behaviour = upstream.hang
        offer(bench, upstream.target())
        call = bench.start(CHAT, BODY)
        await call.until(lambda call: COMMENT in call.body)
        call.leave()
        await ended(call)
        async with asyncio.timeout(10):
            while not upstream.hung_up:  # noqa: ASYNC110 - the upstream sees it when it does
                await asyncio.sleep(0.01)
    (end,) = [entry for entry in bench.journal() if hasattr(entry, "outcome")]
    assert (end.outcome, end.tokens.output) == (Outcome.CANCELLED, 0)
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize(("stream", "interval_s"), [(False, 0.05), (True, 0.0)])
async def test_other_answers_and_those_without_an_interval_have_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stream: bool, interval_s: float
) -> None:
    monkeypatch.setattr(settings, "HEARTBEAT_S", interval_s)
    answer = saying(HEAD, *REST) if stream else saying(whole_answer())
    held = Held(then=answer)
    async with FaultyUpstream(held) as upstream:
        offer(bench, upstream.target())
        call = bench.start(CHAT, {**BODY, "stream": stream})
        async with asyncio.timeout(10):
            while not upstream.requests:  # noqa: ASYNC110 - the upstream sees it when it does
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.15)  # a comment would have come by now; if not, this sees nothing
        assert not call.sent
        held.may_go_on.set()
        await ended(call)
    assert call.status == 200 and COMMENT not in call.body
