"""A rebuild while requests go on: each of its moments, one by one."""

import asyncio
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from apps.accounts.models import Organization
from apps.billing import rebuilding
from apps.billing.rebuilding import RebuildFailed
from apps.core.errors import Unavailable
from apps.gateway.admission.reservations import _Rebuilds
from apps.usage.contracts import RequestClosed
from tests.billing.books import credit
from tests.factories import closed, opened
from tests.gateway.storms import demand
from tests.gateway.test_money import USD, Till, funded, short_connections, till

__all__ = ["funded", "short_connections", "till"]
pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]
Act = Callable[[], Awaitable[None]]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Act], None]:
    """Do something once, on the event loop, right after the journals were read or after the truth was found."""

    def plan(moment: str, act: Act) -> None:
        loop = asyncio.get_running_loop()
        name = {"journals": "read_journals", "found": "_find"}[moment]
        real = getattr(rebuilding, name)
        todo = [act]

        def hooked(*arguments: Any) -> Any:
            result = real(*arguments)
            if todo:
                asyncio.run_coroutine_threadsafe(todo.pop()(), loop).result(5)
            return result

        monkeypatch.setattr(rebuilding, name, hooked)

    return plan


class Pending:
    """A request that runs, ends and is settled when the test says so."""

    def __init__(self, till: Till, cost: int) -> None:
        self._till = till
        self._worker = till.workers[0]
        self._ends: list[RequestClosed] = []
        self._settle = self._worker.reservations.settle
        self._may_end = asyncio.Event()
        self._cost = cost
        self._worker.reservations.settle = self._ends.append  # type: ignore[method-assign]  # until `settle`
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._worker.request(demand(self._till.owner, 10_000), lasting_s=1e6, cost=lambda hold: self._cost)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def end_and_ship(self) -> None:
        await self.end()
        await self._till.ship_quietly()

    async def settle(self) -> None:
        self._settle(self._ends.pop())
        await self._worker.reservations.drain()

    async def end_and_settle(self) -> None:
        await self.end()
        await self.settle()

    async def end_ship_and_settle(self) -> None:
        await self.end_and_ship()
        await self.settle()


async def running(till: Till, empty_store: Any) -> Pending:
    """A running request, and then money that is not known."""
    await till.workers[1].request(demand(till.owner, 1), cost=lambda hold: 0)
    request = Pending(till, cost=4_321)
    await asyncio.sleep(0.05)
    empty_store.delete(f"crun:{{{till.owner}}}:money")
    return request


async def rebuilt(till: Till) -> None:
    await till.workers[1].request(demand(till.owner, 1), cost=lambda hold: 0)
    await till.workers[1].reservations.drain()
    assert till.workers[1].away == 0


@pytest.mark.parametrize("moment", ["journals", "found"])
@pytest.mark.parametrize("act", ["end_and_settle", "end_ship_and_settle"])
async def test_a_request_that_ends_during_a_rebuild_counts_once(
    till: Till, empty_store: Any, at: Callable[[str, Act], None], moment: str, act: str
) -> None:
    request = await running(till, empty_store)
    at(moment, getattr(request, act))
    await rebuilt(till)
    till.check(empty_store)


@pytest.mark.parametrize("is_emptied", [True, False])
async def test_a_request_shipped_before_the_snapshot_and_settled_after_it_counts_once(
    till: Till, empty_store: Any, at: Callable[[str, Act], None], is_emptied: bool
) -> None:
    request = await running(till, empty_store)
    if is_emptied:
        empty_store.flushdb()
    at("journals", request.end_and_ship)
    at("found", request.settle)
    await rebuilt(till)
    till.check(empty_store)


async def test_a_request_that_the_rebuild_could_only_see_as_a_record_counts_once(
    till: Till, empty_store: Any, at: Callable[[str, Act], None]
) -> None:
    """Admitted before the store was emptied, opened after the journals were read, settled after the snapshot."""
    worker = till.workers[0]
    entry = opened(organization_id=till.owner, project_id="proj_1", key_id="key_1", hold_nanos=900, price=worker.price)
    end = closed(entry, cost_nanos=800)

    async def run_and_ship() -> None:
        worker.journal.open_request(entry)
        worker.journal.close_request(end)
        worker.ended.append(end)
        await till.ship_quietly()

    async def settle() -> None:
        worker.reservations.settle(end)
        await worker.reservations.drain()

    at("journals", run_and_ship)
    at("found", settle)
    await rebuilt(till)
    till.check(empty_store)


