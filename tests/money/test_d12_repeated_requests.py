"""D12: whatever dies between the answer and its keeping, the same request sent again is one charge at most."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.asking import Answer, Caller, caller
from tests.money.checker import records_of
from tests.money.stage import USD, Stage

SLOW = {"chunks": 6, "chunk_delay_ms": 150}


class Customer:
    """An organization that sends the same thing again and again."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.owner, self.key = stage.found(USD)

    def asking(self) -> Any:
        return caller(self.stage, self.key)  # type: ignore[arg-type]  # it has an `api`, as installations do

    async def ask(self, asking: Caller, key: str, *, stream: bool = True, **fields: Any) -> Answer:
        asking._headers = {**asking._headers, "idempotency-key": key}
        return await asking.ask("truth-echo", "a b c", stream=stream, **fields)

    def end_lease(self) -> None:
        """As if LEASE_MS had passed: what a retry would wait for."""
        with self.stage.store() as store:
            for name in store.keys(f"crun:{{{self.owner}}}:idempotency:*"):
                if store.type(name) == b"hash":
                    store.hset(name, "lease", 1)

    def records(self) -> list[Any]:
        self.stage.settle()
        return records_of(self.stage, self.owner)

    def costs(self) -> list[int]:
        return [int(record["cost_nanos"]) for record in self.records()]


@pytest.fixture
def customer(stage: Stage) -> Iterator[Customer]:
    shipper = stage.shipper()
    yield Customer(stage)
    stage.kill(shipper)


def ask_dying(
    customer: Customer, point: str, *, patiently: bool = False, **fields: Any
) -> tuple[Answer, Answer, Answer]:
    """Ask a worker that dies at the point, then twice another one, which finds a lost claim or waits until it is."""
    worker = customer.stage.worker(point)

    async def first() -> Answer:
        async with customer.asking() as asking:
            return await customer.ask(asking, "order 17", **fields)

    async def again() -> list[Answer]:
        async with customer.asking() as asking:
            return [await customer.ask(asking, "order 17", **fields) for _ in range(2)]

    died = asyncio.run(first())
    worker.join(20)
    assert worker.exitcode == 137, f"{point} was not reached"
    customer.stage.settle()
    if not patiently:
        customer.end_lease()
    other = customer.stage.worker()
    second, third = asyncio.run(again())
    customer.stage.kill(other, signal.SIGTERM)
    return died, second, third


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("point", "stream"), [("P8", False), ("P17", True), ("P17", False)])
def test_a_worker_killed_between_answer_and_keeping_is_one_charge_and_the_retry_is_told(
    customer: Customer, point: str, stream: bool
) -> None:
    """D12: the record is closed, the answer gone with its worker; the retry gets the receipt and no second charge."""
    died, *retries = ask_dying(customer, point, patiently=point == "P8", stream=stream)
    assert not died.is_whole
    (cost,) = customer.costs()
    assert cost > 0
    for refused in retries:
        assert (refused.status, refused.error["code"]) == (409, "idempotency_answer_lost")
        assert refused.headers["x-crun-generation-id"] == customer.records()[0]["request_id"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("point", "stream"), [("P3", True), ("P4", False)])
def test_a_worker_killed_before_any_answer_cost_nothing_and_the_retry_is_done_once(
    customer: Customer, point: str, stream: bool
) -> None:
    """D12: what is known to have cost nothing is done again, and what comes after that is its repetition."""
    died, second, third = ask_dying(customer, point, stream=stream)
    assert died.status == 0
    assert second.is_whole and third.body == second.body
    assert third.headers["x-crun-idempotent-replay"] == "true"
    assert sorted(cost > 0 for cost in customer.costs()) == [False, True]


@pytest.mark.timeout(120)
def test_a_worker_killed_before_its_journal_knows_the_request_is_never_a_second_charge(customer: Customer) -> None:
    """D12: nothing tells that it cost nothing, so it is refused."""
    died, *retries = ask_dying(customer, "P2")
    assert died.status == 0
    assert {(refused.status, refused.error["code"]) for refused in retries} == {(409, "idempotency_answer_lost")}
    assert customer.costs() == []


@pytest.mark.timeout(180)
def test_50_twins_and_a_worker_killed_among_them_are_one_charge(customer: Customer) -> None:
    """D12: SIGKILL of the worker that has the request while the others wait for it; then all of them ask again."""
    stage = customer.stage
    before = stage.truth.last_number()
    fields: dict[str, Any] = {"sandbox": SLOW}

    async def storm(asking: Caller) -> list[Answer]:
        doomed = stage.worker()
        calls = [asyncio.create_task(customer.ask(asking, "order 17", **fields))]
        while not stage.truth.entries_since(before):  # noqa: ASYNC110 - the log is a file
            await asyncio.sleep(0.01)
        stage.worker()
        calls += [asyncio.create_task(customer.ask(asking, "order 17", **fields)) for _ in range(49)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(stage.kill, doomed)
        return list(await asyncio.gather(*calls))

    async def all_of_it() -> list[Answer]:
        async with customer.asking() as asking:
            died = await storm(asking)
            again = await asyncio.gather(*(customer.ask(asking, "order 17", **fields) for _ in range(50)))
            return [*died, *again]

    answers = asyncio.run(all_of_it())
    assert sum(cost > 0 for cost in customer.costs()) == 1
    assert len({answer.body for answer in answers if answer.is_whole}) <= 1
    refused = [answer for answer in answers if answer.status not in (0, 200)]
    assert {answer.error["code"] for answer in refused} <= {"idempotency_answer_lost", "idempotency_in_progress"}
    assert len(answers) == 100 and all(answer.status for answer in answers[50:])


@pytest.mark.timeout(120)
def test_50_twins_through_two_workers_are_one_charge_and_one_answer(customer: Customer) -> None:
    """D12: 1 charge; another body is an error."""
    stage = customer.stage
    stage.worker(), stage.worker()

    async def twins() -> list[Answer]:
        async with customer.asking() as asking:
            calls = [customer.ask(asking, "order 17", sandbox=SLOW) for _ in range(50)]
            return [*await asyncio.gather(*calls), await customer.ask(asking, "order 17", max_tokens=7)]

    *answers, other = asyncio.run(twins())
    assert all(answer.is_whole for answer in answers)
    assert len({answer.body for answer in answers}) == 1
    assert len(customer.costs()) == 1
    assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")
