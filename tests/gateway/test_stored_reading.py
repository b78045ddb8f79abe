"""Whoever reads much of what it has stored is in nobody's way but its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from apps.core.errors import Unavailable
from apps.gateway.errors import TOO_MANY_WAITING, GatewayError
from apps.gateway.server import bridge
from apps.gateway.server.bridge import Busy, LastingBridge, TooSlow
from apps.gateway.stored import reading
from apps.gateway.stored.reading import Readers

pytestmark = pytest.mark.asyncio


class Slow:
    """A read that takes until it may end; `begun` are those that were ever in a thread."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = threading.Event()

    def read(self, name: str) -> str:
        self.begun.append(name)
        assert self.may_end.wait(20)
        return name


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it looks into other threads
            await asyncio.sleep(0.002)


async def outcomes(*works: Awaitable[Any]) -> list[type[BaseException] | Any]:
    told = await asyncio.gather(*works, return_exceptions=True)
    return [type(each) if isinstance(each, BaseException) else each for each in told]


async def test_another_organization_reads_while_one_has_much_to_read() -> None:
    readers, slow = Readers(), Slow()
    greedy = [asyncio.create_task(readers.read("org_1", partial(slow.read, str(number)))) for number in range(5)]
    await until(lambda: slow.begun == ["0"])
    assert [await readers.read("org_2", lambda: "mine") for _ in range(3)] == ["mine"] * 3
    assert slow.begun == ["0"]  # a thread was free, and yet none of the others has begun
    slow.may_end.set()
    assert await asyncio.gather(*greedy) == slow.begun == ["0", "1", "2", "3", "4"]
    assert not readers._waiting
    readers.close()


async def test_a_read_that_nobody_waits_for_any_more_keeps_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "READ_TIMEOUT_S", 0.05)
    monkeypatch.setattr(reading, "LONGEST_WAIT_S", 0.1)
    readers, slow = Readers(), Slow()
    assert await outcomes(readers.read("org_1", partial(slow.read, "0"))) == [TooSlow]
    for _ in range(3):  # else each would take a thread that is as slow
        assert await outcomes(readers.read("org_1", partial(slow.read, "more"))) == [Busy]
    assert slow.begun == ["0"]
    assert await readers.read("org_2", lambda: "mine") == "mine"
    slow.may_end.set()
    await until(lambda: not readers._waiting)
    monkeypatch.setattr(bridge, "READ_TIMEOUT_S", 20)
    assert await readers.read("org_1", lambda: "again") == "again"
    readers.close()


async def test_those_who_leave_or_are_too_many_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_WAITING", 2)
    readers, slow = Readers(), Slow()
    running = asyncio.create_task(readers.read("org_1", partial(slow.read, "0")))
    await until(lambda: slow.begun == ["0"])
    waiting = [asyncio.create_task(readers.read("org_1", partial(slow.read, name))) for name in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(GatewayError) as refused:
        await readers.read("org_1", partial(slow.read, "c"))
    assert (refused.value.kind, refused.value.headers()["retry-after"]) == (TOO_MANY_WAITING, "1")
    waiting[0].cancel()
    slow.may_end.set()
    assert await outcomes(running, *waiting) == ["0", asyncio.CancelledError, "b"]
    await until(lambda: not readers._waiting)

    slow.may_end.clear()
    first = asyncio.create_task(readers.read("org_1", partial(slow.read, "1")))
    await until(lambda: slow.begun[-1] == "1")
    second = asyncio.create_task(readers.read("org_1", lambda: "2"))
    await asyncio.sleep(0)
    first.add_done_callback(lambda _: second.cancel())  # it is given its turn, and leaves at the same moment
    slow.may_end.set()
    assert await outcomes(first, second) == ["1", asyncio.CancelledError]
    assert await readers.read("org_1", lambda: "3") == "3"
    readers.close()


async def test_who_finds_no_thread_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "READ_TIMEOUT_S", 0.05)
    readers, slow = Readers(), Slow()
    works = [readers.read(f"org_{number}", partial(slow.read, str(number))) for number in range(3)]
    assert await outcomes(*works) == [TooSlow, TooSlow, Busy]
    assert sorted(readers._waiting) == ["org_0", "org_1"]
    slow.may_end.set()
    await until(lambda: not readers._waiting)
    readers.close()
    assert issubclass(Busy, Unavailable) and issubclass(TooSlow, Unavailable)


async def test_a_bridge_that_was_never_used_has_no_threads() -> None:
    unused = LastingBridge("nothing")
    unused.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("nothing")]
