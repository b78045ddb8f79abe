"""Each limit holds exactly, all of them or nothing is taken, and the caller is told which one said no."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
import time_machine

from apps.billing.admission import Admitted, Refused, period_starts
from apps.core.ids import new_id
from apps.core.limits import Limits
from apps.gateway.metering.counting import TOKENS, bound_of, measure_of
from apps.gateway.metering.token_usage import ToldUsage
from apps.usage.contracts import TokenCounts
from apps.usage.journal import JournalFull
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench
from tests.gateway.riches import make_rich
from tests.gateway.storms import Worker, demand, running_worker

pytestmark = pytest.mark.asyncio
CHAT = "/api/v1/chat/completions"
ORG = "org_limits"
PREFIX = f"crun:{{{ORG}}}:"


def free(hold: int) -> int:
    return 0


@pytest_asyncio.fixture
async def workers(empty_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Worker]]:
    """Two workers that believe every answer: on a slow machine the last of 500 at once comes late."""
    monkeypatch.setattr("apps.gateway.admission.reservations.UNOPENED_S", 30.0)
    monkeypatch.setattr("apps.core.redis_link.CALL_TIMEOUT_S", 5.0)
    async with (
        running_worker(tmp_path, make_states=make_rich) as one,
        running_worker(tmp_path, make_states=make_rich) as two,
    ):
        yield [one, two]


async def ask(worker: Worker, **changes: Any) -> Admitted | Refused:
    """Reserve and never end."""
    return await worker.reservations.reserve(demand(ORG, 1_000, **changes))


OWNERS = ["key_limits", "project_limits", "organization_limits"]


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize(
    ("limits", "admitted"),
    [
        (Limits(requests_per_minute=37), 37),
        (Limits(tokens_per_minute=379), 37),
        (Limits(requests_per_day=37), 37),
        (Limits(concurrency=37), 37),
        (Limits(budget_nanos=37_999), 37),
    ],
)
async def test_500_at_once_over_two_workers_meet_the_limit_exactly(
    workers: list[Worker], empty_store: Any, owner: str, limits: Limits, admitted: int
) -> None:
    answers = await asyncio.gather(*(ask(random.choice(workers), **{owner: limits}) for _ in range(500)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == admitted
    refusals = {(answer.what, answer.owner) for answer in answers if isinstance(answer, Refused)}
    assert {whose for _, whose in refusals} == {owner.removesuffix("_limits")}
    assert int(empty_store.hget(PREFIX + "money", "held")) == admitted * 1_000


@pytest.mark.parametrize("hours", [1, -1])
async def test_d18_holds_end_by_the_clock_of_the_store_and_not_of_a_worker(
    workers: list[Worker], empty_store: Any, hours: int
) -> None:
    """A worker whose clock is an hour ahead or behind ends nobody's hold, and its own lives as long as all others."""
    limits = Limits(concurrency=10)
    assert isinstance(await ask(workers[0], organization_limits=limits), Admitted)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours)):
        assert isinstance(await ask(workers[1], organization_limits=limits), Admitted)
    assert isinstance(await ask(workers[0], organization_limits=limits), Admitted)
    ends = [at for _, at in empty_store.zrange(PREFIX + "expiry", 0, -1, withscores=True)]
    assert len(ends) == 3
    assert max(ends) - min(ends) < 5_000
    assert int(empty_store.hget(PREFIX + "money", "held")) == 3_000


@pytest.mark.parametrize(
    "second",
    [
        Limits(requests_per_minute=1),
        Limits(tokens_per_minute=19),
        Limits(requests_per_day=1),
        Limits(concurrency=1),
        Limits(budget_nanos=1_999),
    ],
)
async def test_a_refusal_by_one_owner_takes_nothing_from_the_others(
    workers: list[Worker], empty_store: Any, second: Limits
) -> None:
    everything = Limits(
        requests_per_minute=50, tokens_per_minute=500, requests_per_day=50, concurrency=50, budget_nanos=10**9
    )
    limits: dict[str, Any] = {
        "key_limits": everything, "project_limits": everything, "organization_limits": second,
    }  # fmt: skip
    assert isinstance(await ask(workers[0], **limits), Admitted)
    before = contents(empty_store)
    assert isinstance(await ask(workers[0], **limits), Refused)
    assert contents(empty_store) == before


