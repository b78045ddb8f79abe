"""A key with one dollar and 500 streams at once over two workers: not a nano-dollar more is spent, nobody is refused
while there is money for him."""

import asyncio
import random
import time

import pytest

from apps.core.ids import new_id
from apps.core.limits import Limits
from tests.acceptance.asking import Answer, Caller, caller
from tests.money import dollars
from tests.money.checker import check
from tests.money.soaking import figure, seed_of_this_run, sized
from tests.money.stage import USD, Stage
from tests.money.trials import ask_until_served, come_to_rest

ROUNDS = sized(3, 100)
STREAMS = 500
WORKERS = 2
MAX_TOKENS = 10
HOLD_NANOS = MAX_TOKENS * 1_000_000 + 100 * 1_000
"""The worst case of a stream with `max_tokens`, rounded up: its output, and a thousand tokens of input."""


def stream(asking: Caller, chance: random.Random, *, is_bounded: bool) -> "asyncio.Task[Answer]":
    if is_bounded:
        script = {"chunks": chance.randint(1, MAX_TOKENS), "chunk_delay_ms": chance.choice((0, 5, 40))}
        return asyncio.create_task(
            asking.ask(dollars.DEAR, "a b c", stream=True, sandbox=script, max_tokens=MAX_TOKENS)
        )
    script = {"chunks": 40, "chunk_delay_ms": chance.choice((0, 1, 5))}
    return asyncio.create_task(asking.ask(dollars.LONG, "a b c", stream=True, sandbox=script))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_dollar_and_500_streams_over_two_workers_never_cost_more_than_a_dollar(stage: Stage, number: int) -> None:
    """D3, D23: as balance and as budget of the key, with `max_tokens` and without."""
    seed = seed_of_this_run() + number
    chance = random.Random(seed)
    is_bounded, is_budget = number % 3 != 2, bool(number % 2)
    credit = 1_000 * USD if is_budget else USD
    limits = Limits(budget_nanos=USD) if is_budget else Limits()
    owner, key = stage.found(credit, limits=limits)
    mark = (new_id("req"), stage.truth.last_number())
    workers = [stage.worker() for _ in range(WORKERS)]
    shipper = stage.shipper()
    began = time.monotonic()

    async def storm() -> list[Answer]:
        async with caller(stage, key) as asking:  # type: ignore[arg-type]  # it has an `api`, as installations do
            answers = list(
                await asyncio.gather(*(stream(asking, chance, is_bounded=is_bounded) for _ in range(STREAMS)))
            )
            lost, last = await come_to_rest(stage, owner, asking)
            assert lost == 0
            return [*answers, last.result(), await ask_until_served(asking, dollars.DEAR, "a", max_tokens=MAX_TOKENS)]

    *answers, last = asyncio.run(storm())
    for process in (shipper, *workers):
        stage.kill(process)
    stage.settle()
    refused = [answer for answer in answers if dollars.is_refused(answer)]
    served = [answer for answer in answers if not dollars.is_refused(answer)]
    verdict = (
        check(stage, owner, mark=mark, answers=[*served, last], credit_nanos=credit)
        if (not dollars.is_refused(last))
        else check(stage, owner, mark=mark, answers=served, credit_nanos=credit)
    )
    assert verdict.problems == {}
    spent = credit - stage.ask("balance", owner)
    figure(
        "a dollar", bounded=is_bounded, budget=is_budget, spent_nanos=spent, served=len(served), refused=len(refused),
        took_s=round(time.monotonic() - began, 1), seed=seed,
    )  # fmt: skip
    assert spent <= USD
    assert {answer.status for answer in served} <= {200, 503}  # 503: too busy to trust a late answer
    assert refused and served
    needed = HOLD_NANOS if is_bounded else 64 * 100_000 + 100_000
    assert max(dollars.left_nanos(answer) for answer in refused) < needed, "refused although there was money"
    assert dollars.is_refused(last) or dollars.left_nanos(last) >= 0
    assert not (dollars.is_refused(last) and USD - spent > HOLD_NANOS), "money is left, and nobody gets it"
