"""The fallback to another model: by its own price, with its own hold, and one record for the request."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from apps.billing.admission import INSTALL, Admitted
from apps.billing.balance_cache import money_key
from apps.billing.journals import read_journals
from apps.billing.receipt_reading import find_stored_receipt
from apps.billing.receipts import receipt_of
from apps.billing.recovery import close_orphan
from apps.catalog.contracts import Price
from apps.core.limits import Limits
from apps.core.redis import single_try_client
from apps.gateway.receipts import public_receipt
from apps.gateway.server import deadline
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, TokenCounts
from apps.usage.journal import JournalFull, read_entries
from apps.usage.recording import record
from apps.usage.shipping import ship
from tests.factories import PRICE, offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.gateway.storms import Worker, demand
from tests.gateway.test_limits import ORG, PREFIX, workers
from tests.gateway.test_money import short_connections

__all__ = ["short_connections", "workers"]
pytestmark = pytest.mark.asyncio
CHAT = "/api/v1/chat/completions"
FREE = Price(version_id=7, starts_at=0.0, input=0, output=0, cache_read=0, cache_write=0, reasoning=0)
DEAR = Price(
    version_id=9, starts_at=0.0, input=3_000_000_000, output=15_000_000_000, cache_read=300_000_000,
    cache_write=3_000_000_000, reasoning=15_000_000_000,
)  # fmt: skip
BENCH = "crun:{org_1}:"


def make_money(nanos: int, organization_ids: Sequence[str], journal_root: Path) -> None:
    """In place of the real rebuild: so much money and no spend."""
    client = single_try_client()
    try:
        run_id = client.info("server")["run_id"]  # type: ignore[index]  # one function for sync and async
        nothing = orjson.dumps({"open": [], "kept": [], "examined": [], "spend": {}})
        for owner in organization_ids:
            for step in (("begin", "some", 1_000), ("install", "some", nanos, 0, 900_000, nothing, 900_000)):
                client.eval(INSTALL.text, 1, money_key(owner), run_id, *step)
    finally:
        client.close()


def offer(bench: Bench, **models: tuple[str, Price] | Any) -> None:
    """Models by their names: the upstream's model and the price, or a whole model."""
    offers = [
        each if not isinstance(each, tuple) else offered(id=name, targets=(bench.target(each[0]),), prices=(each[1],))
        for name, each in models.items()
    ]
    bench.runtime.catalog.snapshot = snapshot(*offers)


async def ask(bench: Bench, *models: str, **fields: Any) -> Call:
    message = {"role": "user", "content": "one two three"}
    return await bench.call(CHAT, {"model": models[0], "models": list(models[1:]), "messages": [message], **fields})


def ends(bench: Bench) -> list[RequestClosed]:
    return [entry for entry in bench.journal() if isinstance(entry, RequestClosed)]


async def left(bench: Bench, store: Any) -> tuple[int, int, int]:
    """Balance, what is held, and how many holds there are, when all is settled."""
    await bench.runtime.reservations.drain(10)
    assert bench.runtime.reservations.running_requests == 0
    balance, held = store.hmget(BENCH + "money", "balance", "held")
    return int(balance), int(held), store.hlen(BENCH + "holds")


