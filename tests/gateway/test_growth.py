"""A stream without max_tokens holds little, grows ahead of what it delivers, and ends where the money ends."""

import asyncio
from typing import Any

import pytest
import tiktoken

from apps.billing.admission import Admitted
from apps.billing.holding import FIRST_OUTPUT_TOKENS
from apps.billing.journals import read_journals
from apps.core.errors import Unavailable
from apps.core.limits import Limits
from apps.gateway.metering.counting import TOKENS, measure_of
from apps.gateway.metering.growth import OutputBound
from apps.usage.contracts import RequestOpened, RequestProgress
from tests.factories import closed, offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.gateway.storms import demand
from tests.gateway.test_money import USD, Till, funded, short_connections, till

__all__ = ["funded", "short_connections", "till"]
pytestmark = pytest.mark.asyncio
CHAT = "/api/v1/chat/completions"
MONEY = "crun:{org_1}:money"
OUTPUT_NANOS = 600
"""Of a token of output; input costs 150."""


def long_model(bench: Bench, **changes: Any) -> None:
    values = {"id": "long", "max_output_tokens": 100_000, "targets": (bench.target("sandbox-echo"),)}
    bench.models["long"] = offered(**(values | changes))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


def body(chunks: int, **fields: Any) -> dict[str, Any]:
    script = {"chunks": chunks, **fields.pop("sandbox", {})}
    message = {"role": "user", "content": "one two three"}
    return {"model": "long", "stream": True, "messages": [message], "sandbox": script, **fields}


def opened(bench: Bench, call: Call) -> RequestOpened:
    (found,) = [
        entry for entry in bench.journal()
        if isinstance(entry, RequestOpened) and entry.request_id == call.request_id
    ]  # fmt: skip
    return found


def holds(bench: Bench, call: Call) -> list[int]:
    return [
        entry.hold_nanos for entry in bench.journal()
        if isinstance(entry, RequestProgress) and entry.request_id == call.request_id and entry.hold_nanos
    ]  # fmt: skip


async def test_a_long_stream_begins_with_a_small_hold_that_grows(bench: Bench, empty_store: Any) -> None:
    long_model(bench)
    call = await bench.call(CHAT, body(3_000))
    assert call.events[-1] == "[DONE]"
    first, record = opened(bench, call).hold_nanos or 0, bench.record(call)
    assert FIRST_OUTPUT_TOKENS * OUTPUT_NANOS < first < (FIRST_OUTPUT_TOKENS + 200) * OUTPUT_NANOS
    assert record.tokens.output == 3_000 and record.overage_nanos == 0
    assert first < record.cost_nanos <= (record.opened.hold_nanos or 0)
    grown = holds(bench, call)
    assert grown == sorted(grown) and len(set(grown)) > 2
    await bench.runtime.reservations.drain()
    money = {name: int(value) for name, value in empty_store.hgetall(MONEY).items() if name != b"generation"}
    assert (money[b"held"], money[b"balance"]) == (0, 10**15 - record.cost_nanos)


async def test_with_max_tokens_nothing_grows(bench: Bench) -> None:
    long_model(bench)
    call = await bench.call(CHAT, body(3_000, max_tokens=5_000))
    assert call.events[-1] == "[DONE]" and holds(bench, call) == []
    assert (opened(bench, call).hold_nanos or 0) >= 5_000 * OUTPUT_NANOS


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"key_limits": Limits(budget_nanos=4_000_000)}, "key_spend_limit_exceeded"),
        ({"project_limits": Limits(budget_nanos=4_000_000)}, "project_spend_limit_exceeded"),
        ({"organization_limits": Limits(budget_nanos=4_000_000)}, "organization_spend_limit_exceeded"),
        ({}, "credit_balance_exhausted"),
    ],
)
async def test_a_stream_ends_where_the_money_ends(
    bench: Bench, empty_store: Any, limits: dict[str, Any], code: str
) -> None:
    """6 666 tokens of output would fit; counting with the margin for other tokenizers allows at least a third of it."""
    long_model(bench)
    if not limits:
        await bench.chat("base")
        await bench.runtime.reservations.drain()
        empty_store.hset(MONEY, "balance", 4_000_000)
    bench.limit(**limits)
    call = await bench.call(CHAT, body(20_000, sandbox={"chunk_delay_ms": 1}))
    assert call.status == 200
    last = call.events[-1]
    assert last["error"]["code"] == code and last["error"]["type"] == "insufficient_quota"
    delivered = sum(1 for event in call.events[:-1] if event["choices"] and event["choices"][0]["delta"].get("content"))
    record = bench.record(call)
    assert (record.outcome, record.error_code, record.estimated) == ("failed", code, True)
    assert record.tokens.output == delivered > 2_000
    assert record.overage_nanos == 0
    assert record.cost_nanos <= (record.opened.hold_nanos or 0) <= 4_000_000
    truth = await bench.truth_of(call)
    assert truth.outcome != "complete" and truth.tokens < 20_000
    await bench.runtime.reservations.drain()
    assert int(empty_store.hget(MONEY, "held")) == 0