async def test_money_that_changes_during_a_rebuild_makes_it_begin_again(
    till: Till, empty_store: Any, at: Callable[[str, Act], None]
) -> None:
    async def top_up() -> None:
        await till.in_thread(lambda: credit(Organization.objects.get(pk=till.owner), USD))

    request = await running(till, empty_store)
    at("found", top_up)
    await rebuilt(till)
    await request.end_and_settle()
    till.check(empty_store, start=2 * USD)


async def test_a_store_that_is_emptied_during_a_rebuild_is_rebuilt_from_the_start(
    till: Till, empty_store: Any, at: Callable[[str, Act], None]
) -> None:
    async def empty() -> None:
        empty_store.flushdb()

    request = await running(till, empty_store)
    at("found", empty)
    await rebuilt(till)
    assert int(till.money(empty_store)["held"]) == 10_000
    await request.end_and_settle()
    till.check(empty_store)


async def test_an_unreadable_journal_is_an_answer_and_not_a_silence(till: Till, empty_store: Any) -> None:
    """A kind of entry that this version does not know, or a file that it may not read: it may be money."""
    await till.workers[0].request(demand(till.owner, 1), cost=lambda hold: 0)

    class Note(msgspec.Struct, tag="note"):
        text: str = "of a newer version"

    payload = msgspec.msgpack.encode([till.owner, Note()])
    frame = struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    till.workers[0].journal._write(frame)
    empty_store.delete(f"crun:{{{till.owner}}}:money")
    async with asyncio.timeout(3):
        await till.workers[1].request(demand(till.owner, 1), cost=lambda hold: 0)
    assert till.workers[1].away == 1


async def test_whoever_waits_for_a_rebuild_gets_an_answer_whatever_goes_wrong() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def rebuild(owners: Sequence[str]) -> None:
        began.set()
        await go_on.wait()
        raise PermissionError("journal")

    rebuilds = _Rebuilds(rebuild)
    one = asyncio.create_task(rebuilds.wait_for("org_a"))
    await began.wait()
    two = asyncio.create_task(rebuilds.wait_for("org_b"))
    await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(3):
        answers = await asyncio.gather(one, two, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]


async def test_an_organization_that_cannot_be_rebuilt_keeps_nobody_else_from_it() -> None:
    tried: list[str] = []

    async def rebuild(owners: Sequence[str]) -> None:
        tried.extend(owners)
        if "org_odd" in owners:
            raise RebuildFailed(["org_odd"])

    rebuilds = _Rebuilds(rebuild)
    both = await asyncio.gather(rebuilds.wait_for("org_odd"), rebuilds.wait_for("org_a"), return_exceptions=True)
    assert (type(both[0]), both[1]) == (RebuildFailed, None)
    await rebuilds.wait_for("org_b")
    with pytest.raises(Unavailable):
        await rebuilds.wait_for("org_odd")
    assert tried == ["org_odd", "org_a", "org_b"]


async def test_one_odd_organization_of_many_fails_alone(
    till: Till, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rebuilding._find

    def odd(site: Any, owner: str, *rest: Any) -> Any:
        if owner == "org_odd":
            raise ArithmeticError("odd")
        return real(site, owner, *rest)

    monkeypatch.setattr(rebuilding, "_find", odd)
    with pytest.raises(RebuildFailed) as failed:
        await till.in_thread(lambda: rebuilding.rebuild(["org_odd", till.owner], till.journals))
    assert failed.value.owners == {"org_odd"}
    assert int(till.money(empty_store)["balance"]) == USD


async def test_a_rebuild_that_takes_long_is_not_given_up_for_dead(
    till: Till, empty_store: Any, at: Callable[[str, Act], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "LONGEST_MS", 200)

    async def wait() -> None:
        await asyncio.sleep(0.6)
        assert int(till.money(empty_store)["building_until"]) > time.time() * 1000

    at("found", wait)
    await rebuilt(till)
    till.check(empty_store)


async def test_a_rebuild_of_many_ended_requests_never_holds_the_store_up_for_long(till: Till, empty_store: Any) -> None:
    worker = till.workers[0]
    for _ in range(10_000):
        entry = opened(
            organization_id=till.owner, project_id="proj_1", key_id="key_1", hold_nanos=5, price=worker.price
        )
        worker.journal.open_request(entry)
        end = closed(entry, cost_nanos=3)
        worker.journal.close_request(end)
        worker.ended.append(end)
    empty_store.config_set("slowlog-log-slower-than", 100_000)
    empty_store.slowlog_reset()
    for _ in range(2):
        empty_store.delete(f"crun:{{{till.owner}}}:money")
        await rebuilt(till)
        till.check(empty_store)
    assert empty_store.slowlog_get() == []
