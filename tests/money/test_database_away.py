"""PostgreSQL away for ten minutes under load: everybody is served, nothing is lost, and what waited is soon posted."""

import asyncio
import time
from collections import Counter

import pytest

from tests.acceptance.asking import Answer, ask_until, caller
from tests.acceptance.holding import held_down
from tests.acceptance.installing import Installation, running_installation
from tests.acceptance.records import difference, rollup_differences, settled_records
from tests.acceptance.upstream import TruthUpstream, catalog
from tests.money.soaking import figure, is_soak, sized

AWAY_S = sized(20, 600)
DRAINED_BY = 5
"""What came in so many seconds is posted in one."""

pytestmark = [
    pytest.mark.skipif(not is_soak, reason="takes ten minutes: make soak; tests/acceptance has a short one"),
    pytest.mark.timeout(AWAY_S * 2 + 300),
]


async def load(installation: Installation) -> list[Answer]:
    stop = asyncio.Event()
    async with caller(installation) as asking:
        first = await asking.ask("truth-echo")
        asked = asyncio.create_task(ask_until(asking, stop, at_once=4, pause_s=0.25))
        await asyncio.sleep(3)  # both workers come to know the key and its money
        async with held_down(installation, "postgres"):
            await asyncio.sleep(AWAY_S)
        stop.set()
        return [first, *await asked]


def test_ten_minutes_without_postgresql_lose_nothing_and_are_made_up_for_five_times_as_fast(
    truth: TruthUpstream,
) -> None:
    """D4, D20: no request of a known key fails; the backlog is drained at five times the rate at which it came."""
    with running_installation(WORKERS="2") as installation:
        installation.import_catalog(catalog(truth))
        time.sleep(3)
        number = truth.last_number()
        answers = asyncio.run(load(installation))
        back = time.monotonic()
        told = truth.ended_since(number)
        records = settled_records(installation, "req_0", told, limit_s=max(AWAY_S / DRAINED_BY, 30))
        figure(
            "PostgreSQL away", away_s=AWAY_S, requests=len(answers), failed=sum(not one.is_whole for one in answers),
            posted_after_s=round(time.monotonic() - back, 1),
        )  # fmt: skip
        assert Counter((one.status, one.broken) for one in answers if not one.is_whole) == {}
        assert set(records) == set(told)
        assert {name: found for name in told if (found := difference(records[name], told[name]))} == {}
        assert rollup_differences(installation) == []
