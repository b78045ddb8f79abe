"""PostgreSQL or Valkey away under load: nothing is lost, nobody is told that money is missing, a revocation counts.

Without PostgreSQL known keys are served on. Without Valkey money cannot be held, so new requests are told to come back
(503), and are served within seconds of its return."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.acceptance.asking import Answer, Caller, ask_until, caller
from tests.acceptance.holding import held_down, stopped
from tests.acceptance.installing import Installation
from tests.acceptance.records import difference, rollup_differences, settled_records
from tests.acceptance.scale import figure, is_full, sized
from tests.acceptance.upstream import TruthUpstream

pytestmark = [pytest.mark.installation, pytest.mark.timeout(300)]

AT_ONCE = 10
AWAY_S = sized(5, 30)
REVOKED_WITHIN_S = 10.0
SERVED_AGAIN_WITHIN_S = 5.0
BOTH_BACK_WITHIN_S = 15.0
COME_BACK = (503, "store_unavailable")
Taken = Callable[[Installation, str], AbstractAsyncContextManager[object]]


async def _load_while_away(
    installation: Installation, taken: Taken, name: str, away_s: float, *, back_within_s: float = SERVED_AGAIN_WITHIN_S
) -> list[Answer]:
    """All answers of a load that began before the server went away and ends after it is back."""
    stop = asyncio.Event()
    async with caller(installation) as asking:
        assert (await asking.ask("truth-echo")).is_whole
        load = asyncio.create_task(ask_until(asking, stop, at_once=AT_ONCE))
        await asyncio.sleep(1)
        async with taken(installation, name):
            await asyncio.sleep(away_s)
        back = time.monotonic()
        while not (again := await asking.ask("truth-echo")).is_whole:
            assert _asks_to_come_back(again)
            assert time.monotonic() < back + back_within_s
            await asyncio.sleep(0.05)
        figure(f"{name} back", f"served again after {time.monotonic() - back:.2f} s")
        await asyncio.sleep(1)
        stop.set()
        return [*await load, again]


def _asks_to_come_back(answer: Answer) -> bool:
    code = answer.error.get("code") if isinstance(answer.error, dict) else None
    return (answer.status, code) == COME_BACK and "retry-after" in answer.headers


def _check(
    installation: Installation,
    truth: TruthUpstream,
    mark: tuple[str, int],
    everything: list[Answer],
    name: str,
    *,
    may_wait: bool = False,
) -> None:
    """Every answer whole, and every one has the record that the truth log asks for.

    `may_wait`: an answer may also be a 503 that asks to come back; then the upstream never saw its request."""
    answers = [answer for answer in everything if not (may_wait and _asks_to_come_back(answer))]
    failed = Counter((answer.status, answer.broken, str(answer.error)) for answer in answers if not answer.is_whole)
    began = time.monotonic()
    told = truth.ended_since(mark[1])
    records = settled_records(installation, mark[0], told)
    slowest_s, slow = max(answer.took_s for answer in answers), sum(answer.took_s > 1 for answer in answers)
    figure(
        name,
        f"{len(answers)} requests, {len(everything) - len(answers)} told to come back, {sum(failed.values())} failed,"
        f" slowest {slowest_s:.2f} s, {slow} above 1 s,"
        f" all posted {time.monotonic() - began:.1f} s later",
    )
    assert failed == {}
    assert len(answers) > AT_ONCE * 2
    assert set(records) == set(told)
    assert len(records) == len(answers) + 1
    assert {name: found for name in told if (found := difference(records[name], told[name]))} == {}
    assert rollup_differences(installation) == []


def test_postgresql_that_hangs_under_load_fails_no_request_and_loses_no_record(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int]
) -> None:
    answers = asyncio.run(_load_while_away(installation, stopped, "postgres", AWAY_S))
    _check(installation, truth, mark, answers, f"PostgreSQL stopped for {AWAY_S} s")


@asynccontextmanager
async def _held_down_while_announcements_are_lost(installation: Installation, name: str) -> AsyncIterator[None]:
    """After a lost connection to Valkey no cached key is trusted without asking the database, which is away."""
    async with held_down(installation, name):
        os.kill(installation.pid("valkey"), signal.SIGKILL)
        yield


def test_postgresql_killed_again_and_again_fails_no_request_of_a_known_key_and_loses_no_record(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int]
) -> None:
    away_s = sized(3, 30)
    answers = asyncio.run(_load_while_away(installation, held_down, "postgres", away_s))
    _check(installation, truth, mark, answers, f"PostgreSQL held down for {away_s} s")


def test_both_away_at_once_lose_no_record_and_blame_nobody(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int]
) -> None:
    away_s = sized(3, 30)
    taken = _held_down_while_announcements_are_lost
    answers = asyncio.run(_load_while_away(installation, taken, "postgres", away_s, back_within_s=BOTH_BACK_WITHIN_S))
    _check(installation, truth, mark, answers, f"both held down for {away_s} s", may_wait=True)


def test_valkey_killed_under_load_refuses_only_for_a_while_and_loses_no_record(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int]
) -> None:
    away_s = sized(1, 30)
    answers = asyncio.run(_load_while_away(installation, held_down, "valkey", away_s))
    _check(installation, truth, mark, answers, f"Valkey held down for {away_s} s", may_wait=True)


@pytest.mark.parametrize("taken", [stopped, held_down] if is_full else [stopped])
def test_without_valkey_nothing_is_lost_and_a_revocation_counts_within_10_s(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int], taken: Taken
) -> None:
    secret, key_id = installation.new_key("to be revoked without Valkey")

    async def load_and_revoke() -> tuple[list[Answer], float]:
        stop = asyncio.Event()
        async with caller(installation) as asking, caller(installation, secret) as doomed:
            load = asyncio.create_task(ask_until(asking, stop, at_once=AT_ONCE))
            assert (await doomed.ask("truth-echo")).is_whole
            async with taken(installation, "valkey"):
                revoked = await asyncio.to_thread(installation.crun, "key", "revoke", key_id)
                assert revoked.returncode == 0, revoked.stderr
                late_s = await _last_served(doomed, for_s=REVOKED_WITHIN_S + 0.5)
            await asyncio.sleep(1)
            stop.set()
            return await load, late_s

    answers, late_s = asyncio.run(load_and_revoke())
    figure("revocation without Valkey", f"last request served {late_s:.2f} s after `crun key revoke` ended")
    assert late_s < REVOKED_WITHIN_S
    _check(installation, truth, mark, answers, "Valkey away", may_wait=True)


async def _last_served(doomed: Caller, *, for_s: float) -> float:
    """Ask for a while with a key that is revoked; when the last request that was served ended, in s from now."""
    began, last = time.monotonic(), 0.0
    while time.monotonic() < began + for_s:
        answer = await doomed.ask("no-such-model")
        assert answer.status in (401, 404)
        if answer.status == 404:
            last = time.monotonic() - began
        await asyncio.sleep(0.05)
    return last
