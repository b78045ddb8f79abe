"""GET /generation: the receipt of one request, from the moment its answer ends, for its own organization alone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from threading import Lock
from typing import Any

import pytest
import pytest_asyncio
from django.conf import settings

from apps.billing import receipt_reading
from apps.billing.posting import post_batch
from apps.billing.recovery import close_orphan
from apps.core.ids import new_id
from apps.gateway.receipts import MAX_WAITING_OF_KEY, WAIT_S, Receipts
from apps.usage.journal import Journal
from apps.usage.models import UsageRecord
from apps.usage.recording import record
from apps.usage.shipping import ship
from tests.factories import PRICE, closed, opened
from tests.gateway.conftest import Bench, Call
from tests.gateway.test_money import short_connections

__all__ = ["short_connections"]
pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]
PATH = "/api/v1/generation"
OF_PRICES = ("price", "lines", "discounts", "sum", "rounding", "overage_not_billed", "correction")


class Desk:
    """The bench, and the one endpoint with its query."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def ask(self, wanted: str) -> Call:
        return await self.bench.call(PATH, query=f"id={wanted}")

    async def receipt(self, wanted: str) -> Any:
        call = await self.ask(wanted)
        assert call.status == 200, call.body
        return json.loads(call.body, parse_float=Decimal)["data"]

    async def in_thread(self, work: Any) -> Any:
        return await self.bench.runtime.bridge.read(work)


@pytest_asyncio.fixture
async def desk(short_connections: None, transactional_db: None, bench: Bench) -> AsyncIterator[Desk]:
    yield Desk(bench)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_receipt_is_there_when_the_answer_ends_and_is_exact(desk: Desk, stream: bool) -> None:
    call = await desk.bench.chat("base", "one two three four", stream=stream)
    end = desk.bench.record(call)
    told = await desk.receipt(call.headers["x-crun-generation-id"])
    cost = Decimal(end.cost_nanos) / 10**9
    assert told["id"] == told["request_id"] == call.request_id
    assert (told["total_cost"], told["usage"]) == (cost, cost)
    assert (told["model"], told["streamed"], told["cancelled"], told["status"]) == ("base", stream, False, "completed")
    assert (told["tokens_prompt"], told["tokens_completion"]) == (end.tokens.all_input, end.tokens.all_output)
    assert (told["finish_reason"], told["is_sandbox"], told["key_id"]) == ("stop", False, "key_1")
    assert (told["endpoint"], told["api_type"]) == ("chat/completions", "completions")
    assert told["latency"] + told["generation_time"] == told["duration"] == end.duration_ms
    receipt = told["receipt"]
    lines = sum(Decimal(line["amount"]) for line in receipt["lines"])
    assert lines == Decimal(receipt["sum"])
    assert lines + Decimal(receipt["rounding"]) - Decimal(receipt["overage_not_billed"]) == Decimal(receipt["cost"])
    assert Decimal(receipt["cost"]) == Decimal(receipt["charged"]) == cost
    for line in receipt["lines"]:
        assert Decimal(line["unit_price"]) / line["per"] * line["quantity"] == Decimal(line["amount"])
    assert {line["item"] for line in receipt["lines"]} == {"input_tokens", "output_tokens"}
    assert (receipt["price"]["version"], receipt["estimated"], receipt["rule"]["id"]) == (1, False, "reported_usage")
    assert Decimal(receipt["balance_before"]) == 1_000_000
    assert Decimal(receipt["balance_after"]) == 1_000_000 - cost
    assert Decimal(receipt["hold"]) == Decimal(end.opened.hold_nanos or 0) / 10**9
    assert receipt["attempts"] == [
        {"number": 1, "model": "base", "started_ms": 0, "duration_ms": end.duration_ms, "status": "completed",
         "http_status": 200, "error_code": None, "paid_by": "customer", "is_byok": False,
             "cost": receipt["cost"]},
    ]  # fmt: skip
    assert receipt["discounts"] == []