@pytest.mark.parametrize("stream", [False, True])
async def test_d11_a_free_model_falls_back_to_a_paid_one_only_with_money(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("apps.gateway.runtime.rebuild", partial(make_money, 0))
    offer(bench, free=("sandbox-fault-503", FREE), paid=("sandbox-echo", PRICE), other=("sandbox-echo", FREE))
    call = await ask(bench, "free", "paid", "other", stream=stream)
    assert (call.status, call.json["error"]["code"]) == (429, "credit_balance_exhausted")
    assert call.headers["x-should-retry"] == "false"
    truth = await bench.truth_of(call)
    assert (truth.attempts, truth.outcome) == (1, "error")  # neither the paid model was called, nor one behind it
    [end] = ends(bench)
    assert (end.opened.model, end.outcome, end.cost_nanos, end.http_status) == ("free", Outcome.FAILED, 0, 429)
    assert await left(bench, empty_store) == (0, 0, 0)
    offer(bench, free=("sandbox-echo", FREE), paid=("sandbox-echo", PRICE))
    assert (await ask(bench, "free", "paid")).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_d11_hold_price_and_record_are_those_of_the_model_that_runs(
    bench: Bench, empty_store: Any, stream: bool
) -> None:
    offer(bench, cheap=("sandbox-fault-500", PRICE), dear=("sandbox-echo", DEAR), mid=("sandbox-echo", PRICE))
    alone = bench.record(await ask(bench, "dear", "cheap", "mid", max_tokens=50, stream=stream)).opened.hold_nanos
    before, *_ = await left(bench, empty_store)
    held: list[int] = []
    original = bench.runtime.journal.open_request

    def watched(entry: RequestOpened) -> None:
        held.append(int(empty_store.hget(BENCH + "money", "held")))
        original(entry)

    bench.runtime.journal.open_request = watched  # type: ignore[method-assign]  # looks at the store at that moment
    call = await ask(bench, "cheap", "dear", "mid", max_tokens=50, stream=stream)
    bench.runtime.journal.open_request = original  # type: ignore[method-assign]  # as it was
    end = bench.record(call)
    first, second = [entry for entry in bench.journal() if isinstance(entry, RequestOpened)][-2:]
    assert (first.model, second.model, second.hold_nanos) == ("cheap", "dear", alone)
    assert first.hold_nanos is not None and alone is not None and first.hold_nanos < alone
    assert held == [first.hold_nanos, alone]  # never both
    assert (end.opened.model, end.opened.price.version_id, end.outcome) == ("dear", 9, Outcome.COMPLETED)
    assert end.opened.hold_nanos == alone
    assert end.cost_nanos == 3 * 3_000 + 3 * 15_000
    balance, now_held, holds = await left(bench, empty_store)
    assert (before - balance, now_held, holds) == (end.cost_nanos, 0, 0)
    if stream:
        assert {event["model"] for event in call.events[:-1]} == {"dear"}
    else:
        assert (call.json["model"], call.headers["x-crun-cost"]) == ("dear", "0.000054000")
    assert call.headers["x-crun-generation-id"] == call.request_id
    truth = await bench.truth_of(call)
    assert truth.attempts == 2 and truth.outcome == "complete"


async def test_the_attempts_stand_in_record_and_receipt(
    bench: Bench, short_connections: None, transactional_db: None
) -> None:
    offer(bench, a=("sandbox-fault-503", PRICE), b=("sandbox-fault-401", PRICE), c=("sandbox-echo", DEAR))
    call = await ask(bench, "a", "b", "c")
    end = bench.record(call)
    assert [(each.model, each.provider, each.outcome, each.error_code, each.paid_by) for each in end.attempts] == [
        ("a", "local", Outcome.FAILED, "upstream_overloaded", "operator"),
        ("b", "local", Outcome.FAILED, "upstream_unauthorized", "operator"),
        ("c", "local", Outcome.COMPLETED, "", "customer"),
    ]
    starts = [each.started_ms for each in end.attempts]
    assert starts == sorted(starts) and starts[0] == 0
    assert all(each.started_ms + each.duration_ms <= end.duration_ms for each in end.attempts)
    told = public_receipt(receipt_of(end, end.opened.price))["receipt"]["attempts"]
    assert [(each["number"], each["model"], each["http_status"], each["paid_by"]) for each in told] == [
        (1, "a", 503, "operator"), (2, "b", 502, "operator"), (3, "c", 200, "customer"),
    ]  # fmt: skip
    assert [each["cost"] for each in told] == ["0.000000000", "0.000000000", "0.000054000"]
    assert not any("local" in str(each) or "sandbox-" in str(each) for each in told)
    await bench.runtime.bridge.read(partial(record, [end]))
    stored = await bench.runtime.bridge.read(partial(find_stored_receipt, "org_1", call.request_id))
    assert stored is not None and stored.closed.attempts == end.attempts


async def test_one_attempt_is_no_list(bench: Bench) -> None:
    offer(bench, good=("sandbox-echo", PRICE), bad=("sandbox-fault-503", PRICE))
    assert bench.record(await ask(bench, "good", "bad")).attempts == ()
    assert bench.record(await ask(bench, "bad")).attempts == ()


async def test_when_all_models_fail_the_last_failure_is_told_and_nothing_is_billed(
    bench: Bench, empty_store: Any
) -> None:
    offer(bench, a=("sandbox-fault-503", PRICE), b=("sandbox-fault-401", DEAR))
    call = await ask(bench, "a", "b")
    assert (call.status, call.json["error"]["code"]) == (502, "upstream_unauthorized")
    [end] = ends(bench)
    assert (end.opened.model, end.outcome, end.cost_nanos, len(end.attempts)) == ("b", Outcome.FAILED, 0, 2)
    assert (await left(bench, empty_store))[1:] == (0, 0)


async def test_models_that_cannot_run_are_skipped_without_a_call(bench: Bench) -> None:
    offer(
        bench, unpriced=offered(id="unpriced", targets=(bench.target("sandbox-echo"),), prices=()),
        good=("sandbox-echo", PRICE),
    )  # fmt: skip
    call = await ask(bench, "nobody", "unpriced", "good")
    assert (call.status, call.json["model"]) == (200, "good")
    assert (await bench.truth_of(call)).attempts == 1
    call = await ask(bench, "nobody", "unpriced")
    assert (call.status, call.json["error"]["code"]) == (404, "model_not_found")


async def test_a_model_that_takes_no_images_is_skipped(bench: Bench) -> None:
    seeing = offered(id="seeing", targets=(bench.target("sandbox-vision"),), input_modalities=("text", "image"))
    offer(bench, blind=("sandbox-echo", PRICE), seeing=seeing)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    call = await bench.call(
        CHAT, {"model": "blind", "models": ["seeing"], "messages": [{"role": "user", "content": [image]}]}
    )
    assert (call.status, call.json["model"]) == (200, "seeing")


async def test_a_model_whose_own_rate_is_used_up_is_skipped_and_a_rate_of_the_key_is_not(
    bench: Bench, empty_store: Any
) -> None:
    scarce = offered(id="scarce", targets=(bench.target("sandbox-echo"),), limits=Limits(requests_per_minute=1))
    offer(bench, scarce=scarce, plenty=("sandbox-echo", PRICE))
    answers = [(await ask(bench, "scarce", "plenty")).json["model"] for _ in range(3)]
    assert answers == ["scarce", "plenty", "plenty"]
    bench.limit(key_limits=Limits(requests_per_minute=1))
    assert (await ask(bench, "plenty")).status == 200
    call = await ask(bench, "plenty", "scarce")
    assert (call.status, call.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert (await left(bench, empty_store))[1:] == (0, 0)


async def test_a_request_counts_once_for_its_key_and_its_tokens_only_for_the_model_that_ran(
    bench: Bench, empty_store: Any
) -> None:
    limits = Limits(requests_per_minute=1, tokens_per_minute=100_000, requests_per_day=1, concurrency=1)
    of_model = Limits(requests_per_minute=5, tokens_per_minute=100_000)
    bad = offered(id="bad", targets=(bench.target("sandbox-fault-503"),), limits=of_model)
    good = offered(id="good", targets=(bench.target("sandbox-echo"),), limits=of_model)
    offer(bench, bad=bad, good=good)
    bench.limit(key_limits=limits)
    call = await ask(bench, "bad", "good")
    assert call.status == 200
    assert call.headers["x-ratelimit-remaining-requests"] == "0"
    await left(bench, empty_store)

    def rate(name: str) -> list[int]:
        return [int(value) for value in empty_store.hmget(BENCH + "rate:" + name, "requests", "tokens")]

    assert rate("k:key_1") == [1, 6]
    assert (rate("m:bad"), rate("m:good")) == ([1, 0], [1, 6])
    assert empty_store.zcard(BENCH + "lease:k:key_1") == 0


@pytest.mark.parametrize("fault", ["refuse", "html", "cut-0"])
async def test_what_may_have_been_charged_is_never_tried_again(bench: Bench, empty_store: Any, fault: str) -> None:
    offer(bench, first=(f"sandbox-fault-{fault}", PRICE), second=("sandbox-echo", PRICE))
    call = await ask(bench, "first", "second")
    assert (call.status, call.json["error"]["code"]) == (502, "upstream_failed")
    assert (await bench.truth_of(call)).attempts == 1
    [end] = ends(bench)
    assert (end.opened.model, end.cost_nanos, end.attempts) == ("first", 0, ())
    assert (await left(bench, empty_store))[1:] == (0, 0)


async def test_a_bad_request_is_not_tried_elsewhere_and_one_that_is_too_long_is(bench: Bench) -> None:
    offer(bench, a=("sandbox-fault-400", PRICE), b=("sandbox-echo", PRICE))
    assert (await ask(bench, "a", "b")).status == 400
    assert (await bench.call(CHAT, {"model": "a", "models": "b", "messages": [{"role": "user", "content": "x"}]})).json[
        "error"
    ]["param"] == "models"


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
async def test_without_a_model_the_first_of_the_list_is_asked(bench: Bench, path: str) -> None:
    kinds = {"output_modalities": ("embeddings",)} if path == "embeddings" else {}
    upstream = "sandbox-embedding" if path == "embeddings" else "sandbox-echo"
    target = bench.target(upstream)
    offer(bench, **{name: offered(id=name, targets=(target,), **kinds) for name in ("first", "second")})
    content = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}
    field = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}[path]
    call = await bench.call(f"/api/v1/{path}", {"models": ["first", "second"], field: content[field]})
    assert (call.status, call.json["model"], bench.record(call).opened.model) == (200, "first", "first")