async def test_usage_in_every_chunk_does_not_end_the_growth(bench: Bench) -> None:
    """What was told so far is no end: without `finish_reason` the output goes on, and must be held for."""
    long_model(bench, targets=(bench.target("sandbox-fault-usage-every-chunk"),))
    bench.limit(key_limits=Limits(budget_nanos=3_000_000))
    call = await bench.call(CHAT, body(20_000))
    assert call.events[-1]["error"]["code"] == "key_spend_limit_exceeded"
    delivered = sum(1 for event in call.events[:-1] if event["choices"] and event["choices"][0]["delta"].get("content"))
    record = bench.record(call)
    assert (record.outcome, record.estimated, record.overage_nanos) == ("failed", False, 0)
    assert record.tokens.output == delivered > 1_000  # as told with what was delivered, not with what was kept back
    assert record.cost_nanos <= (record.opened.hold_nanos or 0) <= 3_000_000


async def test_usage_in_every_chunk_is_billed_as_told_last(bench: Bench) -> None:
    long_model(bench, targets=(bench.target("sandbox-fault-usage-every-chunk"),))
    call = await bench.call(CHAT, body(3_000))
    record = bench.record(call)
    assert call.events[-1] == "[DONE]" and len(holds(bench, call)) > 2
    assert (record.tokens.output, record.overage_nanos) == (3_000, 0)


async def test_many_streams_share_a_budget_to_its_end_and_never_pass_it(bench: Bench, empty_store: Any) -> None:
    long_model(bench)
    budget = 20_000_000
    bench.limit(key_limits=Limits(budget_nanos=budget))
    calls = await asyncio.gather(*(bench.call(CHAT, body(2_000)) for _ in range(40)))
    await bench.runtime.reservations.drain()
    served = [call for call in calls if call.status == 200]
    records = [bench.record(call) for call in served]
    spent = sum(record.cost_nanos for record in records)
    assert spent <= budget
    assert sum(record.overage_nanos for record in records) == 0
    assert {call.status for call in calls} == {200, 429}
    ended = {call.events[-1] if call.events[-1] == "[DONE]" else call.events[-1]["error"]["code"] for call in served}
    assert ended <= {"[DONE]", "key_spend_limit_exceeded"}
    assert int(empty_store.hget("crun:{org_1}:spend", "k:key_1|lifetime|0")) == spent
    one_hold = (FIRST_OUTPUT_TOKENS + 400) * OUTPUT_NANOS
    again = await bench.call(CHAT, body(10))
    assert again.status == 200 or budget - spent < one_hold


async def test_reasoning_that_nobody_sees_is_held_for_before_it_is_billed(bench: Bench) -> None:
    long_model(bench)
    call = await bench.call(CHAT, body(20, sandbox={"reasoning_tokens": 9_000}))
    record = bench.record(call)
    assert record.tokens.reasoning == 9_000 and record.overage_nanos == 0
    assert record.cost_nanos == record.tokens.input * 150 + record.tokens.all_output * OUTPUT_NANOS


async def test_reasoning_beyond_the_money_is_not_billed(bench: Bench) -> None:
    long_model(bench)
    bench.limit(key_limits=Limits(budget_nanos=3_000_000))
    record = bench.record(await bench.call(CHAT, body(20, sandbox={"reasoning_tokens": 9_000})))
    assert record.cost_nanos == record.opened.hold_nanos == 3_000_000
    assert record.overage_nanos > 0


async def test_a_stream_waits_for_a_store_that_comes_back(bench: Bench) -> None:
    long_model(bench)
    call = bench.start(CHAT, body(3_000, sandbox={"chunk_delay_ms": 1}))
    await call.until(lambda seen: len(seen.sent) > 20)
    bench.runtime.store._retry_at = asyncio.get_running_loop().time() + 1.5  # as after a failure
    assert call.task is not None
    async with asyncio.timeout(20):
        await call.task
    assert call.events[-1] == "[DONE]" and bench.record(call).overage_nanos == 0