def contents(client: Any) -> dict[bytes, Any]:
    """Everything the store knows of the organization."""
    found: dict[bytes, Any] = {}
    for name in client.keys(PREFIX + "*"):
        kind = client.type(name)
        found[name] = {
            b"hash": client.hgetall,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"string": client.get,
        }[kind](name)
    return found


async def test_the_window_rolls_and_forgets_second_by_second(workers: list[Worker], empty_store: Any) -> None:
    limits = Limits(requests_per_minute=3, tokens_per_minute=1_000)
    for _ in range(3):
        assert isinstance(await ask(workers[0], key_limits=limits), Admitted)
    refused = await ask(workers[0], key_limits=limits)
    assert isinstance(refused, Refused) and 59_000 < refused.retry_ms <= 61_000
    age_window(empty_store, seconds=60 - (second_of(empty_store) - newest(empty_store)))
    second, filled_at = second_of(empty_store), newest(empty_store)
    answer = await ask(workers[0], key_limits=limits)
    if second_of(empty_store) == second == filled_at + 60:  # a request in that second may be less than 60 s old
        assert isinstance(answer, Refused)
    age_window(empty_store, seconds=62)
    admitted = await ask(workers[0], key_limits=limits)
    assert isinstance(admitted, Admitted) and admitted.allowance.requests is not None
    assert admitted.allowance.requests.left == 2
    rate = {name.decode(): int(value) for name, value in empty_store.hgetall(PREFIX + "rate:k:key_1").items()}
    assert rate["requests"] == sum(value for name, value in rate.items() if name[0] == "r" and name[1:].isdigit())


def second_of(client: Any) -> int:
    """The store's clock."""
    return int(client.time()[0])


def newest(client: Any) -> int:
    return int(client.hget(PREFIX + "rate:k:key_1", "last"))


def age_window(client: Any, *, seconds: int) -> None:
    """Move everything in the key's window into the past."""
    name = PREFIX + "rate:k:key_1"
    values = {field.decode(): value for field, value in client.hgetall(name).items()}
    client.delete(name)
    for field, value in values.items():
        if field[1:].isdigit():
            field = field[0] + str(int(field[1:]) - seconds)
        elif field in ("oldest", "last"):
            value = int(value) - seconds
        client.hset(name, field, value)


async def test_a_window_of_many_seconds_keeps_its_sum(workers: list[Worker], empty_store: Any) -> None:
    """Ten requests each four seconds: the oldest leave one by one, and the sum is always that of the buckets."""
    limits = Limits(requests_per_minute=1_000, tokens_per_minute=100_000)
    for _ in range(30):
        await ask(workers[0], key_limits=limits)
        await ask(workers[0], key_limits=limits)
        rate = {name.decode(): int(value) for name, value in empty_store.hgetall(PREFIX + "rate:k:key_1").items()}
        buckets = {int(name[1:]): value for name, value in rate.items() if name[0] == "r" and name[1:].isdigit()}
        assert rate["requests"] == sum(buckets.values())
        assert rate["tokens"] == 10 * rate["requests"]
        assert max(buckets) - min(buckets) <= 60
        age_window(empty_store, seconds=4)


async def test_tokens_are_reserved_and_then_counted_as_used(workers: list[Worker], empty_store: Any) -> None:
    limits = Limits(tokens_per_minute=100)
    worker = workers[0]
    await worker.request(demand(ORG, 1_000, tokens=95, key_limits=limits), cost=free)  # uses 7 + 3 tokens
    await worker.reservations.drain()
    admitted = await ask(worker, tokens=90, key_limits=limits)
    assert isinstance(admitted, Admitted) and admitted.allowance.tokens is not None
    assert admitted.allowance.tokens.left == 0


