"""Clients that leave at random moments, thousands of them: nobody gets another one's answer, nothing stays behind."""

import asyncio
import os
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from apps.core.ids import new_id
from apps.core.limits import Limits
from tests.acceptance.asking import caller
from tests.money.checker import check, held_by, leased_by, records_of
from tests.money.leaving import Leavers
from tests.money.soaking import figure, seed_of_this_run, sized
from tests.money.stage import USD, Stage
from tests.money.trials import come_to_rest

CANCELS = sized(400, 100_000)
WARM_UP = 120
AT_ONCE = 40
PATIENCE_S = 60.0
CREDIT = 100_000 * USD


class Descriptors:
    """What a worker has open: connections to its upstream, and everything else."""

    def __init__(self, pid: int, upstream_port: int) -> None:
        self._folder = Path(f"/proc/{pid}/fd")
        self._port = f":{upstream_port:04X}"

    def count(self) -> tuple[int, int]:
        """(to the upstream, all others)."""
        upstream = self._sockets_to_upstream()
        links = []
        for each in self._folder.iterdir():
            with suppress(FileNotFoundError):  # closed a moment ago
                links.append(os.readlink(each))
        mine = sum(link in upstream for link in links)
        return mine, len(links) - mine

    def _sockets_to_upstream(self) -> set[str]:
        lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return {f"socket:[{fields[9]}]" for fields in lines if fields[2].endswith(self._port)}


@pytest.mark.timeout(3_600)
def test_thousands_who_leave_at_any_moment_leave_nothing_behind_and_cross_nobody(stage: Stage) -> None:
    seed = seed_of_this_run()
    owner, key = stage.found(CREDIT, limits=Limits(concurrency=10 * AT_ONCE))
    mark = (new_id("req"), stage.truth.last_number())
    worker, shipper = stage.worker(), stage.shipper()
    assert worker.pid is not None
    descriptors = Descriptors(worker.pid, stage.truth.port)
    host, port = stage.door.getsockname()[:2]
    leavers = Leavers(host, port, key, random.Random(seed))
    began = time.monotonic()
    upstream_most = 0

    def until_nothing_is_left(others: int) -> int:
        """Wait until nobody is served any more; descriptors beside those to the upstream."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            _, open_now = descriptors.count()
            if held_by(stage, owner) == {} and leased_by(stage, owner) == 0 and (not others or open_now <= others):
                return open_now
            assert time.monotonic() < deadline, f"held {held_by(stage, owner)}, {open_now} descriptors, {others} before"
            time.sleep(0.1)

    async def watch() -> None:
        nonlocal upstream_most
        while True:
            upstream_most = max(upstream_most, (await asyncio.to_thread(descriptors.count))[0])
            await asyncio.sleep(0.2)

    async def storm() -> tuple[int, int]:
        watching = asyncio.create_task(watch())
        try:
            await leavers.storm(WARM_UP, at_once=AT_ONCE)
            before = await asyncio.to_thread(until_nothing_is_left, 0)
            await leavers.storm(CANCELS, at_once=AT_ONCE)
            after = await asyncio.to_thread(until_nothing_is_left, before)
        finally:
            watching.cancel()
        async with caller(stage, key) as asking:  # type: ignore[arg-type]  # it has an `api`, as installations do
            lost, _ = await come_to_rest(stage, owner, asking)
        assert lost == 0
        return before, after

    before, after = asyncio.run(storm())
    took_s = round(time.monotonic() - began, 1)
    assert worker.is_alive()
    interrupted = [row["request_id"] for row in records_of(stage, owner) if row["status"] == "interrupted"]
    stage.kill(shipper)
    stage.kill(worker)
    stage.settle()
    verdict = check(stage, owner, mark=mark, answers=[], credit_nanos=CREDIT)
    figure(
        "clients that leave", cancels=CANCELS, answered=leavers.answered, busy=leavers.busy, wrong=len(leavers.wrong),
        upstream_most=upstream_most, descriptors_before=before, descriptors_after=after, seed=seed, took_s=took_s,
        verdict=str(verdict),
    )  # fmt: skip
    assert leavers.wrong == []
    assert leavers.answered > CANCELS // 10
    assert interrupted == []
    assert [row["request_id"] for row in records_of(stage, owner) if row["status"] == "interrupted"] == []
    assert verdict.problems == {}
    assert upstream_most <= 2 * AT_ONCE
