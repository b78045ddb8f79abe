"""Each limit is exact when 500 requests come at once through four real workers."""

import asyncio
from collections import Counter

import pytest

from apps.core.limits import Limits
from tests.acceptance.asking import Answer, caller
from tests.money.stage import USD, Stage

AT_ONCE = 500
WORKERS = 4
EXACTLY = 37
SLOW = {"chunks": 2, "first_byte_delay_ms": 4_000}
"""Long enough for 500 to have asked while the first are running."""


async def ask_all(stage: Stage, key: str, *, number: int = AT_ONCE, script: object = None) -> list[Answer]:
    async with caller(stage, key) as asking:  # type: ignore[arg-type]  # it has an `api`, as installations do
        return list(
            await asyncio.gather(
                *(asking.ask("truth-echo", "a b c", max_tokens=5, sandbox=script or {}) for _ in range(number))
            )
        )


def needed_tokens(stage: Stage) -> int:
    """What one of the requests takes of a limit of tokens."""
    _, key = stage.found(USD, limits=Limits(tokens_per_minute=10**6))
    answer = Answer()
    while answer.status != 200:  # 503: not warm yet, or too busy
        (answer,) = asyncio.run(ask_all(stage, key, number=1, script=SLOW))
    return 10**6 - int(answer.headers["x-ratelimit-remaining-tokens"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("limit", ["requests_per_minute", "requests_per_day", "tokens_per_minute", "concurrency"])
def test_500_at_once_through_four_workers_meet_the_limit_exactly(stage: Stage, limit: str) -> None:
    """D23, D26: what is admitted is the limit and not one request more or fewer; afterwards nothing is taken."""
    workers = [stage.worker() for _ in range(WORKERS)]
    most = EXACTLY * needed_tokens(stage) if limit == "tokens_per_minute" else EXACTLY
    owner, key = stage.found(USD, limits=Limits(**{limit: most}))
    answers = asyncio.run(ask_all(stage, key, script=SLOW if limit != "requests_per_day" else None))
    for worker in workers:
        stage.kill(worker)
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) <= {200, 429, 503} and statuses[429], statuses
    # A worker that is too busy to trust a late answer says 503 and gives the request up; in a window it stays counted.
    assert EXACTLY - statuses[503] <= statuses[200] <= EXACTLY
    stage.settle()
    assert stage.ask("failed_proofs") == []
    with stage.store() as client:
        assert [client.zcard(name) for name in client.keys(f"crun:{{{owner}}}:lease:*")] in ([], [0])