async def test_a_stream_ends_when_the_store_stays_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.admission.reservations.GROW_PATIENCE_S", 0.3)
    long_model(bench)
    call = bench.start(CHAT, body(30_000, sandbox={"chunk_delay_ms": 1}))
    await call.until(lambda seen: len(seen.sent) > 20)
    bench.runtime.store._retry_at = asyncio.get_running_loop().time() + 60
    assert call.task is not None
    async with asyncio.timeout(20):
        await call.task
    assert call.events[-1]["error"]["code"] == "store_unavailable"
    record = bench.record(call)
    assert record.cost_nanos <= (record.opened.hold_nanos or 0)
    bench.runtime.store._retry_at = 0.0


async def test_no_budget_is_left_unused_because_of_how_long_the_text_is(bench: Bench) -> None:
    """A model that counts as we do: at least three quarters of the money can be delivered, although a word has many
    bytes."""
    long_model(bench, tokenizer="o200k_base")
    bench.limit(key_limits=Limits(budget_nanos=4_000_000))
    call = await bench.call(CHAT, body(20_000))
    assert bench.record(call).tokens.output > 0.75 * 4_000_000 / OUTPUT_NANOS


@pytest.mark.parametrize(
    "text", ["ordinary words of a text. ", "1 2 3 45 678 ", "你好世界，天气", "😀🎉🔥", "a\n\n\tb{};"]
)
async def test_the_bound_on_output_is_never_below_a_count_of_it(text: str) -> None:
    bound = OutputBound(measure_of(offered(tokenizer="o200k_base")), 1)
    await TOKENS.load(measure_of(offered()))
    whole = TOKENS.count_now(text * 200, measure_of(offered()))
    for piece in [text] * 200:
        bound.add(piece)
    assert bound.tokens >= whole
    assert bound.count(least=1)
    assert whole <= bound.tokens <= 1.6 * whole + 20


async def test_a_panic_of_the_tokenizer_is_out_of_reach() -> None:
    """Unsliced, this text overflows the stack of the library's splitter."""
    measure = measure_of(offered())
    assert await TOKENS.count(" " * 1_000_000, measure) is not None
    assert tiktoken.__version__


