"""`Idempotency-Key`: the same request again gets the same bytes and costs nothing; whatever went wrong, never twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import orjson
import pytest
import pytest_asyncio
from django.conf import settings

from apps.billing.receipts import receipt_of
from apps.core.ids import new_id
from apps.core.limits import Limits
from apps.core.money import format_usd
from apps.core.scripts import NEW_STORE_MS
from apps.gateway.idempotency import keys as idempotency_keys
from apps.gateway.runtime import Runtime
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts
from tests.factories import PRICE, closed, opened
from tests.gateway.conftest import Bench, Call

pytestmark = pytest.mark.asyncio
PATH = "/api/v1/chat/completions"
INDEX = "crun:{org_1}:idempotency"
KEY = "order 17"


class Desk:
    """The bench, asked with idempotency keys."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def headers(self, key: str | None) -> dict[str, str]:
        plain = {"authorization": f"Bearer {self.bench.key}", "content-type": "application/json"}
        return plain if key is None else plain | {"idempotency-key": key}

    def start(self, text: str = "one two three", *, key: str | None = KEY, model: str = "base", **fields: Any) -> Call:
        return self.bench.start(PATH, self.bench.chat_body(model, text, **fields), headers=self.headers(key))

    async def ask(self, text: str = "one two three", *, patient: bool = True, **fields: Any) -> Call:
        """A whole answer; a store that a busy machine makes late is asked again."""
        async with asyncio.timeout(60):
            while True:
                call = await self.end(self.start(text, **fields))
                if not patient or call.status != 503 or code(call) != "store_unavailable":
                    return call
                await asyncio.sleep(0.2)

    async def end(self, call: Call) -> Call:
        assert call.task is not None
        async with asyncio.timeout(60):
            await call.task
        return call

    def closed(self) -> list[RequestClosed]:
        """The ends of all requests in the journal."""
        return [entry for entry in self.bench.journal() if isinstance(entry, RequestClosed)]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - it looks from outside
                await asyncio.sleep(0.01)

    async def until_ended(self) -> None:
        """Wait until the store knows what became of every claim of this worker."""
        await self.until(lambda: self.bench.runtime.claims.unfinished == 0)


@pytest_asyncio.fixture
async def desk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """A store whose memory is whole; tests that doubt it say so."""
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    yield Desk(bench)


