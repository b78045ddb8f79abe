"""Crash trials: a process dies at a named place or at random, with several requests under way; another goes on."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from apps.core.crash_points import EXIT_CODE
from apps.core.ids import new_id
from tests.acceptance.asking import Answer, Caller, caller
from tests.acceptance.upstream import fault_model
from tests.money.checker import Verdict, check, held_by, leased_by
from tests.money.soaking import figure
from tests.money.stage import USD, Stage

CREDIT = 1_000 * USD
AT_ONCE = 6
PATIENCE_S = 30.0
"""How long a busy machine may take to serve one request, or to post the last record."""
TRIES, TRY_S = 4, 8
"""How often requests are sent before a point counts as not reached, and how long each time."""
GATEWAY_POINTS = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P11", "P12", "kill")
"""Where a worker dies; `kill` is SIGKILL from outside at a random moment."""
POSTING_POINTS = ("P9", "P10", "P13", "P14", "P15", "kill")
"""Where whoever ships and posts dies."""
HITS = {"P5": 4, "P6": 4, "P12": 3}
"""Of AT_ONCE requests at least so many come to the point; all of them to any other."""


@dataclass
class Series:
    """Trials with one organization: what was asked, what came back, where processes died."""

    stage: Stage
    chance: random.Random
    owner: str = ""
    key: str = ""
    mark: tuple[str, int] = ("", 0)
    died: Counter[str] = field(default_factory=Counter)
    answers: list["asyncio.Task[Answer]"] = field(default_factory=list)
    unopened: int = 0

    def __post_init__(self) -> None:
        self.owner, self.key = self.stage.found(CREDIT, owner_limits={"concurrency": 10_000})
        self.mark = (new_id("req"), self.stage.truth.last_number())

    def ask(self, asking: Caller, *, fast: bool = False) -> None:
        """Send AT_ONCE requests of several kinds at the same time: three streams that end well are among them."""
        slow = {"chunks": self.chance.randint(6, 12), "chunk_delay_ms": self.chance.choice((1, 2, 4))}
        plain = [("truth-echo", True, {}), ("truth-echo", True, slow), ("truth-echo", True, {"chunks": 6})]
        odd = [fault_model("cut-3"), fault_model("no-usage"), fault_model("error-event-3"), "truth-echo"]
        rest = [("truth-echo", False, {}), *((self.chance.choice(odd), self.chance.random() < 0.7, {}) for _ in "12")]
        if fast:
            plain = [("truth-echo", False, {})] * 3
        for model, stream, script in self.chance.sample([*plain, *rest], AT_ONCE):
            self.answers.append(
                asyncio.create_task(asking.ask(model, "a b c d e", stream=stream, sandbox=script, max_tokens=50))
            )


def points(names: tuple[str, ...], number: int, chance: random.Random) -> Iterator[str]:
    """So many settings of CRUN_CRASH_POINT, all places equally often."""
    places = [names[at % len(names)] for at in range(number)]
    chance.shuffle(places)
    for place in places:
        yield "kill" if place == "kill" else f"{place}:{chance.randint(1, HITS.get(place, AT_ONCE))}"


async def crash_workers(series: Series, settings: list[str]) -> list[Answer]:
    """One worker after the other dies with requests under way, while somebody ships all the time; every answer."""
    shipper = series.stage.shipper()
    async with caller(series.stage, series.key) as asking:  # type: ignore[arg-type]  # it has an `api`, as installations do
        for setting in settings:
            is_killed = setting == "kill"
            worker = series.stage.worker("" if is_killed else setting)
            began = len(series.answers)
            series.ask(asking)
            if is_killed:
                await asyncio.wait(series.answers[began:], return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(series.chance.random() * 0.03)
                series.stage.kill(worker)
            for _ in range(TRIES):
                await asyncio.to_thread(worker.join, TRY_S)
                if worker.exitcode is not None:
                    break
                series.ask(asking)  # a busy machine refuses some with 503: they never came so far
            assert worker.exitcode == (-9 if is_killed else EXIT_CODE), f"{setting} was not reached"
            series.died[setting.partition(":")[0]] += 1
        last = series.stage.worker()
        answers = list(await asyncio.gather(*series.answers))
        series.stage.kill(shipper)
        await at_rest(series, asking)
    series.stage.kill(last)
    return answers


async def crash_posting(series: Series, settings: list[str]) -> list[Answer]:
    """Whoever ships and posts dies again and again, and another one begins; every answer."""
    worker = series.stage.worker()
    async with caller(series.stage, series.key) as asking:  # type: ignore[arg-type]  # as above
        for setting in settings:
            is_killed = setting == "kill"
            began = len(series.answers)
            series.ask(asking, fast=True)
            await asyncio.wait(series.answers[began:])
            dying = series.stage.settling("" if is_killed else setting.partition(":")[0])
            if is_killed:
                await asyncio.sleep(series.chance.random() * 0.03)
                series.stage.kill(dying)
            await asyncio.to_thread(dying.join, 20)
            assert is_killed or dying.exitcode == EXIT_CODE, f"{setting} was not reached"
            series.died[setting.partition(":")[0]] += 1
            if series.chance.random() < 0.3:
                series.stage.settle()
        answers = list(await asyncio.gather(*series.answers))
        await at_rest(series, asking)
    series.stage.kill(worker)
    return answers


async def at_rest(series: Series, asking: Caller) -> None:
    """All is shipped and posted, and nothing is held for long but by workers that died before their journal knew."""
    series.unopened, last = await come_to_rest(series.stage, series.owner, asking)
    series.answers.append(last)
    assert series.unopened <= AT_ONCE * (series.died["P2"] + series.died["kill"])


async def ask_until_served(asking: Caller, *arguments: Any, **fields: Any) -> Answer:
    """Ask again while the answer is 503, as clients do: on a busy machine the store is given up too soon."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = await asking.ask(*arguments, **fields)
        if answer.status != 503 or time.monotonic() > deadline:
            return answer
        await asyncio.sleep(1.0)


