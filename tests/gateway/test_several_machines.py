"""Money of one organization on machines that cannot read each other's journals."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from apps.accounts.models import Organization
from apps.billing.journals import site_of
from apps.billing.posting import post_batch
from apps.billing.recovery import close_orphan
from apps.billing.settlement import settle_recorded
from apps.billing.unrecorded import read_unrecorded
from apps.core.ids import new_id
from apps.usage.shipping import ship
from tests.billing.books import credit
from tests.gateway.storms import Worker, demand, running_worker
from tests.gateway.test_money import USD, Till, funded, short_connections, till

__all__ = ["funded", "short_connections", "till"]
pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]
PART = USD * 6 // 10


@pytest_asyncio.fixture
async def far(till: Till, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    """A worker of another machine."""
    async with running_worker(tmp_path_factory.mktemp("far"), price=till.workers[0].price) as worker:
        yield worker


async def rebuilt(till: Till) -> None:
    """The ledger changes by a nano-dollar, so this machine counts the money again."""
    await till.in_thread(lambda: credit(Organization.objects.get(pk=till.owner), 1))
    await till.workers[0].request(demand(till.owner, 1), cost=lambda hold: 0)
    await till.workers[0].reservations.drain()


async def ship_far(till: Till, far: Worker) -> None:
    root = far.journal.folder.parent
    await till.in_thread(lambda: ship(root, close_orphan=close_orphan, on_recorded=settle_recorded))


def left(till: Till, client: Any) -> tuple[int, int]:
    money = till.money(client)
    return int(money["balance"]), int(money["held"])


@pytest.mark.parametrize("how_often", [1, 3])
async def test_what_another_machine_settled_and_did_not_ship_stays_spent(
    till: Till, far: Worker, empty_store: Any, how_often: int
) -> None:
    await far.request(demand(till.owner, PART), cost=lambda hold: hold)
    await far.reservations.drain()
    for time in range(1, how_often + 1):
        await rebuilt(till)
        assert left(till, empty_store) == (USD + time - PART, 0)
        assert till.spend(empty_store, "k:key_1|lifetime|0") == till.spend(empty_store, "o|lifetime|0") == PART
    await ship_far(till, far)
    assert read_unrecorded(empty_store, till.owner) == {}
    await rebuilt(till)
    await till.in_thread(post_batch)
    await rebuilt(till)
    assert left(till, empty_store) == (USD + how_often + 2 - PART, 0)


async def test_what_ended_here_and_was_not_settled_is_known_to_other_machines(
    till: Till, far: Worker, empty_store: Any
) -> None:
    """Its process died before it could settle, and a rebuild here released its hold."""
    here = till.workers[0]
    here.reservations.settle, settle = (lambda end: None), here.reservations.settle  # type: ignore[method-assign]  # dies
    await here.request(demand(till.owner, PART), cost=lambda hold: hold)
    here.reservations.settle = settle  # type: ignore[method-assign]
    await rebuilt(till)
    empty_store.delete(f"crun:{{{till.owner}}}:money")
    await far.request(demand(till.owner, 1), cost=lambda hold: 0)
    await far.reservations.drain()
    assert left(till, empty_store) == (USD + 1 - PART, 0)


async def test_a_settlement_after_its_record_leaves_nothing_behind_for_long(
    till: Till, far: Worker, empty_store: Any
) -> None:
    far.reservations.settle, settle = (lambda end: None), far.reservations.settle  # type: ignore[method-assign]  # late
    await far.request(demand(till.owner, 500), cost=lambda hold: hold)
    root = far.journal.folder.parent
    await till.in_thread(lambda: ship(root, close_orphan=close_orphan))
    settle(far.ended[0])
    await far.reservations.drain()
    assert len(read_unrecorded(empty_store, till.owner)) == 1
    far.reservations.settle = settle  # type: ignore[method-assign]
    await far.request(demand(till.owner, 1), cost=lambda hold: hold)
    await far.reservations.drain()
    await ship_far(till, far)
    assert read_unrecorded(empty_store, till.owner) == {}
    await rebuilt(till)
    assert left(till, empty_store) == (USD + 1 - 501, 0)


async def test_what_has_a_record_is_forgotten_however_much_it_is(till: Till, far: Worker, empty_store: Any) -> None:
    await asyncio.gather(*(far.request(demand(till.owner, 3), cost=lambda hold: hold) for _ in range(250)))
    await far.reservations.drain()
    assert len(read_unrecorded(empty_store, till.owner)) == 250
    await ship_far(till, far)
    assert read_unrecorded(empty_store, till.owner) == {}


async def test_what_the_store_forgot_is_counted_once_it_is_shipped(till: Till, far: Worker, empty_store: Any) -> None:
    """Closed and settled on another machine; then the store is emptied, and this machine counts first."""
    await far.request(demand(till.owner, PART), cost=lambda hold: hold)
    await far.reservations.drain()
    empty_store.flushdb()
    await till.workers[0].request(demand(till.owner, 1), cost=lambda hold: 0)
    await ship_far(till, far)
    await till.workers[0].request(demand(till.owner, USD), cost=lambda hold: hold)
    await till.settled()
    assert [refused.what for refused in till.workers[0].refused] == ["balance"]
    assert left(till, empty_store) == (USD - PART, 0)


def expire(till: Till, client: Any) -> None:
    key = f"crun:{{{till.owner}}}:expiry"
    for name in client.zrange(key, 0, -1):
        client.zadd(key, {name: 1})


async def test_a_machine_that_was_cut_off_keeps_its_holds(till: Till, far: Worker, empty_store: Any) -> None:
    await till.workers[0].request(demand(till.owner, 1), cost=lambda hold: 0)
    task = asyncio.create_task(far.request(demand(till.owner, PART), lasting_s=1e6, cost=lambda hold: hold))
    await asyncio.sleep(0.3)
    expire(till, empty_store)
    await till.workers[0].request(demand(till.owner, USD), cost=lambda hold: hold)
    assert [refused.what for refused in till.workers[0].refused] == ["balance"]
    assert left(till, empty_store) == (USD, PART)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await far.reservations.drain()
    assert left(till, empty_store) == (USD - PART, 0)


@pytest.mark.parametrize(("is_far", "is_old"), [(False, False), (True, True), (True, False)])
async def test_holds_that_nobody_knows_are_lost_when_nobody_can_know_them(
    till: Till, empty_store: Any, is_far: bool, is_old: bool
) -> None:
    """Here: when they expired. On another machine: when no request runs for so long. More than one rebuild's worth."""
    await till.workers[0].request(demand(till.owner, 1), cost=lambda hold: 0)
    prefix = f"crun:{{{till.owner}}}:"
    site = "elsewhere" if is_far else site_of(till.journals)
    ids = [new_id("req") for _ in range(2_500)]
    if is_old:
        ids = [f"req_{int(name[4:16], 16) - 3_600_000:012x}{name[16:]}" for name in ids]
    packed = f"1000|10|0||key_1|proj_1||{site}"
    empty_store.hset(f"{prefix}holds", mapping=dict.fromkeys(ids, packed))
    empty_store.zadd(f"{prefix}expiry", dict.fromkeys(ids, 1))
    await till.workers[0].request(demand(till.owner, USD - 2_500_000), cost=lambda hold: 0)
    await till.settled()
    assert (till.workers[0].away, till.workers[0].refused) == (0, [])
    assert left(till, empty_store) == (USD, 2_500_000 if is_far and not is_old else 0)


