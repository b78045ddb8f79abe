"""Redis emptied, killed or frozen under load: nobody is blamed, nothing is lost, and it goes on within seconds."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from apps.core.ids import new_id
from tests.acceptance.asking import Answer, Caller, ask_until, caller
from tests.acceptance.scale import within
from tests.money import dollars
from tests.money.checker import COME_BACK, check
from tests.money.soaking import figure, is_soak, seed_of_this_run, sized
from tests.money.stage import USD, Stage
from tests.money.trials import CREDIT, come_to_rest

FROZEN_S = sized(2, 10) if is_soak else 2
AWAY_S = sized(1, 5) if is_soak else 1
STORM_S = sized(3, 60) if is_soak else 3
BACK_WITHIN_S = 5.0
AT_ONCE = 12
Fault = Callable[[Stage, random.Random], Awaitable[None]]


async def emptied(stage: Stage, chance: random.Random) -> None:
    """FLUSHALL, again and again."""
    until = time.monotonic() + STORM_S
    while time.monotonic() < until:
        with stage.store() as client:
            client.flushall()
        await asyncio.sleep(chance.random())


async def killed(stage: Stage, chance: random.Random) -> None:
    stage.signal_valkey(signal.SIGKILL)
    await asyncio.sleep(AWAY_S)
    stage.start_valkey()  # from the main thread: it ends with the thread that started it


async def frozen(stage: Stage, chance: random.Random) -> None:
    stage.signal_valkey(signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S)
    stage.signal_valkey(signal.SIGCONT)


async def spend_a_dollar(poor: Caller, stop: asyncio.Event) -> list[Answer]:
    """Streams of somebody whose money runs out meanwhile."""
    answers = []
    while not stop.is_set():
        tasks = [poor.ask(dollars.DEAR, "a b c", stream=True, sandbox={"chunks": 9}, max_tokens=10) for _ in range(4)]
        answers += await asyncio.gather(*tasks)
        await asyncio.sleep(0.05)
    return answers


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", [emptied, killed, frozen])
def test_nobody_is_blamed_and_nothing_is_lost_when_redis_is(stage: Stage, fault: Fault) -> None:
    """D3, D29: under load; who has money is served or told to come back, who has a dollar spends no more than it."""
    seed = seed_of_this_run()
    rich, rich_key = stage.found(CREDIT)
    poor, poor_key = stage.found(USD)
    mark = (new_id("req"), stage.truth.last_number())
    workers = [stage.worker() for _ in range(2)]
    shipper = stage.shipper()

    async def storm() -> tuple[list[Answer], list[Answer], float]:
        stop = asyncio.Event()
        async with caller(stage, rich_key) as asking, caller(stage, poor_key) as spending:  # type: ignore[arg-type]  # it has an `api`
            first = await asking.ask("truth-echo", "a b c")
            load = asyncio.create_task(ask_until(asking, stop, at_once=AT_ONCE, pause_s=0.01, max_tokens=50))
            spent = asyncio.create_task(spend_a_dollar(spending, stop))
            await asyncio.sleep(0.3)
            await fault(stage, random.Random(seed))
            back = time.monotonic()
            tried = []
            while not (tried and tried[-1].is_whole):
                tried.append(await asking.ask("truth-echo", "a b c", max_tokens=5))
                assert time.monotonic() < back + 30, f"not served again: {tried[-1]}"
            away_s = time.monotonic() - back
            await asyncio.sleep(0.5)
            stop.set()
            everything = [*await load, *tried]
            lost, last = await come_to_rest(stage, rich, asking)
            assert lost == 0
            return [first, *everything, last.result()], await spent, away_s

    answers, spending, away_s = asyncio.run(storm())
    for process in (shipper, *workers):
        stage.kill(process)
    stage.settle()
    came_back = sum(
        (answer.status, answer.error.get("code")) == COME_BACK for answer in answers if answer.status != 200
    )
    figure(
        f"Redis {fault.__name__}", requests=len(answers), told_to_come_back=came_back, back_after_s=round(away_s, 2),
        seed=seed,
    )  # fmt: skip
    assert answers[0].is_whole
    assert Counter(answer.status for answer in answers if answer.status not in (200, 503)) == {}
    assert away_s < within(BACK_WITHIN_S)
    own = {answer.request_id for answer in spending}
    everyone = check(stage, rich, mark=mark, answers=answers, credit_nanos=CREDIT, others=own)
    assert everyone.problems == {}
    served = [answer for answer in spending if not dollars.is_refused(answer)]
    assert {answer.status for answer in served} <= {200, 503}
    verdict = check(
        stage, poor, mark=mark, answers=served, credit_nanos=USD, others={answer.request_id for answer in answers}
    )
    assert verdict.problems == {}
    assert stage.ask("balance", poor) >= 0