async def test_leases_end_with_the_request_or_by_themselves_and_can_be_renewed(
    workers: list[Worker], empty_store: Any
) -> None:
    limits = Limits(concurrency=2)
    lease = PREFIX + "lease:k:key_1"
    await workers[0].request(demand(ORG, 1, key_limits=limits), cost=free)
    await workers[0].reservations.drain()
    assert empty_store.zcard(lease) == 0
    first, second = [(await ask(workers[0], key_limits=limits)) for _ in range(2)]
    assert isinstance(first, Admitted) and isinstance(second, Admitted)
    refused = await ask(workers[1], key_limits=limits)
    assert isinstance(refused, Refused) and refused.what == "concurrency" and refused.retry_ms > 0
    for member in empty_store.zrange(lease, 0, -1):
        empty_store.zadd(lease, {member: 1})  # 30 s later
    workers[0].reservations.renew()
    await asyncio.sleep(0.05)
    assert isinstance(await ask(workers[1], key_limits=limits), Refused)
    for member in empty_store.zrange(lease, 0, -1):
        empty_store.zadd(lease, {member: 1})  # and nobody renews
    assert isinstance(await ask(workers[1], key_limits=limits), Admitted)


async def test_many_requests_are_renewed_in_parts_and_those_that_end_meanwhile_are_not(
    workers: list[Worker], empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.gateway.admission.reservations.RENEW_PART", 2)
    worker, limits, lease = workers[0], Limits(concurrency=9), PREFIX + "lease:k:key_1"
    demands = [demand(ORG, 1_000, key_limits=limits) for _ in range(7)]
    for each in demands:
        assert isinstance(await worker.reservations.reserve(each), Admitted)
    for member in empty_store.zrange(lease, 0, -1):
        empty_store.zadd(lease, {member: 1})  # 30 s later
    worker.reservations.renew()
    worker.reservations.release(demands.pop(3))  # while the first part is under way
    running = {each.request_id.encode() for each in demands}
    async with asyncio.timeout(30):
        while set(empty_store.zrangebyscore(lease, 2, "+inf")) != running:  # noqa: ASYNC110 - the store says when
            await asyncio.sleep(0.01)
    await worker.reservations.drain()
    assert set(empty_store.zrange(lease, 0, -1)) == running


async def test_a_running_request_that_a_rebuild_did_not_see_is_held_again(
    workers: list[Worker], empty_store: Any
) -> None:
    running, other = workers
    admitted = await ask(running)
    assert isinstance(admitted, Admitted)
    empty_store.flushdb()
    await ask(other)
    assert int(empty_store.hget(PREFIX + "money", "held")) == 1_000
    await ask(running)  # learns that the money was counted anew
    running.reservations.renew()
    await asyncio.sleep(0.05)
    assert int(empty_store.hget(PREFIX + "money", "held")) == 3_000
    assert empty_store.hlen(PREFIX + "holds") == 3


async def test_scripts_that_the_server_forgot_are_loaded_again(workers: list[Worker], empty_store: Any) -> None:
    assert isinstance(await ask(workers[0]), Admitted)
    for _ in range(20):
        empty_store.script_flush()
        answers = await asyncio.gather(*(ask(workers[0]) for _ in range(10)))
        assert all(isinstance(answer, Admitted) for answer in answers)


async def test_settling_twice_and_giving_up_late_change_nothing(workers: list[Worker], empty_store: Any) -> None:
    worker = workers[0]
    wanted = demand(ORG, 1_000, key_limits=Limits(concurrency=5, requests_per_minute=9))
    await worker.request(wanted, cost=lambda hold: 400)
    await worker.reservations.drain()
    before = contents(empty_store)
    worker.reservations.settle(worker.ended[0])
    worker.reservations.release(wanted)
    await worker.reservations.drain()
    assert contents(empty_store) == before
    assert int(empty_store.hget(PREFIX + "money", "balance")) == 10**15 - 400


async def test_a_settlement_that_the_store_did_not_take_is_tried_again(workers: list[Worker], empty_store: Any) -> None:
    worker = workers[0]
    request = asyncio.create_task(worker.request(demand(ORG, 1_000), lasting_s=0.05, cost=lambda hold: 400))
    while not worker.running:  # noqa: ASYNC110 - it looks from outside
        await asyncio.sleep(0.001)
    worker.reservations._store._retry_at = asyncio.get_running_loop().time() + 0.5  # as after a failure
    await request
    assert worker.reservations.unsettled_requests == 1
    async with asyncio.timeout(10):
        while worker.reservations.unsettled_requests:  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.01)
    money = empty_store.hgetall(PREFIX + "money")
    assert (int(money[b"balance"]), int(money[b"held"])) == (10**15 - 400, 0)


