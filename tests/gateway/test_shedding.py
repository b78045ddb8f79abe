"""Load shedding: nobody is sent away before the worker is late, the lowest priority first, running streams never."""

from typing import Any

import pytest

from apps.core.priorities import Priority
from apps.gateway.errors import GatewayError
from apps.gateway.load.shedding import SAMPLES, Level, Shedding, priority_of
from tests.gateway.conftest import Bench

LATE_S = (0.25, 1.0, 2.5)
BUSY = 0.9
CHAT = "/api/v1/chat/completions"


def shedding() -> Shedding:
    return Shedding(LATE_S, 0.5)


def feed(shedding: Shedding, *late_s: float, busy: float = BUSY) -> list[Level]:
    """The level after each sample."""
    return [(shedding.observe(value, busy), shedding.level)[1] for value in late_s]


def test_nobody_is_sent_away_below_the_threshold() -> None:
    assert set(feed(shedding(), *[0.249] * 100)) == {Level.NONE}


def test_a_hitch_is_no_load() -> None:
    hitches = [5.0, 0.0, 5.0, 5.0, 5.0, 0.1] * 20
    assert set(feed(shedding(), *hitches)) == {Level.NONE}


def test_nor_is_a_worker_late_by_its_own_load_when_it_has_little_to_do() -> None:
    assert set(feed(shedding(), *[5.0] * 20, busy=0.4)) == {Level.NONE}


@pytest.mark.parametrize(("late_s", "level"), [(0.25, Level.LOW), (1.0, Level.STANDARD), (2.5, Level.ALL)])
def test_each_threshold_is_reached_after_a_second_and_not_before(late_s: float, level: Level) -> None:
    told = shedding()
    assert feed(told, *[late_s] * SAMPLES) == [Level.NONE] * (SAMPLES - 1) + [level]


def test_it_ends_a_level_at_a_time_and_well_below_what_began_it() -> None:
    told = shedding()
    feed(told, *[3.0] * SAMPLES)
    assert told.level is Level.ALL
    assert set(feed(told, *[1.3] * 20)) == {Level.ALL}  # 1.25 is half of what began it
    assert feed(told, *[1.2] * SAMPLES)[-1] is Level.STANDARD
    assert set(feed(told, *[0.6] * 20)) == {Level.STANDARD}
    assert feed(told, *[0.0] * 2 * SAMPLES)[-1] is Level.NONE


def test_changes_are_told_once() -> None:
    told = shedding()
    samples = [0.3] * 20 + [0.0] * 20
    assert sum(told.observe(value, BUSY) for value in samples) == 2


@pytest.mark.parametrize(
    ("level", "gone"),
    [
        (Level.NONE, set()),
        (Level.LOW, {Priority.LOW}),
        (Level.STANDARD, {Priority.LOW, Priority.NORMAL}),
        (Level.ALL, set(Priority)),
    ],
)
def test_the_lowest_priority_goes_first(level: Level, gone: set[Priority]) -> None:
    told = shedding()
    told.level = level
    for priority, tier, of_key, is_sandbox in (
        (Priority.LOW, "flex", Priority.HIGH, False),
        (Priority.LOW, "batch", Priority.HIGH, False),
        (Priority.LOW, "priority", Priority.HIGH, True),
        (Priority.LOW, "", Priority.LOW, False),
        (Priority.NORMAL, "", Priority.NORMAL, False),
        (Priority.HIGH, "", Priority.HIGH, False),
        (Priority.HIGH, "priority", Priority.LOW, False),
    ):
        assert priority_of(tier, of_key, is_sandbox=is_sandbox) == priority
        if priority not in gone:
            told.check(tier, of_key, is_sandbox=is_sandbox)
            continue
        with pytest.raises(GatewayError) as refused:
            told.check(tier, of_key, is_sandbox=is_sandbox)
        error = refused.value
        assert (error.kind.status, error.code) == (503, "gateway_overloaded")
        assert 1_000 <= error.retry_after_ms <= 3_000


def test_without_thresholds_there_is_none() -> None:
    told = Shedding((), 0.5)
    assert set(feed(told, *[100.0] * 20)) == {Level.NONE}


@pytest.mark.asyncio
async def test_new_requests_are_sent_away_and_what_runs_goes_on(bench: Bench) -> None:
    bench.offer("sandbox-echo")
    slow: dict[str, Any] = bench.chat_body("sandbox-echo", "a b c d", stream=True, sandbox={"chunk_delay_ms": 100})
    running = bench.start(CHAT, slow)
    await running.until(lambda call: len(call.sent) > 1)
    bench.runtime.utilization.stop()
    bench.runtime.shedding.level = Level.STANDARD
    refused = await bench.chat("sandbox-echo")
    assert (refused.status, refused.json["error"]["code"]) == (503, "gateway_overloaded")
    assert int(refused.headers["retry-after"]) >= 1 and "x-should-retry" not in refused.headers
    for path in ("/healthz", "/readyz", "/api/v1/key", "/api/v1/models", "/api/v1/models/sandbox-echo/endpoints"):
        assert (await bench.call(path)).status == 200, path
    assert running.task is not None
    await running.task
    assert running.events[-1] == "[DONE]"
    assert refused.request_id.encode() not in b"".join(bytes(repr(entry), "utf-8") for entry in bench.journal())
    assert bench.runtime.shedding.refused == 1
    bench.runtime.shedding.level = Level.LOW
    for priority, status in ((Priority.LOW, 503), (Priority.NORMAL, 200)):  # of the key that asks
        bench.limit(priority=priority)
        assert (await bench.chat("sandbox-echo")).status == status
    bench.runtime.shedding.level = Level.NONE
    assert (await bench.chat("sandbox-echo")).status == 200
