"""A worker that dies at any place of a request's way loses no usage, doubles none and bills nobody too much."""

import asyncio
import os
import subprocess
import sys

import pytest

from apps.core.crash_points import EXIT_CODE
from crun.home import BASE_DIR
from tests.acceptance.asking import Answer, caller
from tests.money import trials
from tests.money.checker import records_of
from tests.money.soaking import seed_of_this_run, sized
from tests.money.stage import USD, Stage

SERIES = sized(2, 20)
TRIALS = 50


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(SERIES))
def test_a_worker_that_dies_anywhere_loses_doubles_and_overbills_nothing(stage: Stage, number: int) -> None:
    """D4, D5, D9, D26: every crash point of the data path and SIGKILL at random moments, against the truth log."""
    verdict = trials.run(
        stage, seed_of_this_run() + number, TRIALS, places=trials.GATEWAY_POINTS, crash=trials.crash_workers,
        name="crashes of workers",
    )  # fmt: skip
    assert verdict.problems == {}
    assert verdict.served > TRIALS * 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("point", "known"),
    [("P3", "truth-fault-500"), ("P18", "truth-fault-500"), ("P19", "truth-echo"), ("P4:2", "truth-echo")],
)
def test_a_worker_that_dies_between_two_models_bills_nobody_and_holds_nothing(
    stage: Stage, point: str, known: str
) -> None:
    """D4, D11: before, in the middle of and behind the exchange of one model's hold for the other's."""
    owner, key = stage.found(USD)
    dying = stage.worker(point)

    async def ask() -> Answer:
        async with caller(stage, key) as asking:  # type: ignore[arg-type]  # it has an `api`, as installations do
            answer = await asking.ask("truth-fault-500", models=["truth-echo"], max_tokens=50)
            await asyncio.to_thread(dying.join, 20)
            other = stage.worker()
            left, _ = await trials.come_to_rest(stage, owner, asking)
            assert left == 0  # the journal knows the request: no clock has to run out
            await asyncio.to_thread(stage.kill, other)
            return answer

    assert asyncio.run(ask()).status == 0
    assert dying.exitcode == EXIT_CODE
    first, last = sorted(records_of(stage, owner), key=lambda record: record["request_id"])
    assert (first["model"], first["status"], first["cost_nanos"]) == (known, "interrupted", 0)
    assert (last["status"], last["cost_nanos"] > 0) == ("completed", True)


@pytest.mark.timeout(120)
def test_a_worker_started_from_the_shell_dies_where_the_variable_says_and_its_request_is_billed(stage: Stage) -> None:
    """D4: nothing of the stage's forking is needed for it."""
    owner, key = stage.found(USD)
    command = [sys.executable, "-m", "crun.serve", "--fd", str(stage.door.fileno())]
    environment = {**os.environ, **stage.environment, "CRUN_CRASH_POINT": "P8"}

    async def ask() -> Answer:
        async with caller(stage, key) as asking:  # type: ignore[arg-type]  # it has an `api`, as installations do
            return await asking.ask("truth-echo", "a b c")

    with subprocess.Popen(command, cwd=BASE_DIR, env=environment, pass_fds=[stage.door.fileno()]) as worker:
        answer = asyncio.run(ask())
        assert worker.wait(20) == EXIT_CODE
    stage.settle()
    (record,) = records_of(stage, owner)
    assert (answer.status, record["status"], record["output_tokens"]) == (0, "completed", 3)
