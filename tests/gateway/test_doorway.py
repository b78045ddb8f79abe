"""The doorway: a few requests begin in each turn of the loop, and a crowd of one organization keeps nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from apps.gateway.errors import GatewayError
from apps.gateway.load import doorway as module
from apps.gateway.load.doorway import BODY_BYTES_PER_START, STARTS_ALONE, Doorway
from tests.gateway.conftest import Bench

pytestmark = pytest.mark.asyncio
SMALL = 100
STARTS = 4


class Crowd:
    """Requests that come to one doorway, and the order in which they began."""

    def __init__(self, doorway: Doorway) -> None:
        self.doorway = doorway
        self.began: list[str] = []
        self.refused: list[GatewayError] = []
        self.tasks: list[asyncio.Task[None]] = []

    def come(self, owner: str, count: int = 1, *, size: int = SMALL) -> None:
        self.tasks += [asyncio.create_task(self._ask(owner, size)) for _ in range(count)]

    async def end(self) -> list[str]:
        await asyncio.gather(*self.tasks)
        return self.began

    async def _ask(self, owner: str, size: int) -> None:
        try:
            if not self.doorway.lets_in(owner, size):
                await self.doorway.wait(owner, size)
        except GatewayError as error:
            self.refused.append(error)
        else:
            self.began.append(owner)


@pytest_asyncio.fixture
async def crowd() -> AsyncIterator[Crowd]:
    """At a doorway that several organizations have used."""
    crowd = Crowd(Doorway(STARTS))
    for owner in ("an early one", "another"):
        assert crowd.doorway.lets_in(owner, SMALL)
    await _turned(crowd.doorway)
    yield crowd
    for task in crowd.tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_who_comes_alone_never_waits(crowd: Crowd) -> None:
    for _ in range(50):
        assert crowd.doorway.lets_in("quiet", SMALL)
        await asyncio.sleep(0)
    assert crowd.doorway.waiting == 0


async def test_as_long_as_there_is_one_organization_many_of_it_begin_in_a_turn() -> None:
    doorway = Doorway(STARTS)
    assert doorway.lets_in("only", SMALL)
    await _turned(doorway)
    assert doorway.lets_in("only", SMALL)  # begins a turn, whose room is that of the last one
    assert [doorway.lets_in("only", SMALL) for _ in range(STARTS_ALONE)] == [True] * (STARTS_ALONE - 1) + [False]
    await _turned(doorway)
    assert doorway.lets_in("other", SMALL)
    await _turned(doorway)
    assert [doorway.lets_in("only", SMALL) for _ in range(STARTS + 1)] == [True] * STARTS + [False]


async def test_a_crowd_begins_a_few_a_turn(crowd: Crowd) -> None:
    crowd.come("noisy", 100)
    await asyncio.sleep(0)
    assert (len(crowd.began), crowd.doorway.waiting) == (STARTS, 100 - STARTS)
    for _ in range(10):
        before = len(crowd.began)
        await asyncio.sleep(0)
        assert len(crowd.began) - before <= STARTS
    assert len(await crowd.end()) == 100


async def test_one_request_of_somebody_else_passes_the_crowd(crowd: Crowd) -> None:
    crowd.come("noisy", 500)
    await asyncio.sleep(0)
    crowd.come("quiet")
    began = await crowd.end()
    assert began.index("quiet") <= 4 * STARTS
    assert began.count("noisy") == 500


async def test_whoever_has_nothing_waiting_passes_at_once(crowd: Crowd) -> None:
    crowd.come("noisy", 500)
    await asyncio.sleep(0)
    before = len(crowd.began)
    assert crowd.doorway.lets_in("quiet", SMALL)
    assert not crowd.doorway.lets_in("quiet", SMALL) and not crowd.doorway.lets_in("noisy", SMALL)
    assert len(crowd.began) == before


async def test_many_who_have_nothing_waiting_are_too_many_for_one_turn(crowd: Crowd) -> None:
    passed = [crowd.doorway.lets_in(f"org_{number}", SMALL) for number in range(1_000)]
    assert sum(passed) == module.STARTS_ALONE


async def test_all_who_wait_share_alike_however_many_they_bring(crowd: Crowd) -> None:
    for owner, count in (("a", 400), ("b", 40), ("c", 40)):
        crowd.come(owner, count)
    began = await crowd.end()
    contested = began[STARTS : STARTS + 60]
    assert {contested.count(owner) for owner in "abc"} <= {19, 20, 21}


async def test_large_bodies_count_for_more(crowd: Crowd) -> None:
    crowd.come("small", 100)
    crowd.come("large", 20, size=9 * BODY_BYTES_PER_START)
    began = await crowd.end()
    # After its first few, each large one waits until ten small ones have begun.
    assert began.count("large") == 20
    contested = began[STARTS : began.index("large", STARTS) + 45]
    assert contested.count("small") >= 8 * contested.count("large")


async def test_an_organization_has_a_bound_and_others_are_still_served(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    crowd.come("noisy", 30)
    crowd.come("quiet")
    began = await crowd.end()
    assert (began.count("noisy"), began.count("quiet")) == (STARTS + 10, 1)
    assert {(error.kind.status, error.code) for error in crowd.refused} == {(429, "too_many_requests_waiting")}
    assert crowd.refused[0].headers()["retry-after"] == "1"


async def test_the_bytes_that_wait_are_bounded_too(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING_BYTES", 3 * SMALL)
    crowd.come("noisy", 30)
    assert len(await crowd.end()) == STARTS + 3


async def test_who_leaves_while_waiting_takes_nobodys_place(crowd: Crowd) -> None:
    crowd.come("noisy", 30)
    await asyncio.sleep(0)
    for task in crowd.tasks[STARTS:20]:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)
    assert (len(crowd.began), crowd.doorway.waiting) == (STARTS + 10, 0)
    assert crowd.doorway.lets_in("quiet", SMALL)


async def test_who_leaves_just_when_let_in_takes_nobody_along(crowd: Crowd) -> None:
    """Whoever comes in the turn in which the queue ran empty waits in a new one of the same organization."""
    crowd.come("other")
    crowd.come("noisy", 2 * STARTS - 1)
    await asyncio.sleep(0)
    assert crowd.doorway.waiting == STARTS
    crowd.come("noisy")  # behind the turn of the doorway, which lets in all who wait
    last_let_in = crowd.tasks[2 * STARTS - 1]
    asyncio.get_running_loop().call_soon(last_let_in.cancel)
    async with asyncio.timeout(10):
        await asyncio.gather(*crowd.tasks, return_exceptions=True)
    assert last_let_in.cancelled()
    assert crowd.began.count("noisy") == 2 * STARTS - 1


async def test_who_waited_too_long_is_told_to_come_again(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT_S", -1.0)
    crowd.come("noisy", 30)
    assert len(await crowd.end()) == STARTS
    assert {(error.kind.status, error.code) for error in crowd.refused} == {(503, "gateway_overloaded")}


async def test_how_long_a_lone_request_waits_is_told_once(crowd: Crowd) -> None:
    assert crowd.doorway.take_longest_wait_s() == 0.0
    crowd.come("noisy", 10)
    await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    await crowd.end()
    assert crowd.doorway.take_longest_wait_s() >= 0.0
    assert crowd.doorway.take_longest_wait_s() == 0.0


async def test_without_it_all_begin_at_once() -> None:
    doorway = Doorway(0)
    assert all(doorway.lets_in("noisy", 10 * BODY_BYTES_PER_START) for _ in range(1_000))


async def test_requests_through_the_gateway_pass_it(bench: Bench) -> None:
    """Many at once, all answered; and the endpoints that ask no model are none of its business."""
    bench.offer("sandbox-echo")
    calls = [
        bench.start("/api/v1/chat/completions", bench.chat_body("sandbox-echo", str(number))) for number in range(40)
    ]
    keys = [bench.start("/api/v1/key") for _ in range(10)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(call.task for call in (*calls, *keys) if call.task))
    assert {call.status for call in (*calls, *keys)} == {200}
    assert {call.json["choices"][0]["message"]["content"] for call in calls} == {str(number) for number in range(40)}
    assert bench.runtime.doorway.waiting == 0


async def _turned(doorway: Doorway) -> None:
    """Until the doorway has nothing to do any more."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert doorway.waiting == 0