async def test_nothing_tells_which_upstream_served_it(desk: Desk) -> None:
    call = await desk.bench.chat("base")
    answer = await desk.ask(call.request_id)
    assert b"local" not in answer.body
    assert b"sandbox-echo" not in answer.body


async def test_the_id_of_the_completion_will_do(desk: Desk) -> None:
    call = await desk.bench.chat("base")
    assert call.json["id"].startswith("chatcmpl-")
    assert (await desk.receipt(call.json["id"]))["request_id"] == call.request_id


async def test_a_request_that_failed_has_a_receipt_that_says_who_pays(desk: Desk) -> None:
    call = await desk.bench.chat("base", sandbox={"fault": "error_500"})
    assert call.status >= 400
    told = await desk.receipt(call.headers["x-crun-generation-id"])
    assert (told["status"], told["http_status"], told["total_cost"]) == ("failed", call.status, 0)
    assert told["receipt"]["rule"]["id"] == "nothing_delivered"
    assert told["receipt"]["attempts"][0]["paid_by"] == "operator"


async def test_it_stays_the_same_while_it_is_shipped_and_posted(desk: Desk) -> None:
    call = await desk.bench.chat("base")
    seen = [await desk.receipt(call.request_id)]
    await desk.in_thread(partial(ship, settings.JOURNAL_DIR, close_orphan=close_orphan))
    for segment in desk.bench.runtime.journal.folder.glob("*.seg"):
        segment.write_bytes(b"")  # nothing can come from there any more
    seen.append(await desk.receipt(call.request_id))
    await desk.in_thread(post_batch)
    seen.append(await desk.receipt(call.request_id))
    for told in seen[1:]:  # the price version of the bench is not in the database
        assert told["receipt"]["price"] is None
        told["receipt"] |= {name: seen[0]["receipt"][name] for name in OF_PRICES}
    assert seen[1] == seen[2] == seen[0]


async def test_one_that_arrives_from_another_machine_is_waited_for(desk: Desk) -> None:
    end = closed(opened(organization_id="org_1"))

    async def arrive() -> None:
        await asyncio.sleep(0.5)
        await desk.in_thread(partial(record, [end]))

    arriving = asyncio.create_task(arrive())
    began = time.monotonic()
    told = await desk.receipt(end.opened.request_id)
    assert 0.4 < time.monotonic() - began < WAIT_S
    assert told["request_id"] == end.opened.request_id
    await arriving


async def test_an_id_that_nobody_made_is_404_after_a_bounded_wait_and_an_old_one_at_once(desk: Desk) -> None:
    began = time.monotonic()
    call = await desk.ask(new_id("req"))
    assert (call.status, call.json["error"]["code"], call.json["error"]["param"]) == (404, "generation_not_found", "id")
    assert time.monotonic() - began < WAIT_S + 10
    began = time.monotonic()
    assert (await desk.ask("req_0192" + "0" * 28)).status == 404
    assert time.monotonic() - began < WAIT_S


async def test_who_waits_has_the_journals_read_at_its_beginning_and_its_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    real = receipt_reading.find_closed

    def find(root: Any, request_id: str) -> Any:
        reads.append(request_id)
        return real(root, request_id)

    monkeypatch.setattr(receipt_reading, "find_closed", find)
    assert (await desk.ask(new_id("req"))).status == 404
    assert len(reads) == 2


async def test_one_that_ends_here_while_it_is_asked_for_is_found(desk: Desk) -> None:
    end = closed(opened(organization_id="org_1"))
    journal = desk.bench.runtime.journal
    journal.open_request(end.opened)
    asking = asyncio.create_task(desk.ask(end.opened.request_id))
    await asyncio.sleep(0.3)
    journal.close_request(end)
    assert (await asking).status == 200