async def test_a_site_is_named_once(tmp_path: Path) -> None:
    names = await asyncio.gather(*(asyncio.to_thread(site_of, tmp_path / "new") for _ in range(8)))
    assert len(set(names)) == 1 and len(names[0]) == 8
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["site"]


async def test_a_close_that_the_disk_refused_is_settled_when_it_is_written(
    till: Till, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, other = till.workers
    await other.request(demand(till.owner, 1), cost=lambda hold: 0)
    task = asyncio.create_task(worker.request(demand(till.owner, PART), lasting_s=1e6, cost=lambda hold: hold))
    await asyncio.sleep(0.2)
    with monkeypatch.context() as patch:

        def refuse(frames: bytes) -> None:
            raise OSError(28, "no space left")

        patch.setattr(worker.journal, "_write", refuse)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await worker.reservations.drain()
        assert left(till, empty_store) == (USD, PART)
        assert worker.reservations.running_requests == 1
        await till.in_thread(lambda: credit(Organization.objects.get(pk=till.owner), 1))
        await other.request(demand(till.owner, PART), cost=lambda hold: hold)
        assert [refused.what for refused in other.refused] == ["balance"]
    worker.journal.retry_unwritten()
    await till.settled()
    till.check(empty_store, start=USD + 1)
    assert worker.reservations.running_requests == 0


async def test_a_hold_that_a_rebuild_made_learns_what_else_was_taken(till: Till, empty_store: Any) -> None:
    worker = till.workers[0]
    await worker.request(demand(till.owner, 1), cost=lambda hold: 0)
    task = asyncio.create_task(worker.request(demand(till.owner, 700), lasting_s=1e6, cost=lambda hold: hold))
    await asyncio.sleep(0.2)
    prefix = f"crun:{{{till.owner}}}:"
    ((name, packed),) = empty_store.hgetall(f"{prefix}holds").items()
    parts = packed.decode().split("|")
    known = worker.reservations._running[name.decode()]
    known.packed = "|".join([*parts[:3], "kc", *parts[4:]]).encode()
    worker.reservations.renew()
    await asyncio.sleep(0.05)
    assert empty_store.hget(f"{prefix}holds", name) == known.packed
    assert empty_store.zrange(f"{prefix}lease:k:key_1", 0, -1) == [name]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await till.settled()
    assert empty_store.zrange(f"{prefix}lease:k:key_1", 0, -1) == []
    till.check(empty_store)


async def test_money_is_counted_again_after_a_day(till: Till, empty_store: Any) -> None:
    worker, prefix = till.workers[0], f"crun:{{{till.owner}}}:"
    await worker.request(demand(till.owner, 1), cost=lambda hold: hold)
    await worker.reservations.drain()
    generation = till.money(empty_store)["generation"]
    empty_store.hset(f"{prefix}money", "good_until", 1)
    empty_store.hset(f"{prefix}spend", "k:key_1|day|86400", 5)
    async with asyncio.timeout(10):
        while till.money(empty_store).get("generation") in (generation, None):
            await worker.request(demand(till.owner, 1), cost=lambda hold: hold)
            await worker.reservations.drain()
    assert not empty_store.hexists(f"{prefix}spend", "k:key_1|day|86400")
    till.check(empty_store)