@pytest_asyncio.fixture
async def two_workers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Requests go to two workers in turn."""
    first, second = desk.bench.runtime, Runtime()
    second.keys, second.catalog = first.keys, first.catalog
    turns = iter(range(10**6))
    monkeypatch.setattr("apps.gateway.server.http.current_runtime", lambda: (first, second)[next(turns) % 2])
    yield desk
    second.catalog = type(first.catalog)()
    await second.close()


def replayed(call: Call) -> bool:
    return call.headers.get("x-crun-idempotent-replay") == "true"


def code(call: Call) -> str:
    return str(call.json["error"]["code"])


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_again_is_byte_for_byte_the_same_and_costs_nothing(desk: Desk, stream: bool) -> None:
    first = await desk.ask(stream=stream)
    again = await desk.ask(stream=stream)
    assert (first.status, again.status) == (200, 200)
    assert again.body == first.body
    assert not replayed(first) and replayed(again)
    (end,) = desk.closed()
    assert again.request_id == first.request_id == again.headers["x-crun-generation-id"] == end.opened.request_id
    assert again.headers["x-crun-cost"] == format_usd(end.cost_nanos)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert len(desk.bench.truth()) == 1


async def test_without_the_header_every_request_is_a_request_of_its_own(desk: Desk, empty_store: Any) -> None:
    first, second = await desk.ask(key=None), await desk.ask(key=None)
    assert first.request_id != second.request_id
    assert len(desk.closed()) == 2
    assert empty_store.keys(INDEX + "*") == []


@pytest.mark.parametrize(
    "other", [{"text": "another"}, {"max_tokens": 5}, {"stream": True}, {"user": "somebody"}, {"temperature": 0.0}]
)
async def test_another_body_under_the_same_key_is_refused_and_the_first_answer_stays(desk: Desk, other: Any) -> None:
    first = await desk.ask()
    refused = await desk.ask(**other)
    assert (refused.status, code(refused)) == (409, "idempotency_key_reused")
    assert refused.json["error"]["type"] == "idempotency_error"
    assert refused.headers["x-should-retry"] == "false"
    assert (await desk.ask()).body == first.body
    assert len(desk.closed()) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_50_twins_at_once_over_two_workers_are_one_charge_and_one_answer(two_workers: Desk, stream: bool) -> None:
    """D12: whoever is late waits for the first and gets its answer."""
    calls = [
        two_workers.start(model="sandbox-echo", stream=stream, sandbox={"chunk_delay_ms": 50, "delay_ms": 300})
        for _ in range(50)
    ]
    answers = await asyncio.gather(*(two_workers.end(call) for call in calls))
    assert {call.status for call in answers} == {200}
    assert len({call.body for call in answers}) == 1
    assert sum(not replayed(call) for call in answers) == 1
    assert len({call.request_id for call in answers}) == 1
    assert len(two_workers.bench.truth()) == 1


async def test_50_twins_with_two_bodies_are_one_charge_and_refusals(two_workers: Desk) -> None:
    """D12: of two bodies that race under one key, one wins everything."""
    calls = [two_workers.start(f"text {number % 2}", model="sandbox-echo") for number in range(50)]
    answers = await asyncio.gather(*(two_workers.end(call) for call in calls))
    assert sorted({call.status for call in answers}) == [200, 409]
    assert sum(call.status == 200 for call in answers) == 25
    assert {code(call) for call in answers if call.status == 409} == {"idempotency_key_reused"}
    assert len(two_workers.bench.truth()) == 1


async def test_a_twin_that_waits_too_long_is_told_to_come_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "IDEMPOTENCY_WAIT_S", 0.1)
    first = desk.start(model="sandbox-echo", stream=True, sandbox={"chunk_delay_ms": 60_000})
    await first.until(lambda call: len(call.sent) > 1)
    twin = await desk.ask(model="sandbox-echo", stream=True, sandbox={"chunk_delay_ms": 60_000})
    assert (twin.status, code(twin)) == (409, "idempotency_in_progress")
    assert int(twin.headers["retry-after"]) >= 1 and "x-should-retry" not in twin.headers
    assert twin.headers["x-crun-generation-id"] == first.request_id
    first.leave()
    await desk.end(first)


async def test_more_twins_than_may_wait_are_told_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_keys, "MAX_WAITING_OF_KEY", 0)
    monkeypatch.setattr(settings, "IDEMPOTENCY_WAIT_S", 600.0)  # to wait would be longer than the test may take
    first = desk.start(model="sandbox-echo", stream=True, sandbox={"chunk_delay_ms": 60_000})
    await first.until(lambda call: len(call.sent) > 1)
    twin = await desk.ask(model="sandbox-echo", stream=True, sandbox={"chunk_delay_ms": 60_000})
    assert code(twin) == "idempotency_in_progress"
    first.leave()
    await desk.end(first)


async def test_a_waiting_twin_that_leaves_disturbs_nobody(desk: Desk) -> None:
    slow: dict[str, Any] = {"model": "sandbox-echo", "stream": True, "sandbox": {"chunk_delay_ms": 200}}
    first, twin = desk.start(**slow), None
    await first.until(lambda call: len(call.sent) > 1)
    twin = desk.start(**slow)
    await desk.until(lambda: desk.bench.runtime.idempotency_keys._waiting_of.total() == 1)
    twin.leave()
    await desk.end(twin)
    await desk.end(first)
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert (await desk.ask(**slow)).body == first.body
    assert desk.bench.runtime.idempotency_keys._waiting_of.total() == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["sandbox-fault-500", "sandbox-fault-429", "sandbox-fault-401"])
async def test_an_error_that_cost_nothing_is_forgotten_and_the_retry_is_done(
    desk: Desk, stream: bool, model: str
) -> None:
    first, again = await desk.ask(model=model, stream=stream), await desk.ask(model=model, stream=stream)
    assert first.status == again.status >= 500
    assert not replayed(again)
    assert [end.cost_nanos for end in desk.closed()] == [0, 0]


async def test_a_bad_request_and_a_refusal_for_money_or_rate_are_forgotten(desk: Desk) -> None:
    assert (await desk.ask(temperature=9)).status == 400
    assert (await desk.ask(model="no-such-model")).status == 404
    desk.bench.limit(key_limits=Limits(budget_nanos=0))
    assert (await desk.ask()).status == 429
    desk.bench.limit(key_limits=Limits())
    assert (await desk.ask()).status == 200
    assert len(desk.closed()) == 1


@pytest.mark.parametrize("fault", ["cut-3", "error-event-3"])
async def test_a_stream_that_broke_and_was_charged_is_not_done_again(desk: Desk, fault: str) -> None:
    model = f"sandbox-fault-{fault}"
    first = await desk.ask("one two three four five", model=model, stream=True)
    assert "error" in first.events[-1]
    await desk.until_ended()
    again = await desk.ask("one two three four five", model=model, stream=True)
    (end,) = desk.closed()
    assert end.cost_nanos > 0
    assert (again.status, code(again)) == (409, "idempotency_answer_lost")
    assert again.headers["x-crun-generation-id"] == first.request_id == end.opened.request_id
    assert again.headers["x-should-retry"] == "false"
    assert first.request_id in again.json["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_who_left_in_the_middle_is_told_the_receipt_and_not_charged_again(desk: Desk, stream: bool) -> None:
    slow: dict[str, Any] = {
        "model": "sandbox-echo",
        "stream": stream,
        "sandbox": {"delay_ms": 0, "chunk_delay_ms": 60_000},
    }
    if not stream:
        slow["sandbox"] = {"delay_ms": 60_000}
    first = desk.start(**slow)
    await desk.until(lambda: desk.bench.truth())
    if stream:
        await first.until(lambda call: len(call.sent) > 1)
    first.leave()
    await desk.end(first)
    (end,) = desk.closed()
    assert (end.outcome, end.cost_nanos > 0) == (Outcome.CANCELLED, True)
    await desk.until_ended()
    again = await desk.ask(**slow)
    assert (again.status, code(again)) == (409, "idempotency_answer_lost")
    assert again.headers["x-crun-generation-id"] == end.opened.request_id
    assert len(desk.closed()) == 1


async def test_who_left_before_the_last_part_gets_the_whole_answer_again(desk: Desk) -> None:
    """The record is closed, the last part on its way: that is when a retry makes most sense."""
    whole = await desk.ask(key="another", stream=True)
    body = desk.bench.chat_body("base", stream=True)
    stuck = asyncio.Event()
    parts: list[bytes] = []

    async def send(message: dict[str, Any]) -> None:
        if b"[DONE]" in message.get("body", b""):
            stuck.set()
            await asyncio.sleep(60)
        parts.append(message.get("body", b""))

    async def receive() -> dict[str, Any]:
        if not parts and not received:
            received.append(1)
            return {"type": "http.request", "body": orjson.dumps(body), "more_body": False}
        await stuck.wait()
        return {"type": "http.disconnect"}

    received: list[int] = []
    headers = [(name.encode(), value.encode()) for name, value in desk.headers(KEY).items()]
    scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": headers, "client": None}
    async with asyncio.timeout(30):
        await desk.bench.app(scope, receive, send)
    assert not any(b"[DONE]" in part for part in parts)
    await desk.until_ended()
    again = await desk.ask(stream=True)
    assert replayed(again) and again.body.endswith(b"data: [DONE]\n\n")
    assert len(again.events) == len(whole.events)
    assert len(desk.closed()) == 2


async def test_another_organization_and_another_key_never_see_it(desk: Desk) -> None:
    first = await desk.ask()
    mine = desk.bench.grant
    for changes in ({"key_id": "key_2"}, {"organization_id": "org_2"}):
        desk.bench.grant = msgspec.structs.replace(mine, **changes)
        desk.bench.runtime.keys.distrust()
        other = await desk.ask()
        assert other.status == 200 and not replayed(other)
        assert other.request_id != first.request_id
    assert len(desk.closed()) == 3


@pytest.mark.parametrize("key", ["x", "x" * 255, "~", "a key, with words", "!" * 100])
async def test_any_printable_key_will_do(desk: Desk, key: str) -> None:
    first = await desk.ask(key=key)
    assert replayed(await desk.ask(key=key)) and first.status == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "ключ".encode().decode("latin-1"), "tab\there", "nul\x00", "é"])
async def test_a_key_that_is_none_is_a_bad_request(desk: Desk, key: str) -> None:
    refused = await desk.ask(key=key)
    assert (refused.status, code(refused)) == (400, "invalid_idempotency_key")
    assert desk.closed() == []


async def test_two_different_keys_are_refused_and_the_same_one_twice_is_one(desk: Desk) -> None:
    """Who believes in the one and is served by the other pays twice."""
    body = orjson.dumps(desk.bench.chat_body("base"))

    async def ask(*keys: str) -> Call:
        given = [("authorization", f"Bearer {desk.bench.key}"), *(("idempotency-key", key) for key in keys)]
        return await desk.end(desk.bench.start(PATH, body, headers=given))

    refused = await ask("order 17", "order 18")
    assert (refused.status, code(refused)) == (400, "invalid_idempotency_key")
    assert desk.closed() == []
    assert (await ask("a, b", "a, b")).status == 200
    assert replayed(await ask("a, b"))


async def test_switched_off_a_key_is_refused_and_not_ignored(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "IDEMPOTENCY", False)
    refused = await desk.ask()
    assert (refused.status, code(refused)) == (400, "idempotency_not_supported")
    assert (await desk.ask(key=None)).status == 200


async def test_sandbox_keys_work_the_same(desk: Desk) -> None:
    desk.bench.grant = msgspec.structs.replace(desk.bench.grant, sandbox=True)
    desk.bench.runtime.keys.distrust()
    target = msgspec.structs.replace(desk.bench.models["base"].targets[0], provider="sandbox", is_sandbox=True)
    desk.bench.models["base"] = msgspec.structs.replace(desk.bench.models["base"], targets=(target,))
    desk.bench.models = {"base": desk.bench.models["base"]}
    desk.bench.runtime.catalog.snapshot = msgspec.structs.replace(
        desk.bench.runtime.catalog.snapshot, models=desk.bench.models
    )
    first, again = await desk.ask(), await desk.ask()
    assert (first.status, again.body, replayed(again)) == (200, first.body, True)
    (end,) = desk.closed()
    assert (end.charged_nanos, end.opened.sandbox) == (0, True)


async def test_an_answer_too_large_to_be_kept_is_told_with_its_receipt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 bytes keep no answer at all, and still nothing is charged twice."""
    monkeypatch.setattr(settings, "IDEMPOTENCY_MAX_BYTES", 0)
    for stream in (True, False):
        first = await desk.ask(key=f"key {stream}", stream=stream)
        await desk.until_ended()
        again = await desk.ask(key=f"key {stream}", stream=stream)
        assert (again.status, code(again)) == (409, "idempotency_answer_lost")
        assert "too large" in again.json["error"]["message"]
        assert again.headers["x-crun-generation-id"] == first.request_id
    assert len(desk.closed()) == 2