@pytest.mark.parametrize(
    ("models", "param"), [([], "model"), ("a", "model"), (None, "model"), ([""], "models[0]"), ([7, "a"], "models[0]")]
)
async def test_nobody_to_ask_is_a_bad_request(bench: Bench, models: Any, param: str) -> None:
    call = await bench.call(CHAT, {"models": models, "messages": [{"role": "user", "content": "x"}]})
    assert (call.status, call.json["error"]["param"]) == (400, param)


async def test_a_cut_for_the_first_model_does_not_cut_the_second(bench: Bench) -> None:
    """The budget cuts the output of the dear model; the cheap one has room for all of its own."""
    dear = offered(id="dear", targets=(bench.target("sandbox-fault-503"),), prices=(DEAR,), max_output_tokens=5_000)
    cheap = offered(id="cheap", targets=(bench.target("sandbox-echo"),), max_output_tokens=5_000)
    offer(bench, dear=dear, cheap=cheap)
    bench.limit(key_limits=Limits(budget_nanos=10_000_000))
    message = {"role": "user", "content": "word " * 1_000}
    call = await bench.call(CHAT, {"model": "dear", "models": ["cheap"], "messages": [message]})
    assert (call.status, call.json["model"]) == (200, "cheap")
    assert call.json["choices"][0]["finish_reason"] == "stop"
    assert call.json["usage"]["completion_tokens"] == 1_000