def _agree(stage: Stage, owner: str) -> None:
    """Raises AssertionError unless Redis and the ledger come to say the same. Another shipper may still be at work."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        stage.settle()
        money, balance = stage.money(owner), stage.ask("balance", owner)
        counted = (int(money.get("balance", -1)), int(money.get("held", -1)))
        if counted == (balance, 0):
            return
        assert time.monotonic() < deadline, f"Redis counts {counted} (left, held), the ledger {balance}"


async def come_to_rest(stage: Stage, owner: str, asking: Caller) -> tuple[int, "asyncio.Task[Answer]"]:
    """Ship and post everything; then Redis counts as the ledger does, and nothing is held or taken any more.

    A worker that died between its hold in Redis and its journal leaves the hold behind until it expires; nobody but
    the clock can know that it is lost. The clock is moved here, and one more request makes Redis count again. Returns
    how many such holds there were, and that request."""
    await asyncio.to_thread(stage.settle)
    lost = held_by(stage, owner)
    with stage.store() as client:
        for request_id in lost:
            client.zadd(f"crun:{{{owner}}}:expiry", {request_id: 1})
    last = asyncio.create_task(ask_until_served(asking, "truth-echo", "a b c", max_tokens=5))
    await last
    await asyncio.to_thread(_agree, stage, owner)
    assert held_by(stage, owner) == {}, "money is held for nobody"
    left = leased_by(stage, owner)
    assert left <= len(lost), f"{left} places are taken by nobody"
    return len(lost), last


def run(
    stage: Stage, seed: int, number: int, *, places: tuple[str, ...], crash: Callable[..., object], name: str
) -> Verdict:
    """A series of trials and its verdict."""
    chance = random.Random(seed)
    series = Series(stage, chance)
    began = time.monotonic()
    answers: list[Answer] = asyncio.run(crash(series, list(points(places, number, chance))))  # type: ignore[arg-type]
    answers.append(series.answers[-1].result())
    verdict = check(stage, series.owner, mark=series.mark, answers=answers, credit_nanos=CREDIT)
    figure(
        name, crashes=sum(series.died.values()), **{place: series.died[place] for place in places}, verdict=verdict,
        took_s=round(time.monotonic() - began, 1), seed=seed,
    )  # fmt: skip
    return verdict