async def test_a_key_that_asks_for_what_is_not_there_does_not_keep_others_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a flood by one key few wait, and one looks at a time; the rest are answered after one look."""
    monkeypatch.setattr("apps.gateway.receipts.WAIT_S", 1.0)
    at_once, most = 0, 0
    real, lock = receipt_reading.find_closed, Lock()

    def find(root: Any, request_id: str) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return real(root, request_id)

    monkeypatch.setattr(receipt_reading, "find_closed", find)
    waited: list[str] = []
    wait_for = Receipts._wait_for

    async def waiting(self: Receipts, grant: Any, request_id: str) -> Any:
        waited.append(request_id)
        return await wait_for(self, grant, request_id)

    monkeypatch.setattr(Receipts, "_wait_for", waiting)
    calls = await asyncio.gather(*(desk.ask(new_id("req")) for _ in range(20)))
    assert {call.status for call in calls} == {404}
    assert most == 1 and len(waited) == MAX_WAITING_OF_KEY
    assert not desk.bench.runtime.receipts._waiting_of


@pytest.mark.parametrize("nonsense", ["x", "req_1", "req_" + "f" * 32, "gen-123", "req_" + "G" * 32])
async def test_what_is_no_id_of_ours_is_404(desk: Desk, nonsense: str) -> None:
    assert (await desk.ask(nonsense)).status == 404


async def test_without_an_id_the_field_is_named(desk: Desk) -> None:
    call = await desk.bench.call(PATH)
    assert (call.status, call.json["error"]["param"]) == (400, "id")


@pytest.mark.parametrize("where", ["journal", "record"])
async def test_a_strangers_request_is_404_like_one_that_never_was(
    desk: Desk, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.gateway.receipts.WAIT_S", 0.2)
    end = closed(opened(organization_id="org_stranger"))
    if where == "record":
        await desk.in_thread(partial(record, [end]))
    else:
        journal = Journal(settings.JOURNAL_DIR, max_bytes=1 << 20)
        journal.open_request(end.opened)
        journal.close_request(end)
    call = await desk.ask(end.opened.request_id)
    nobody = await desk.ask(wanted := new_id("req"))
    assert call.status == nobody.status == 404
    assert call.body == nobody.body.replace(wanted.encode(), end.opened.request_id.encode())


async def test_sandbox_keys_and_live_keys_see_their_own_side_alone(desk: Desk) -> None:
    sides = {
        sandbox: closed(opened(organization_id="org_1", price=PRICE, sandbox=sandbox)) for sandbox in (True, False)
    }
    await desk.in_thread(partial(record, list(sides.values())))
    for sandbox in (True, False):
        desk.bench.limit(sandbox=sandbox)
        assert (await desk.receipt(sides[sandbox].opened.request_id))["is_sandbox"] is sandbox
        assert (await desk.ask(sides[not sandbox].opened.request_id)).status == 404


async def test_who_is_not_known_learns_nothing(desk: Desk) -> None:
    call = await desk.bench.chat("base")
    assert (await desk.bench.call(PATH, headers={}, query=f"id={call.request_id}")).status == 401


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("completions", {"prompt": "x"}),
        ("messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}),
        ("responses", {"input": "x", "store": False}),
    ],
)
async def test_a_record_says_where_it_was_asked(desk: Desk, path: str, fields: dict[str, Any]) -> None:
    """On the receipt at once, and from the database after shipping."""
    call = await desk.bench.call(f"/api/v1/{path}", {"model": "base", **fields})
    assert call.status == 200
    assert desk.bench.record(call).opened.endpoint == path
    assert (await desk.receipt(call.request_id))["endpoint"] == path
    journals = desk.bench.runtime.journal.folder.parent
    await desk.bench.runtime.bridge.read(lambda: ship(journals, close_orphan=close_orphan))
    stored = await desk.bench.runtime.bridge.read(lambda: UsageRecord.objects.get(request_id=call.request_id))
    assert (stored.endpoint, receipt_reading._closed(stored, None).opened.endpoint) == (path, path)