@pytest.mark.django_db(transaction=True)
async def test_a_grown_hold_outlives_an_emptied_store(till: Till, empty_store: Any) -> None:
    """What was granted stands in the journal before it is used, so a rebuild cannot give it to somebody else."""
    worker, other = till.workers
    wanted = demand(till.owner, USD // 4)
    answer = await worker.reservations.reserve(wanted)
    assert isinstance(answer, Admitted)
    entry = _open(worker, wanted, answer)

    def note(nanos: int) -> bool:
        return worker.journal.checkpoint(RequestProgress(wanted.request_id, 5, nanos))

    grown = await worker.reservations.grow(wanted, wanted_nanos=USD * 3 // 4, tokens=10, note=note)
    assert grown.hold_nanos == USD * 3 // 4 and grown.lack is None
    view = read_journals(till.journals, [till.owner])[till.owner]
    assert view.opened[wanted.request_id].hold_nanos == USD * 3 // 4
    empty_store.flushdb()
    await other.request(demand(till.owner, USD // 2), cost=lambda hold: hold)
    assert [refused.what for refused in other.refused] == ["balance"]
    assert int(till.money(empty_store)["held"]) == USD * 3 // 4
    more = await worker.reservations.grow(wanted, wanted_nanos=2 * USD, tokens=10, note=note)
    assert more.hold_nanos == USD and more.lack is not None and more.lack.what == "balance"
    _close(worker, entry, USD)
    await till.settled()
    till.check(empty_store)


@pytest.mark.django_db(transaction=True)
async def test_recovery_bills_no_more_than_the_grown_hold(till: Till, empty_store: Any) -> None:
    worker = till.workers.pop()
    wanted = demand(till.owner, 10_000)
    answer = await worker.reservations.reserve(wanted)
    assert isinstance(answer, Admitted)
    _open(worker, wanted, answer)

    def note(nanos: int) -> bool:
        return worker.journal.checkpoint(RequestProgress(wanted.request_id, 50, nanos))

    await worker.reservations.grow(wanted, wanted_nanos=20_000, tokens=10, note=note)
    worker.journal.close()
    await till.ship()
    worker.journal.close = lambda: None  # type: ignore[method-assign]  # closed above
    money = till.money(empty_store)
    assert (int(money["balance"]), int(money["held"])) == (USD - 20_000, 0)  # 10 x 150 + 50 x 600 would be 31 500


@pytest.mark.django_db(transaction=True)
async def test_a_hold_that_a_rebuild_did_not_know_is_told_before_it_grows(till: Till, empty_store: Any) -> None:
    worker, other = till.workers
    await worker.request(demand(till.owner, 1), cost=lambda hold: 0)
    wanted = demand(till.owner, 10_000)
    answer = await worker.reservations.reserve(wanted)
    assert isinstance(answer, Admitted)  # and no `open` in any journal of this machine
    empty_store.flushdb()
    await other.request(demand(till.owner, 1), cost=lambda hold: 0)
    await other.reservations.drain()
    grown = await worker.reservations.grow(wanted, wanted_nanos=30_000, tokens=1, note=lambda nanos: True)
    assert grown.hold_nanos == 30_000 and int(till.money(empty_store)["held"]) == 30_000
    worker.reservations.release(wanted)
    await till.settled()
    till.check(empty_store)


@pytest.mark.django_db(transaction=True)
async def test_a_rebuild_that_knew_a_smaller_hold_learns_how_far_it_had_grown(till: Till, empty_store: Any) -> None:
    """As after a rebuild on another machine, which cannot read our journal."""
    worker, other = till.workers
    await worker.request(demand(till.owner, 1), cost=lambda hold: 0)
    wanted = demand(till.owner, 10_000)
    answer = await worker.reservations.reserve(wanted)
    assert isinstance(answer, Admitted)
    entry = _open(worker, wanted, answer)
    await worker.reservations.grow(wanted, wanted_nanos=30_000, tokens=1, note=lambda nanos: True)
    empty_store.flushdb()
    await other.request(demand(till.owner, 1), cost=lambda hold: 0)
    await other.reservations.drain()
    assert int(till.money(empty_store)["held"]) == 10_000
    worker.reservations.renew()  # learns that the money was counted anew, and says what it holds
    await asyncio.sleep(0.05)
    assert int(till.money(empty_store)["held"]) == 30_000
    _close(worker, entry, 25_000)
    await till.settled()
    till.check(empty_store)


async def test_an_answer_that_comes_too_late_is_not_used(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebuild that waited long enough for the journal may have given the money to somebody else."""
    monkeypatch.setattr("apps.gateway.admission.reservations.GROW_PATIENCE_S", 0.2)
    noted: list[int] = []
    wanted = demand("org_1", 1_000)
    assert isinstance(await bench.runtime.reservations.reserve(wanted), Admitted)
    monkeypatch.setattr("apps.gateway.admission.reservations.UNOPENED_S", -1.0)
    with pytest.raises(Unavailable):
        await bench.runtime.reservations.grow(
            wanted, wanted_nanos=2_000, tokens=1, note=lambda nanos: noted.append(nanos) is None
        )
    assert noted == []
    bench.runtime.reservations.release(wanted)
    await bench.runtime.reservations.drain()
    assert int(empty_store.hget(MONEY, "held")) == 0


async def test_a_hold_that_cannot_be_written_down_is_not_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.admission.reservations.GROW_PATIENCE_S", 0.2)
    long_model(bench)
    call = bench.start(CHAT, body(30_000, sandbox={"chunk_delay_ms": 1}))
    await call.until(lambda seen: len(seen.sent) > 20)
    monkeypatch.setattr(bench.runtime.journal, "checkpoint", lambda entry: False)
    assert call.task is not None
    async with asyncio.timeout(20):
        await call.task
    assert call.events[-1]["error"]["code"] == "store_unavailable"
    record = bench.record(call)
    assert record.cost_nanos <= (record.opened.hold_nanos or 0) <= (holds(bench, call) or [2_000_000])[-1]


def _open(worker: Any, wanted: Any, answer: Admitted) -> Any:
    entry = RequestOpened(
        request_id=wanted.request_id, organization_id=wanted.organization_id, project_id="proj_1", key_id="key_1",
        model="bench-model", provider="local", upstream_model="gpt-x", streamed=True, price=worker.price,
        input_estimate=10, hold_nanos=answer.hold_nanos,
    )  # fmt: skip
    worker.journal.open_request(entry)
    return entry


def _close(worker: Any, entry: Any, cost: int) -> None:
    end = closed(entry, cost_nanos=cost)
    worker.journal.close_request(end)
    worker.ended.append(end)
    worker.reservations.settle(end)
