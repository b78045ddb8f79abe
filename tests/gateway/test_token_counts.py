"""Counting tokens: free, within the rates of requests, and by upstreams only for who could ask the model too."""

import asyncio
from typing import Any

import msgspec
import pytest

from apps.core.limits import Limits
from apps.gateway.answers.token_count import MAX_OF_ONE
from tests.gateway.conftest import Bench, Call
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream

__all__ = ["upstream"]
pytestmark = pytest.mark.asyncio
PATH = "/api/v1/messages/count_tokens"
BODY = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "hello"}]}
COUNTED = "x-crun-token-count"


async def count(bench: Bench) -> Call:
    return await bench.call(PATH, BODY)


@pytest.fixture
def told(bench: Bench, upstream: ScriptedUpstream) -> ScriptedUpstream:
    """An upstream that counts."""
    upstream.offer(bench, "anthropic")
    upstream.answer(b'{"input_tokens": 14}')
    return upstream


@pytest.mark.parametrize("owner", ["key", "project", "organization"])
async def test_a_count_is_one_request_of_its_minute(bench: Bench, told: ScriptedUpstream, owner: str) -> None:
    bench.limit(**{f"{owner}_limits": Limits(requests_per_minute=2)})
    calls = [await count(bench) for _ in range(3)]
    assert [call.status for call in calls] == [200, 200, 429] and len(told.requests) == 2
    assert calls[0].headers["x-ratelimit-remaining-requests"] == "1"
    assert calls[1].headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert calls[2].json["error"]["type"] == "rate_limit_error" and int(calls[2].headers["retry-after"]) > 0
    asked = await bench.call("/api/v1/messages", {**BODY, "max_tokens": 5})
    assert asked.status == 429, "counts and messages share their rate"


async def test_a_rate_of_the_model_counts_too(bench: Bench, told: ScriptedUpstream) -> None:
    limited = msgspec.structs.replace(bench.models[PUBLIC_MODEL], limits=Limits(requests_per_day=1))
    bench.models[PUBLIC_MODEL] = limited
    current = bench.runtime.catalog.snapshot
    assert current is not None
    bench.runtime.catalog.snapshot = msgspec.structs.replace(current, models={PUBLIC_MODEL: limited})
    assert [(await count(bench)).status for _ in range(2)] == [200, 429]


async def test_what_only_those_need_who_ask_a_model_does_not_matter(
    bench: Bench, told: ScriptedUpstream, empty_store: Any
) -> None:
    bench.limit(key_limits=Limits(tokens_per_minute=1, concurrency=1, budget_nanos=5))
    empty_store.zadd("crun:{org_1}:lease:k:key_1", {"req_other": 10**15})
    call = await count(bench)
    assert (call.status, call.json, call.headers[COUNTED]) == (200, {"input_tokens": 14}, "exact")
    assert call.headers["x-crun-budget-remaining"] == "0.000000005"
    await bench.runtime.reservations.drain()
    assert (bench.runtime.reservations.running_requests, empty_store.hlen("crun:{org_1}:holds")) == (0, 0)
    assert bench.journal() == []


async def test_without_credit_it_is_estimated_and_nobody_is_asked(
    bench: Bench, told: ScriptedUpstream, empty_store: Any
) -> None:
    await count(bench)
    empty_store.hset("crun:{org_1}:money", "balance", 0)
    call = await count(bench)
    assert (call.status, call.headers[COUNTED], len(told.requests)) == (200, "estimated", 1)


async def test_a_paused_key_and_one_that_nobody_knows_are_refused(bench: Bench, told: ScriptedUpstream) -> None:
    bench.limit(paused_at=1.0)
    assert (await count(bench)).status == 403
    bench.limit(paused_at=None, revoked_at=1.0)
    assert (await count(bench)).status == 401
    assert told.requests == []


async def test_one_organization_keeps_few_upstreams_counting(bench: Bench, upstream: ScriptedUpstream) -> None:
    connected: list[object] = []

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connected.append(transport)

    server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    upstream.offer(bench, "anthropic", base_url=url)
    waiting = [bench.start(PATH, BODY) for _ in range(MAX_OF_ONE)]
    async with asyncio.timeout(10):
        while len(connected) < MAX_OF_ONE:  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.005)
    call = await count(bench)
    assert (call.status, call.headers[COUNTED], len(connected)) == (200, "estimated", MAX_OF_ONE)
    for transport in connected:
        transport.abort()  # type: ignore[attr-defined]  # a stream's
    await asyncio.gather(*[each.task for each in waiting if each.task is not None])
    assert {each.headers[COUNTED] for each in waiting} == {"estimated"}
    server.close()
