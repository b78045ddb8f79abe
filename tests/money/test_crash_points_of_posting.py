"""Whoever ships and posts may die anywhere: each request is recorded, charged and summed up once."""

import pytest

from tests.money import trials
from tests.money.soaking import seed_of_this_run, sized
from tests.money.stage import Stage

SERIES = sized(2, 20)
TRIALS = 50


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(SERIES))
def test_a_shipper_that_dies_anywhere_records_charges_and_sums_up_once(stage: Stage, number: int) -> None:
    """D4, D20: every crash point of shipping and posting and SIGKILL at random moments."""
    verdict = trials.run(
        stage, seed_of_this_run() + number, TRIALS, places=trials.POSTING_POINTS, crash=trials.crash_posting,
        name="crashes of posting",
    )  # fmt: skip
    assert verdict.problems == {}
    assert verdict.served == TRIALS * trials.AT_ONCE + 1
