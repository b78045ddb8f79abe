"""What a worker tells of its load is there for /metrics, under its name, until it is gone."""

import asyncio

import pytest

from apps.core.worker_states import KEY, WorkerState, read_worker_states
from apps.gateway.load.shedding import Level
from tests.gateway.conftest import Bench

pytestmark = pytest.mark.asyncio


async def test_a_worker_tells_how_it_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.runtime.TELL_EVERY_S", 0.01)
    bench.runtime.utilization.stop()
    bench.runtime.shedding.level, bench.runtime.shedding.refused = Level.STANDARD, 7
    bench.runtime.stored.not_stored["busy"] = 2
    async with asyncio.timeout(20):
        while not (told := read_worker_states()) or next(iter(told.values())).refused != 7:  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.05)
    (state,) = told.values()
    assert state.not_stored == {"busy": 2}
    assert isinstance(state, WorkerState) and (state.shedding, state.waiting) == (2, 0)
    assert state.busy >= 0 and state.late_s >= 0


async def test_one_that_is_gone_is_forgotten(bench: Bench, empty_store: object) -> None:
    async with asyncio.timeout(20):
        while not read_worker_states():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.05)
    (name,) = empty_store.scan_iter(KEY.format(name="*"))  # type: ignore[attr-defined]  # one client, two annotations
    assert 0 < empty_store.ttl(name) <= 30  # type: ignore[attr-defined]  # likewise