async def test_a_stream_whose_hold_grows_grows_by_the_price_of_the_model_that_runs(
    bench: Bench, empty_store: Any
) -> None:
    large = {"max_output_tokens": 20_000}
    bad = offered(id="bad", targets=(bench.target("sandbox-fault-503"),), **large)
    dear = offered(id="dear", targets=(bench.target("sandbox-echo"),), prices=(DEAR,), **large)
    offer(bench, bad=bad, dear=dear)
    body = {"model": "bad", "models": ["dear"], "stream": True}
    call = await bench.call(CHAT, {**body, "messages": [{"role": "user", "content": "word " * 6_000}]})
    assert call.events[-1] == "[DONE]"
    end = bench.record(call)
    assert (end.opened.model, end.tokens.output, end.overage_nanos) == ("dear", 6_000, 0)
    assert end.cost_nanos == end.tokens.input * 3_000 + 6_000 * 15_000 <= (end.opened.hold_nanos or 0)
    assert (await left(bench, empty_store))[1:] == (0, 0)


async def test_a_journal_that_is_full_in_between_ends_the_request_for_nothing(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(bench, bad=("sandbox-fault-503", PRICE), good=("sandbox-echo", DEAR))
    original = bench.runtime.journal.open_request

    def full(entry: RequestOpened) -> None:
        if entry.model == "good":
            raise JournalFull("full")
        original(entry)

    monkeypatch.setattr(bench.runtime.journal, "open_request", full)
    call = await ask(bench, "bad", "good")
    assert (call.status, call.json["error"]["code"]) == (503, "store_unavailable")
    assert (await bench.truth_of(call)).attempts == 1
    [end] = ends(bench)
    assert (end.opened.model, end.cost_nanos) == ("bad", 0)
    assert (await left(bench, empty_store))[1:] == (0, 0)


async def test_a_client_that_leaves_between_two_models_leaves_nothing_behind(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(bench, bad=("sandbox-fault-503", PRICE), good=("sandbox-echo", DEAR))
    is_between, original = asyncio.Event(), bench.runtime.reservations._ask

    async def slow(demand: Any) -> Any:
        answer = await original(demand)
        if demand.is_again:
            try:
                is_between.set()
                await asyncio.Event().wait()
            finally:
                bench.runtime.reservations.release(demand)  # as `_ask` does when it is cancelled
        return answer

    monkeypatch.setattr(bench.runtime.reservations, "_ask", slow)
    message = {"role": "user", "content": "x"}
    call = bench.start(CHAT, {"model": "bad", "models": ["good"], "messages": [message]})
    async with asyncio.timeout(10):
        await is_between.wait()
    call.leave()
    assert call.task is not None
    await asyncio.wait([call.task])
    [end] = ends(bench)
    assert (end.opened.model, end.outcome, end.cost_nanos) == ("bad", Outcome.CANCELLED, 0)
    assert (await left(bench, empty_store))[1:] == (0, 0)


async def test_all_models_together_have_the_time_of_one_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "configured_limits", lambda: [0.5, 60.0, 600.0, 30.0])
    offer(bench, bad=("sandbox-fault-503", PRICE), slow=("sandbox-fault-stall", PRICE), good=("sandbox-echo", PRICE))
    call = await ask(bench, "bad", "slow", "good", stream=True)
    assert (call.status, call.json["error"]["code"]) == (504, "upstream_timeout")
    end = bench.record(call)
    assert [(each.model, each.error_code) for each in end.attempts] == [
        ("bad", "upstream_overloaded"), ("slow", "upstream_timeout"),
    ]  # fmt: skip
    assert end.cost_nanos == 0


async def test_a_model_that_keeps_failing_is_passed_over_until_its_rest_is_over(bench: Bench) -> None:
    offer(bench, bad=("sandbox-fault-500", PRICE), good=("sandbox-echo", PRICE))
    calls = [await ask(bench, "bad", "good") for _ in range(8)]
    assert {call.json["model"] for call in calls} == {"good"}
    tried = [len(bench.record(call).attempts) for call in calls]
    assert tried == [2, 2, 2, 2, 2, 0, 0, 0]
    alone = await ask(bench, "bad")
    assert (alone.status, (await bench.truth_of(alone)).attempts) == (502, 1)  # the last route stays usable


async def test_provider_preferences_choose_the_route(bench: Bench) -> None:
    one = msgspec.structs.replace(bench.target("sandbox-echo"), provider="one")
    two = msgspec.structs.replace(bench.target("sandbox-echo"), provider="two")
    offer(bench, m=offered(id="m", targets=(one, two)))
    for wish, expected in [({"only": ["two"]}, "two"), ({"order": ["one"]}, "one"), ({"ignore": ["one"]}, "two")]:
        for _ in range(5):
            call = await bench.call(
                CHAT, {"model": "m", "provider": wish, "messages": [{"role": "user", "content": "x"}]}
            )
            assert (call.status, bench.record(call).opened.provider) == (200, expected)
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    refused = await bench.call(CHAT, {**body, "provider": {"only": ["three"]}})
    assert (refused.status, refused.json["error"]["code"]) == (404, "no_matching_provider")
    refused = await bench.call(CHAT, {**body, "provider": {"max_price": {"prompt": 0.1}}})
    assert (refused.status, refused.json["error"]["param"]) == (404, "provider.max_price")
    refused = await bench.call(CHAT, {**body, "provider": {"zdr": True}})
    assert (refused.status, refused.json["error"]["code"]) == (404, "no_matching_provider")  # neither promises it


async def test_a_hold_is_exchanged_in_one_call_and_settled_once(workers: list[Worker], empty_store: Any) -> None:
    reservations = workers[0].reservations
    limits = Limits(requests_per_minute=10, concurrency=5)
    first = demand(ORG, 1_000, model="gpt-a", key_limits=limits)
    again = msgspec.structs.replace(first, most_nanos=300, least_nanos=300, model="gpt-b", is_again=True)
    assert isinstance(await reservations.reserve(first), Admitted)
    for _ in range(2):  # an answer that got lost makes it ask twice
        answer = await reservations.reserve(again)
        assert isinstance(answer, Admitted) and answer.hold_nanos == 300
        assert int(empty_store.hget(PREFIX + "money", "held")) == 300
    assert int(empty_store.hget(PREFIX + "rate:k:key_1", "requests")) == 1
    assert empty_store.zcard(PREFIX + "lease:k:key_1") == 1
    empty_store.delete(PREFIX + "money")  # a store that forgot the money counts it again, with whatever holds there are
    answer = await reservations.reserve(again)
    assert isinstance(answer, Admitted)
    reservations.release(again)
    reservations.release(first)
    await reservations.drain(10)
    assert empty_store.hlen(PREFIX + "holds") == 0
    assert int(empty_store.hget(PREFIX + "money", "held")) == 0
    assert empty_store.zcard(PREFIX + "lease:k:key_1") == 0


async def test_a_process_that_dies_between_two_models_leaves_one_record_for_nothing(
    bench: Bench, tmp_path: Path, short_connections: None, transactional_db: None
) -> None:
    """The journal says which model the request was opened for last, to rebuilds and to whoever settles orphans."""
    offer(bench, bad=("sandbox-fault-503", PRICE), good=("sandbox-echo", DEAR))
    call = await ask(bench, "bad", "good")
    first, second = (entry for entry in bench.journal() if isinstance(entry, RequestOpened))
    assert (first.request_id, first.model, second.model) == (second.request_id, "bad", "good")
    content = b"".join(segment.read_bytes() for segment in sorted(bench.runtime.journal.folder.glob("*.seg")))
    ends_at = [end for entry, end in read_entries(content) if isinstance(entry, RequestOpened)]
    root = tmp_path / "dead"
    (root / "gw_1").mkdir(parents=True)
    (root / "gw_1" / "lock").touch()
    (root / "gw_1" / "00000001.seg").write_bytes(content[: ends_at[1]])
    view = read_journals(root, ["org_1"])["org_1"]
    assert view.opened[call.request_id] == second
    settled: list[RequestClosed] = []

    def remember(batch: Sequence[RequestClosed]) -> None:
        settled.extend(batch)

    await bench.runtime.bridge.read(partial(ship, root, close_orphan=close_orphan, on_recorded=remember))
    [orphan] = settled
    assert (orphan.opened, orphan.cost_nanos, orphan.tokens) == (second, 0, TokenCounts())
