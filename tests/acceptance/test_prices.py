"""A price or a model that is changed by an import: in force within two seconds, and nothing old is touched."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.acceptance.asking import Answer, Caller, caller
from tests.acceptance.installing import Installation
from tests.acceptance.records import Record, cost_usd, nanos, records_since, rollup_differences, settled_records
from tests.acceptance.scale import figure, within
from tests.acceptance.test_revocation import a_caller_for_each_worker
from tests.acceptance.upstream import PRICE, model

pytestmark = pytest.mark.installation

IN_FORCE_WITHIN_S = 2.0
DEARER = {"input": Decimal("7.000000001"), "output": Decimal("99.999999999")}
SLOW = {"chunks": 60, "chunk_delay_ms": 100}  # 6 s: from before the change to after it


def _document(public: str, **price: Decimal) -> str:
    """The model `public` as it is, with one more price from now on."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    amounts = ", ".join(f'{bucket}: "{amount}"' for bucket, amount in price.items())
    return "models:" + model(public, "sandbox-echo", prices=f'- {{from: "{now}", {amounts}}}' if price else "")


async def _first_at(one: Caller, public: str, *, cost: Decimal | None) -> tuple[float, list[Answer]]:
    """Ask until an answer costs `cost` USD, or, without it, until there is one; when it was begun, and all answers."""
    answers: list[Answer] = []
    while len(answers) < 2_000:
        began = time.monotonic()
        answers.append(await one.ask(public, "one two three"))
        if answers[-1].is_whole and (cost is None or Decimal(answers[-1].headers["x-crun-cost"]) == cost):
            return began, answers
        await asyncio.sleep(0.01)
    raise AssertionError(f"never seen: {answers[-1]}")


def _cost(price: Mapping[str, Decimal]) -> Decimal:
    """Of three tokens in and three out."""
    return ((price["input"] + price["output"]) * 3 / 1_000_000).quantize(Decimal("0.000000001"))


async def _seen_by_each_worker(
    installation: Installation, document: str, public: str, *, cost: Decimal | None
) -> tuple[list[float], list[Answer]]:
    """Import while each worker is being asked: how late each followed, in s, and all answers."""
    async with AsyncExitStack() as stack:
        callers = await a_caller_for_each_worker(stack, installation, installation.api_key)
        asking = [asyncio.create_task(_first_at(one, public, cost=cost)) for one in callers.values()]
        await asyncio.to_thread(installation.import_catalog, document)
        imported_at = time.monotonic()
        seen = [await task for task in asking]
        return [at - imported_at for at, _ in seen], [answer for _, answers in seen for answer in answers]


def test_a_new_price_counts_from_the_next_request_on_and_old_records_are_untouched(
    installation: Installation, mark: tuple[str, int]
) -> None:
    async def before() -> list[Answer]:
        async with caller(installation) as asking:
            _, answers = await _first_at(asking, "truth-repriced", cost=None)
            return answers[-1:]

    old_answers = asyncio.run(before())
    old = settled_records(installation, mark[0], [answer.request_id for answer in old_answers])
    document = _document("truth-repriced", **DEARER)
    late_s, answers = asyncio.run(_seen_by_each_worker(installation, document, "truth-repriced", cost=_cost(DEARER)))
    figure("new price", f"in force in each worker {[f'{late:.2f} s' for late in late_s]} after the import ended")
    assert len(late_s) == 2
    assert max(late_s) < within(IN_FORCE_WITHIN_S)
    records = settled_records(installation, mark[0], [answer.request_id for answer in answers])
    assert {name: records[name].row for name in old} == {name: record.row for name, record in old.items()}
    _check_costs([records[answer.request_id] for answer in [*old_answers, *answers]])
    assert rollup_differences(installation) == []


def _check_costs(records: list[Record]) -> None:
    """Each at the price of its version; the dearer one is a version of its own, later than the other."""
    by_cost: dict[int, set[int]] = {}
    for record in records:
        by_cost.setdefault(record.cost_nanos, set()).add(record.price_version_id)
    [old_version], [new_version] = by_cost.pop(nanos(_cost(PRICE))), by_cost.pop(nanos(_cost(DEARER)))
    assert by_cost == {}
    assert new_version > old_version


def test_a_request_is_rated_at_the_price_of_its_beginning_however_late_it_ends(
    installation: Installation, mark: tuple[str, int]
) -> None:
    async def ask_across_the_change(give: Callable[[str], None]) -> tuple[Answer, Answer]:
        async with caller(installation) as asking:
            await _first_at(asking, "truth-long", cost=None)
            stream = asyncio.create_task(asking.ask("truth-long", "a b c", stream=True, sandbox=SLOW))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(give, _document("truth-long", **DEARER))
            _, answers = await _first_at(asking, "truth-long", cost=_cost(DEARER))
            assert not stream.done()
            return await stream, answers[-1]

    with installation.starting_import() as give:
        stream, later = asyncio.run(ask_across_the_change(give))
    records = settled_records(installation, mark[0], [stream.request_id, later.request_id])
    record = records[stream.request_id]
    assert stream.is_whole
    assert record.output_tokens == SLOW["chunks"]
    assert record.cost_nanos == nanos(cost_usd(record, PRICE))
    assert record.price_version_id < records[later.request_id].price_version_id


def test_a_new_model_is_on_offer_in_every_worker_within_two_seconds_without_a_restart(
    installation: Installation, mark: tuple[str, int]
) -> None:
    workers = installation.workers()
    late_s, answers = asyncio.run(_seen_by_each_worker(installation, _document("truth-new"), "truth-new", cost=None))
    figure("new model", f"on offer in each worker {[f'{late:.2f} s' for late in late_s]} after the import ended")
    assert max(late_s) < within(IN_FORCE_WITHIN_S)
    assert installation.workers() == workers
    refused = [answer for answer in answers if not answer.is_whole]
    assert {(answer.status, answer.error["code"]) for answer in refused} == {(404, "model_not_found")}
    records = records_since(installation, mark[0])
    assert not {answer.request_id for answer in refused} & set(records)
