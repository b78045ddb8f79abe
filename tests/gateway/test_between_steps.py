"""Clients that leave, and mistakes of ours, between two steps of a request: nothing stays held, and what is billed is
right."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from django.conf import settings

from apps.gateway.idempotency import guard
from apps.gateway.server.deadline import Deadline
from apps.gateway.shadows import Shadows
from apps.gateway.views.asking import AsksModel
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.upstream.faulty import HEAD, FaultyUpstream, saying, whole_answer
from tests.upstream.test_faults_before_answer import CHAT, nothing_is_held
from tests.upstream.test_heartbeats import BODY, REST, Held

pytestmark = pytest.mark.asyncio
WHOLE = {**BODY, "stream": False}


def offer(bench: Bench, upstream: FaultyUpstream, **fields: Any) -> None:
    model = offered(id="m", targets=(upstream.target(),), **fields)
    bench.runtime.catalog.snapshot = snapshot(model)


def ends(bench: Bench) -> list[RequestClosed]:
    return [entry for entry in bench.journal() if isinstance(entry, RequestClosed)]


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.005)


async def ended(call: Call) -> None:
    assert call.task is not None
    async with asyncio.timeout(20):
        await call.task


async def test_a_client_that_leaves_while_its_stream_is_begun_early_lets_go_of_its_idempotency_key(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream has answered, and the start of the answer, with the first comment, is still on its way."""
    monkeypatch.setattr(settings, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    held, is_sending = Held(then=saying(HEAD, *REST)), asyncio.Event()
    headers = {"authorization": f"Bearer {bench.key}", "idempotency-key": "one"}

    async def send(message: dict[str, Any]) -> None:
        is_sending.set()
        await asyncio.Event().wait()

    async with FaultyUpstream(held) as upstream:
        offer(bench, upstream)
        call = bench.start(CHAT, BODY, headers=headers, send=send)
        await is_sending.wait()
        answers = bench.runtime.upstreams.of(upstream.target())
        began, answers.is_broken = answers.failures, True  # `answered` will make it whole: it answers, and it shows
        held.may_go_on.set()
        await until(lambda: not answers.is_broken)
        assert bench.runtime.claims.unfinished == 1 and began == 0
        call.leave()
        await ended(call)
    await until(lambda: not bench.runtime.claims.unfinished)
    assert [end.outcome for end in ends(bench)] == [Outcome.CANCELLED]
    assert await nothing_is_held(bench, empty_store)


async def test_a_full_journal_leaves_no_timer_behind(bench: Bench, empty_store: Any) -> None:
    bench.runtime.journal._max_bytes = 0
    for _ in range(3):
        assert (await bench.chat("sandbox-echo")).json["error"]["code"] == "store_unavailable"
    assert await nothing_is_held(bench, empty_store)
    gc.collect()
    assert [each for each in gc.get_objects() if type(each) is Deadline and not each._timer.cancelled()] == []


VECTORS = orjson.dumps({"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 7, "total_tokens": 7}})
EMBEDDED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(VECTORS), VECTORS)
NO_CHAT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("path", "body", "said", "billed"),
    [
        ("chat/completions", WHOLE, whole_answer(), (Outcome.CANCELLED, TokenCounts(input=3, output=2), False)),
        ("messages", {**WHOLE, "max_tokens": 9}, whole_answer(), (Outcome.CANCELLED, TokenCounts(3, 0, 0, 2), False)),
        ("embeddings", {"model": "m", "input": "x"}, EMBEDDED, (Outcome.CANCELLED, TokenCounts(input=7), False)),
        ("embeddings", {"model": "m", "input": "x"}, NO_CHAT, (Outcome.CANCELLED, TokenCounts(input=1), True)),
        ("chat/completions", WHOLE, NO_CHAT, (Outcome.FAILED, TokenCounts(), False)),
    ],
)
async def test_who_leaves_a_whole_answer_that_is_here_pays_what_the_upstream_told(
    bench: Bench, empty_store: Any, *, path: str, body: Any, said: bytes, billed: tuple[Outcome, TokenCounts, bool]
) -> None:
    waits = asyncio.Event()

    async def never(organization_id: str, size: int) -> None:
        waits.set()
        await asyncio.Event().wait()

    bench.runtime.doorway.turn = never  # type: ignore[method-assign]  # others keep it waiting
    async with FaultyUpstream(saying(said)) as upstream:
        offer(bench, upstream, output_modalities=("embeddings",) if path == "embeddings" else ("text",))
        call = bench.start(f"/api/v1/{path}", body)
        await asyncio.wait_for(waits.wait(), 20)
        call.leave()
        await ended(call)
    (end,) = ends(bench)
    assert (end.outcome, end.tokens, end.estimated) == billed
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("spoilt", ["naming", "copies", "recording"])
@pytest.mark.parametrize("path", ["chat/completions", "messages"])
async def test_a_mistake_of_ours_behind_an_open_upstream_costs_nobody_anything(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch, *, path: str, spoilt: str
) -> None:
    """Before its stream is handed over, which would be let go of by whoever sends it."""
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    owner, name = {
        "naming": (AsksModel, "naming_dropped"), "copies": (Shadows, "begin"), "recording": (guard, "_record"),
    }[spoilt]  # fmt: skip

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(owner, name, fails)
    async with FaultyUpstream(saying()) as upstream:
        upstream.behaviour = saying(HEAD, then=upstream.hang)
        offer(bench, upstream, shadows=(upstream.target(),))
        headers = {"authorization": f"Bearer {bench.key}", "idempotency-key": spoilt}
        call = await bench.call(f"/api/v1/{path}", {**BODY, "max_tokens": 9}, headers=headers)
        assert call.status == 500 and call.json["error"]["message"].startswith("Internal error")
        await until(lambda: upstream.hung_up)
    end = bench.record(call)
    assert (end.outcome, end.http_status, end.cost_nanos) == (Outcome.FAILED, 500, 0)
    assert await nothing_is_held(bench, empty_store)
    await until(lambda: not bench.runtime.claims.unfinished)