async def test_a_full_organization_loses_its_oldest_answers_and_no_charge(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.ask(key="0")
    await desk.until_ended()
    size = int(empty_store.get("crun:kept:bytes"))
    monkeypatch.setattr(settings, "ANSWERS_ORGANIZATION_BYTES", 2 * size + size // 2)
    for number in range(1, 4):
        await desk.ask(key=str(number))
        await desk.until_ended()
    answers = [await desk.ask(key=str(number)) for number in range(4)]
    assert [call.status for call in answers] == [409, 409, 200, 200]
    assert {code(call) for call in answers[:2]} == {"idempotency_answer_lost"}
    assert "not kept any longer" in answers[0].json["error"]["message"]
    assert int(empty_store.get("crun:kept:bytes")) <= 2 * size + size // 2
    assert len(desk.closed()) == 4


async def test_an_organization_with_too_many_keys_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.idempotency.claims.MAX_KEYS", 2)
    assert [(await desk.ask(key=key)).status for key in "abc"] == [200, 200, 429]
    assert (await desk.ask(key="a")).status == 200
    assert (await desk.ask(key=None)).status == 200
    assert len(desk.closed()) == 3


async def test_nothing_of_key_body_or_answer_can_be_read_in_the_store(desk: Desk, empty_store: Any) -> None:
    await desk.ask("a secret question", key="customer-4711", model="sandbox-echo")
    await desk.ask("a secret question", key="customer-4712", model="sandbox-echo", stream=True)
    await desk.until_ended()
    found = b""
    for name in empty_store.keys(INDEX + "*"):
        found += name + empty_store.dump(name)
        if name not in (INDEX.encode(),):
            assert 0 < empty_store.pttl(name) <= 86_400_000
        if empty_store.type(name) == b"hash":
            found += b"".join(b"".join(pair) for pair in empty_store.hgetall(name).items())
    assert len(found) > 500
    for word in (b"customer-471", b"secret", b"question", b"chat.completion", b"application/json"):
        assert word not in found


async def test_an_answer_moved_to_another_entry_does_not_open(desk: Desk, empty_store: Any) -> None:
    await desk.ask("mine", key="a", model="sandbox-echo")
    await desk.ask("theirs", key="b", model="sandbox-echo")
    await desk.until_ended()
    names = [name for name in empty_store.keys(INDEX + ":*") if empty_store.type(name) == b"hash"]
    first, second = (empty_store.hget(name, "answer") for name in names)
    empty_store.hset(names[0], "answer", second)
    empty_store.hset(names[1], "answer", first)
    for key, text in (("a", "mine"), ("b", "theirs")):
        assert code(await desk.ask(text, key=key, model="sandbox-echo")) == "idempotency_answer_lost"


async def test_after_its_time_a_key_is_new(desk: Desk, empty_store: Any) -> None:
    first = await desk.ask()
    await desk.until_ended()
    for name in empty_store.keys(INDEX + ":*"):
        empty_store.delete(name)
    again = await desk.ask()
    assert again.request_id != first.request_id and not replayed(again)


async def test_the_answer_is_kept_only_when_its_end_stands_in_the_journal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D12: an answer whose record is not written is no answer to give again."""
    journal = desk.bench.runtime.journal
    real, refuses = journal._write, True

    def write(frames: bytes) -> None:
        if refuses and b"close" in frames:
            raise OSError("no space")
        real(frames)

    monkeypatch.setattr(journal, "_write", write)
    monkeypatch.setattr(settings, "IDEMPOTENCY_WAIT_S", 0.3)
    first = await desk.ask()
    assert first.status == 200
    assert code(await desk.ask()) == "idempotency_in_progress"
    refuses = False
    journal.retry_unwritten()
    again = await desk.ask()
    assert (again.body, replayed(again)) == (first.body, True)
    assert len(desk.closed()) == 1


async def test_without_the_store_a_request_with_a_key_is_refused(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.ask()
    await desk.until_ended()
    monkeypatch.setattr(desk.bench.runtime.memory, "_url", "unix:///nowhere/valkey.sock")
    await desk.bench.runtime.memory._link.close()  # type: ignore[union-attr]  # it was connected
    refused = await desk.ask(patient=False)
    assert (refused.status, code(refused)) == (503, "store_unavailable")
    assert "retry-after" in refused.headers
    assert (await desk.ask(key=None)).status == 200
    assert len(desk.closed()) == 2


async def test_a_store_that_was_emptied_is_not_believed_for_a_while(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await desk.ask()
    assert first.status == 200
    await desk.until_ended()
    empty_store.flushdb()
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 120_000)
    for key in (KEY, "another"):
        refused = await desk.ask(key=key, patient=False)
        assert (refused.status, code(refused)) == (503, "store_unavailable")
        assert 100 < int(refused.headers["retry-after"]) <= 120
    assert len(desk.closed()) == 1
    empty_store.hset(INDEX, "closed_until", 0)
    assert (await desk.ask(key="another")).status == 200


async def restarted(desk: Desk, empty_store: Any, *, workers: tuple[str, ...] = (), age_s: float = 0) -> str:
    """As if the server had been restarted so long ago, while these workers had claims; what it is called now."""
    await desk.ask()
    await desk.until_ended()
    run_id: str = empty_store.info("server")["run_id"]
    empty_store.hset(INDEX, "epoch", "before")
    empty_store.hset("crun:claiming:before", mapping={"": 1_000, **dict.fromkeys(workers, 1)})
    empty_store.set(f"crun:store:{run_id}", 1, px=int(NEW_STORE_MS - 1000 * age_s))
    return run_id


def paused(monkeypatch: pytest.MonkeyPatch, milliseconds: int) -> list[dict[str, int]]:
    """For so long the records say that a restarted server must not be believed; what they were asked."""
    asked = []

    def restart_pause_ms(_owner: str, _remembered_s: float, **what: int) -> int:
        asked.append(what)
        return milliseconds

    monkeypatch.setattr("apps.gateway.runtime.restart_pause_ms", restart_pause_ms)
    return asked


async def test_a_restarted_server_that_nobody_has_to_tell_anything_is_believed_at_once(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = paused(monkeypatch, 0)
    await restarted(desk, empty_store, age_s=5)
    assert replayed(await desk.ask())
    assert [each["told_ms"] for each in asked] == [1_000] and 5_000 <= asked[0]["age_ms"] < 60_000
    assert (await desk.ask(key="another")).status == 200 and len(asked) == 1


async def test_a_restarted_server_waits_for_who_claimed_and_no_longer_than_a_lease(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = paused(monkeypatch, 0)
    run_id = await restarted(desk, empty_store, workers=("gone", "slow"))
    for told in ("gone", "slow"):
        refused = await desk.ask(patient=False)
        assert (refused.status, code(refused)) == (503, "store_unavailable") and asked == []
        assert 0 < int(refused.headers["retry-after"]) <= 10
        empty_store.hset(f"crun:claiming:{run_id}", told, 1)
    assert replayed(await desk.ask())
    await restarted(desk, empty_store, workers=("dead",), age_s=11)
    assert replayed(await desk.ask())


async def test_what_a_restarted_server_may_have_forgotten_by_the_records_is_waited_for(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused(monkeypatch, 20_000)
    await restarted(desk, empty_store)
    for key in (KEY, "another"):
        refused = await desk.ask(key=key, patient=False)
        assert refused.status == 503 and 10 < int(refused.headers["retry-after"]) <= 20
    empty_store.hset(INDEX, "closed_until", 0)
    assert replayed(await desk.ask())


async def test_a_worker_claims_nothing_of_a_server_that_it_did_not_tell_what_it_has(
    desk: Desk, empty_store: Any
) -> None:
    slow: dict[str, Any] = {"model": "sandbox-echo", "stream": True, "sandbox": {"chunk_delay_ms": 1_500}}
    first = desk.start(**slow)
    await first.until(lambda call: len(call.sent) > 1)
    names = [name for name in empty_store.keys(INDEX + ":*") if empty_store.type(name) == b"hash"]
    empty_store.delete(*names, *empty_store.keys("crun:claiming:*"))
    twin = await desk.ask(**slow)
    await desk.end(first)
    assert (twin.body, replayed(twin)) == (first.body, True)
    await desk.until_ended()
    await desk.bench.runtime.claims.drain()
    (workers,) = [empty_store.hkeys(name) for name in empty_store.keys("crun:claiming:*")]
    assert workers == [b""], "who stops and has nothing left signs off"


async def test_a_running_request_tells_an_emptied_store_again_what_it_claimed(desk: Desk, empty_store: Any) -> None:
    slow: dict[str, Any] = {"model": "sandbox-echo", "stream": True, "sandbox": {"chunk_delay_ms": 1_500}}
    first = desk.start(**slow)
    await first.until(lambda call: len(call.sent) > 1)
    names = [name for name in empty_store.keys(INDEX + ":*") if empty_store.type(name) == b"hash"]
    empty_store.delete(*names)
    for claim in desk.bench.runtime.claims._running.values():
        desk.bench.runtime.claims._renew(claim)
    twin = await desk.ask(**slow)
    await desk.end(first)
    assert (twin.body, replayed(twin)) == (first.body, True)
    assert len(desk.closed()) == 1


def lost_claim(desk: Desk, empty_store: Any) -> str:
    """End the lease of the one entry, as if its worker had died; the request that has it."""
    (name,) = [name for name in empty_store.keys(INDEX + ":*") if empty_store.type(name) == b"hash"]
    request_id: str = empty_store.hget(name, "request").decode()
    empty_store.hset(name, mapping={"state": "running", "lease": 1})
    empty_store.hdel(name, "answer")
    return request_id


@pytest.mark.parametrize(
    ("cost_nanos", "status", "expected"), [(7, 409, "idempotency_answer_lost"), (0, 200, ""), (None, 409, "unknown")]
)
async def test_a_lost_request_is_looked_for(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch, cost_nanos: int | None, status: int, expected: str
) -> None:
    """What was charged is never done again; what cost nothing is; what is not known is refused."""
    await desk.ask()
    await desk.until_ended()
    lost = lost_claim(desk, empty_store)

    async def find(_grant: Any, request_id: str) -> Any:
        assert request_id == lost
        if cost_nanos is None:
            return None
        entry = opened(request_id=request_id, organization_id="org_1")
        return receipt_of(closed(entry, cost_nanos=cost_nanos, tokens=TokenCounts()), PRICE)

    monkeypatch.setattr(desk.bench.runtime.receipts, "find", find)
    again = await desk.ask()
    assert again.status == status
    if status == 409:
        assert code(again) == "idempotency_answer_lost"
        assert again.headers["x-crun-generation-id"] == lost
        assert ("not known" in again.json["error"]["message"]) == (expected == "unknown")
        assert code(await desk.ask()) == "idempotency_answer_lost"
    else:
        assert replayed(await desk.ask())
    assert len(desk.closed()) == 1 + (status == 200)


async def test_50_twins_of_a_lost_request_that_cost_nothing_are_one_charge(
    two_workers: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_workers.ask()
    await two_workers.until_ended()
    lost = lost_claim(two_workers, empty_store)

    async def find(_self: Any, _grant: Any, request_id: str) -> Any:
        assert request_id == lost
        await asyncio.sleep(0.01)
        return receipt_of(closed(opened(request_id=request_id), cost_nanos=0, tokens=TokenCounts()), PRICE)

    monkeypatch.setattr("apps.gateway.receipts.Receipts.find", find)
    calls = [two_workers.start() for _ in range(50)]
    answers = await asyncio.gather(*(two_workers.end(call) for call in calls))
    assert {call.status for call in answers} == {200}
    assert len({call.request_id for call in answers}) == 1
    assert len(two_workers.bench.truth()) == 2


async def test_an_end_that_comes_after_somebody_took_over_changes_nothing(desk: Desk, empty_store: Any) -> None:
    """A worker that was frozen for longer than its lease finds the key with another request."""
    claims = desk.bench.runtime.claims
    answer = await desk.ask()
    await desk.until_ended()
    (name,) = [name for name in empty_store.keys(INDEX + ":*") if empty_store.type(name) == b"hash"]
    entry = {field.decode(): value for field, value in empty_store.hgetall(name).items()}
    before = empty_store.hgetall(name)
    body, short = entry["body"].decode(), name.decode().rpartition(":")[2]
    late = idempotency_keys.KeyedRequest("org_1", short, body, new_id("req"))
    claims.spend(late, late.request_id, 99)
    claims.finish(claims.begin(late))
    claims._renew(claims.begin(late))
    await desk.until(lambda: not claims._ending)
    claims._running.clear()
    await asyncio.sleep(0)
    assert empty_store.hgetall(name) == before
    assert (await desk.ask()).body == answer.body
