"""`kill -9` of ASGI workers while streams are open: back at once, and every stream has exactly one record."""

import asyncio
import os
import signal
import time
from functools import partial

import pytest

from crun.sandbox.truth import TruthEntry
from tests.acceptance.asking import Answer, caller, gather_limited
from tests.acceptance.installing import Installation
from tests.acceptance.records import Record, cost_usd, nanos, rollup_differences, settled_records
from tests.acceptance.scale import figure, within
from tests.acceptance.upstream import TruthUpstream

pytestmark = [pytest.mark.installation, pytest.mark.timeout(300)]

STREAMS = 100
BACK_WITHIN_S = 3.0
RECORDED_WITHIN_S = 60.0
SLOW = {"chunks": 50, "chunk_delay_ms": 100}  # 5 s


async def _streams_with_a_murder(
    installation: Installation, victims: list[int], after_s: float
) -> tuple[list[Answer], float]:
    """Open STREAMS slow streams, kill the victims in the middle; all answers, and how long nobody answered, in s."""
    async with caller(installation) as asking:
        work = [partial(asking.ask, "truth-echo", "a b c", stream=True, sandbox=SLOW) for _ in range(STREAMS)]
        streams = asyncio.create_task(gather_limited(work, STREAMS))
        await asyncio.sleep(after_s)
        killed_at = time.monotonic()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        async with caller(installation) as newcomer:
            answer = await newcomer.ask("truth-echo", "Is anybody there?")
        away_s = time.monotonic() - killed_at
        assert answer.is_whole
        return await streams, away_s


def _check_interrupted(record: Record, told: TruthEntry, answer: Answer) -> None:
    """An interrupted stream is billed by its last checkpoint: never for more than was produced."""
    assert record.status == "interrupted"
    assert record.estimated
    assert 0 < record.output_tokens <= told.tokens
    assert record.output_tokens >= 1
    assert record.input_tokens <= told.prompt_tokens
    assert record.cost_nanos == nanos(cost_usd(record)) > 0
    assert answer.broken
    assert not answer.is_done


def test_all_workers_killed_during_100_streams_are_back_in_3_s_and_each_stream_has_one_record(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int]
) -> None:
    victims = installation.workers()
    answers, away_s = asyncio.run(_streams_with_a_murder(installation, victims, 2))
    ended_at = time.monotonic()
    told = truth.ended_since(mark[1])
    records = settled_records(installation, mark[0], told, limit_s=RECORDED_WITHIN_S)
    recorded_s = time.monotonic() - ended_at
    figure("kill -9 of all workers", f"answered again after {away_s:.2f} s, all recorded {recorded_s:.1f} s later")
    assert away_s < within(BACK_WITHIN_S)
    assert set(records) == set(told)
    assert len(records) == STREAMS + 1
    for answer in answers:
        _check_interrupted(records[answer.request_id], told[answer.request_id], answer)
    assert not set(installation.workers()) & set(victims)
    assert rollup_differences(installation) == []


def test_one_worker_killed_breaks_its_own_streams_only(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int]
) -> None:
    victim, survivor = installation.workers()
    answers, away_s = asyncio.run(_streams_with_a_murder(installation, [victim], 2))
    figure("kill -9 of one of two workers", f"the next request took {away_s:.2f} s")
    assert away_s < within(BACK_WITHIN_S)
    told = truth.ended_since(mark[1])
    records = settled_records(installation, mark[0], told, limit_s=RECORDED_WITHIN_S)
    assert set(records) == set(told)
    broken = [answer for answer in answers if not answer.is_whole]
    assert 0 < len(broken) < STREAMS
    for answer in broken:
        _check_interrupted(records[answer.request_id], told[answer.request_id], answer)
    for answer in answers:
        if answer.is_whole:
            assert records[answer.request_id].status == "completed"
            assert records[answer.request_id].completion_tokens == SLOW["chunks"]
    assert installation.workers()[1] == survivor
    assert rollup_differences(installation) == []