async def test_a_caller_who_leaves_while_asking_holds_nothing(workers: list[Worker], empty_store: Any) -> None:
    await ask(workers[0])
    admitted = 1
    for turns in range(20):
        tasks = [asyncio.create_task(ask(workers[0])) for _ in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        admitted += sum(isinstance(answer, Admitted) for answer in answers)
    await workers[0].reservations.drain()
    assert 200 < admitted < 401
    assert empty_store.hlen(PREFIX + "holds") == admitted
    assert int(empty_store.hget(PREFIX + "money", "held")) == admitted * 1_000


async def test_a_budget_begins_again_at_the_border_of_its_period(workers: list[Worker], empty_store: Any) -> None:
    """The period is that of the request's id: yesterday's requests count yesterday, whenever they are settled."""
    worker = workers[0]
    limits = Limits(budget_nanos=1_000, budget_period="day")
    today = new_id("req")
    yesterday = f"req_{int(today[4:16], 16) - 86_400_000:012x}{today[16:]}"
    await worker.request(demand(ORG, 1_000, request_id=yesterday, key_limits=limits), cost=lambda hold: hold)
    await worker.request(demand(ORG, 1_000, request_id=today, key_limits=limits), cost=lambda hold: hold)
    assert len(worker.ended) == 2
    refused = await ask(worker, key_limits=limits)
    assert isinstance(refused, Refused) and (refused.what, refused.limit, refused.retry_ms) == ("budget", 1_000, 0)
    again = yesterday[:-1] + ("0" if yesterday[-1] != "0" else "1")
    assert isinstance(await ask(worker, request_id=again, key_limits=limits), Refused)
    assert period_starts(yesterday)[0] == period_starts(today)[0] - 86_400


async def test_what_running_requests_hold_may_come_back_so_trying_again_helps(workers: list[Worker]) -> None:
    limits = Limits(budget_nanos=1_500)
    assert isinstance(await ask(workers[0], key_limits=limits), Admitted)
    refused = await ask(workers[0], key_limits=limits)
    assert isinstance(refused, Refused) and refused.retry_ms == 1_000


# --- through the door ------------------------------------------------------------------------------------------------


async def test_answers_tell_what_is_left(bench: Bench) -> None:
    bench.limit(key_limits=Limits(requests_per_minute=3, tokens_per_minute=10_000, budget_nanos=2 * 10**9))
    call = await bench.chat("base", max_tokens=5)
    assert call.status == 200
    assert call.headers["x-ratelimit-limit-requests"] == "3"
    assert call.headers["x-ratelimit-remaining-requests"] == "2"
    assert call.headers["x-ratelimit-limit-tokens"] == "10000"
    assert 9_000 < int(call.headers["x-ratelimit-remaining-tokens"]) < 10_000
    assert call.headers["x-ratelimit-reset-requests"] in ("1m0s", "1m1s")
    assert call.headers["x-crun-budget-remaining"].startswith("1.9999")


async def test_a_rate_limit_is_429_with_a_time_to_come_back(bench: Bench) -> None:
    bench.limit(project_limits=Limits(requests_per_minute=1))
    assert (await bench.chat("base")).status == 200
    call = await bench.chat("base")
    assert (call.status, call.json["error"]["type"]) == (429, "rate_limit_error")
    assert call.json["error"]["code"] == "rate_limit_exceeded"
    assert "this project may have 1 requests per minute" in call.json["error"]["message"]
    assert 55 <= int(call.headers["retry-after"]) <= 61
    assert 55_000 <= int(call.headers["retry-after-ms"]) <= 61_000
    assert call.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(bench.truth()) == 1


@pytest.mark.parametrize(
    ("owner", "code"),
    [
        ("key", "key_spend_limit_exceeded"),
        ("project", "project_spend_limit_exceeded"),
        ("organization", "organization_spend_limit_exceeded"),
    ],
)
async def test_a_spent_budget_is_429_that_says_whose_and_no_upstream_is_called(
    bench: Bench, owner: str, code: str
) -> None:
    bench.limit(**{f"{owner}_limits": Limits(budget_nanos=0)})
    call = await bench.chat("base")
    assert (call.status, call.json["error"]["type"], call.json["error"]["code"]) == (429, "insufficient_quota", code)
    assert call.headers["x-should-retry"] == "false" and "retry-after" not in call.headers
    assert call.headers["x-crun-budget-remaining"] == "0.000000000"
    assert bench.truth() == {} and bench.journal() == []


async def test_an_empty_balance_is_429_credit_balance_exhausted(bench: Bench, empty_store: Any) -> None:
    await bench.chat("base")
    empty_store.hset("crun:{org_1}:money", "balance", 0)
    call = await bench.chat("base")
    assert (call.status, call.json["error"]["code"]) == (429, "credit_balance_exhausted")
    assert call.headers["x-should-retry"] == "false"


async def test_without_max_tokens_an_answer_is_cut_to_what_is_left_instead_of_refused(bench: Bench) -> None:
    body = bench.chat_body("base", "word " * 90)
    measure = measure_of(bench.models["base"])
    await TOKENS.load(measure)
    counted = bound_of(TOKENS.count_now(orjson.dumps(body).decode(), measure), measure)
    input_nanos = (counted + 8) * 150  # 8 for the message
    bench.limit(key_limits=Limits(budget_nanos=input_nanos + 70 * 600))
    call = await bench.call(CHAT, body)
    assert call.status == 200
    choice = call.json["choices"][0]
    assert choice["finish_reason"] == "length"
    assert call.json["usage"]["completion_tokens"] == 70
    record = bench.record(call)
    assert record.cost_nanos <= (record.opened.hold_nanos or 0) <= input_nanos + 70 * 600
    assert record.overage_nanos == 0


async def test_a_max_tokens_that_does_not_fit_is_refused(bench: Bench) -> None:
    bench.limit(key_limits=Limits(budget_nanos=30_000))
    call = await bench.chat("base", max_tokens=100)
    assert (call.status, call.json["error"]["code"]) == (429, "key_spend_limit_exceeded")
    assert (await bench.chat("base", max_tokens=5)).status == 200


async def test_a_request_that_no_minute_can_hold_is_refused_for_good(bench: Bench) -> None:
    bench.limit(key_limits=Limits(tokens_per_minute=150))
    call = await bench.chat("base", "x" * 500)
    assert (call.status, call.json["error"]["code"]) == (429, "request_larger_than_rate_limit")
    assert call.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [True, False])
async def test_without_max_tokens_an_answer_is_cut_to_what_the_minute_has_left(bench: Bench, stream: bool) -> None:
    """The window counts what the earlier ones used, not that each could have used all of it."""
    bench.limit(key_limits=Limits(tokens_per_minute=152))
    calls = []
    for _ in range(5):
        calls.append(await bench.chat("base", "hi", stream=stream))
        await bench.runtime.reservations.drain()
    assert [call.status for call in calls] == [200] * 5
    assert calls[-1].headers["x-ratelimit-remaining-tokens"] == "0"
    assert (await bench.chat("base", "hi", stream=stream, max_tokens=100)).status == 429


async def test_an_upstream_that_claims_too_much_is_paid_from_the_hold_alone(
    bench: Bench, empty_store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "apps.gateway.answers.relay.read_usage", lambda usage, bound: ToldUsage(TokenCounts(input=3, output=50_000))
    )
    bench.limit(key_limits=Limits(budget_nanos=60_000))
    record = bench.record(await bench.chat("base", max_tokens=1))
    assert record.cost_nanos == record.opened.hold_nanos
    assert record.cost_nanos + record.overage_nanos == 3 * 150 + 50_000 * 600
    assert "cost more than its worst case" in caplog.text
    await bench.runtime.reservations.drain()
    assert int(empty_store.hget("crun:{org_1}:spend", "k:key_1|lifetime|0")) == record.cost_nanos <= 60_000


async def test_holds_end_with_every_kind_of_ending(bench: Bench, empty_store: Any) -> None:
    bench.offer("sandbox-fault-stall")
    await bench.chat("base")
    await bench.chat("base", stream=True)
    await bench.chat("sandbox-fault-500")
    left = bench.start(CHAT, bench.chat_body("sandbox-fault-stall", stream=True))
    await asyncio.sleep(0.2)
    assert empty_store.hlen("crun:{org_1}:holds") == 1
    left.leave()
    assert left.task is not None
    await left.task
    await bench.runtime.reservations.drain()
    assert empty_store.hlen("crun:{org_1}:holds") == 0
    spent = sum(entry.cost_nanos for entry in bench.journal() if hasattr(entry, "cost_nanos"))
    assert int(empty_store.hget("crun:{org_1}:money", "balance")) == 10**15 - spent
    assert bench.runtime.reservations.running_requests == 0


async def test_100_requests_through_the_door_never_pass_the_budget(bench: Bench, empty_store: Any) -> None:
    bench.limit(key_limits=Limits(budget_nanos=1_000_000))
    calls = await asyncio.gather(*(bench.chat("base", "a b c " * 10) for _ in range(100)))
    await bench.runtime.reservations.drain()
    spent = sum(bench.record(call).cost_nanos for call in calls if call.status == 200)
    assert {call.status for call in calls} <= {200, 429}
    assert 0 < spent <= 1_000_000
    assert int(empty_store.hget("crun:{org_1}:spend", "k:key_1|lifetime|0")) == spent


async def test_without_the_store_the_answer_is_503_at_once_and_nothing_is_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.conf.settings.REDIS_URL", "redis://127.0.0.1:1/0")
    await bench.runtime.store._link.close()  # type: ignore[union-attr]  # it was connected
    loop = asyncio.get_running_loop()
    waited = []
    for _ in range(3):
        asked_at = loop.time()
        call = await bench.chat("base")
        waited.append(loop.time() - asked_at)
        assert (call.status, call.json["error"]["code"]) == (503, "store_unavailable")
        assert call.headers["retry-after"] == "1"
    assert min(waited) < 0.25  # at once, on a machine that now and then has time for it
    assert bench.truth() == {} and bench.journal() == []
    assert (await bench.call("/api/v1/models")).status == 200


async def test_images_and_tools_are_part_of_the_worst_case(bench: Bench) -> None:
    plain = await bench.chat("base", max_tokens=1)
    tools = [{"type": "function", "function": {"name": "f" * 40, "description": "d" * 2_000, "parameters": {}}}]
    with_tools = await bench.chat("base", max_tokens=1, tools=tools)
    holds = [bench.record(call).opened.hold_nanos or 0 for call in (plain, with_tools)]
    assert holds[1] - holds[0] >= 2_040 * 150
    model = offered(id="see", targets=bench.models["base"].targets, input_modalities=("text", "image"))
    bench.runtime.catalog.snapshot = snapshot(model)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    body = {"model": "see", "max_tokens": 1, "messages": [{"role": "user", "content": [image]}]}
    seen = bench.record(await bench.call(CHAT, body)).opened.hold_nanos or 0
    assert 8_192 * 150 < seen < 8_500 * 150


@pytest.mark.parametrize("failure", [RuntimeError("a mistake"), JournalFull("no room"), asyncio.CancelledError()])
async def test_whatever_keeps_a_request_from_its_record_gives_its_hold_back(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(entry: Any) -> None:
        raise failure

    monkeypatch.setattr(bench.runtime.journal, "open_request", fail)
    with suppress(asyncio.CancelledError):
        call = await bench.chat("base")
        assert not call.sent or call.status in (500, 503)
    await bench.runtime.reservations.drain()
    assert int(empty_store.hget("crun:{org_1}:money", "held")) == 0
    assert not bench.runtime.reservations._running
