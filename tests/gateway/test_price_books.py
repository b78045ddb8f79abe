"""A price book at the gateway: hold, cost, receipt and ledger of an organization follow its own price at once."""

import json
import logging
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from django.conf import settings
from django.db import OperationalError

from apps.accounts.models import Organization
from apps.billing import receipt_reading
from apps.billing.ledger import balance_nanos
from apps.billing.posting import post_batch
from apps.billing.pricing.loading import load_book
from apps.billing.pricing.rerating import rerate
from apps.billing.rebuilding import rebuild
from apps.billing.recovery import close_orphan
from apps.catalog.contracts import Price
from apps.gateway.catalog_feed import CatalogFeed
from apps.usage.models import UsageRecord
from apps.usage.shipping import ship
from tests.billing import books
from tests.billing.pricing.traffic import MODEL, deltas, list_price, rule, window
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench
from tests.gateway.test_generation import Desk
from tests.gateway.test_money import short_connections

__all__ = ["short_connections"]
pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]


class Shop(Desk):
    """The desk, with an organization that has a price book."""

    owner: Organization
    price: Price

    async def open(self) -> "Shop":
        self.owner, self.price = await self.in_thread(lambda: (books.organization(), list_price()))
        self.bench.limit(organization_id=self.owner.id)
        self.bench.models[MODEL] = offered(id=MODEL, targets=(self.bench.target("sandbox-echo"),), prices=(self.price,))
        self.bench.runtime.catalog.snapshot = snapshot(*self.bench.models.values())
        return self

    async def agree(self, percent: str | None = None, **terms: Any) -> str:
        """A rule, in force at this gateway; returns its id."""
        made = await self.in_thread(lambda: rule(self.owner, percent, **terms))
        self.bench.runtime.catalog.book = await self.in_thread(load_book)
        return str(made.id)

    async def settle(self) -> None:
        """Ship and post everything."""
        await self.in_thread(lambda: ship(settings.JOURNAL_DIR, close_orphan=close_orphan))
        while await self.in_thread(post_batch):
            pass


@pytest_asyncio.fixture
async def shop(short_connections: None, transactional_db: None, bench: Bench) -> AsyncIterator[Shop]:
    yield await Shop(bench).open()


@pytest.mark.parametrize(
    ("percent", "cost", "words", "amount"),
    [
        ("-10", 2_025, "10 % discount", "0.000000225000000"),
        ("20", 2_700, "20 % markup", "-0.000000450000000"),
        ("-100", 0, "100 % discount", "0.000002250000000"),
        ("0.0001", 2_250, "0.0001 % markup", "-0.000000000002250"),
    ],
)
async def test_cost_hold_receipt_and_ledger_follow_the_rule(
    shop: Shop, percent: str, cost: int, words: str, amount: str, caplog: pytest.LogCaptureFixture
) -> None:
    listed_hold = shop.bench.record(await shop.bench.chat(MODEL, "one two three", max_tokens=9)).opened.hold_nanos
    rule_id = await shop.agree(percent)
    call = await shop.bench.chat(MODEL, "one two three", max_tokens=9)
    assert Decimal(call.headers["x-crun-cost"]) == Decimal(cost) / 10**9
    end = shop.bench.record(call)
    assert (end.cost_nanos, end.opened.price.rule_id, end.overage_nanos) == (cost, rule_id, 0)
    assert end.opened.hold_nanos is not None and listed_hold is not None
    expected_hold = listed_hold * (100 + float(percent)) / 100
    assert abs(end.opened.hold_nanos - expected_hold) <= 1

    from_journal = (await shop.receipt(call.request_id))["receipt"]
    await shop.settle()
    from_record = (await shop.receipt(call.request_id))["receipt"]
    assert from_journal == from_record
    assert from_record["discounts"] == [{"rule_id": rule_id, "description": words, "amount": amount}]
    assert [line["unit_price"] for line in from_record["lines"]] == ["0.150000000", "0.600000000"]
    lines = sum(Decimal(line["amount"]) for line in from_record["lines"])
    assert lines - Decimal(amount) == Decimal(from_record["sum"])
    assert Decimal(from_record["sum"]) + Decimal(from_record["rounding"]) == Decimal(from_record["cost"])
    assert from_record["correction"] == "0.000000000"

    record = await shop.in_thread(lambda: UsageRecord.objects.get(request_id=call.request_id))
    assert (record.cost_nanos, record.price_rule_id) == (cost, rule_id)
    assert await shop.in_thread(lambda: balance_nanos(shop.owner.id)) == -2_250 - cost
    assert await shop.in_thread(books.failed_proofs) == []
    assert [entry.message for entry in caplog.records if entry.levelname == "ERROR"] == []


async def test_a_fixed_price_and_other_organizations(shop: Shop) -> None:
    await shop.agree(amounts={"input": Decimal(1), "output": Decimal(2)})
    call = await shop.bench.chat(MODEL, "one two three")
    assert call.headers["x-crun-cost"] == "0.000009000"
    receipt = (await shop.receipt(call.request_id))["receipt"]
    assert receipt["discounts"][0]["description"] == "fixed price"
    shop.bench.limit(organization_id="org_other")
    assert (await shop.bench.chat(MODEL, "one two three")).headers["x-crun-cost"] == "0.000002250"


async def test_models_show_the_own_price_and_the_list_price(shop: Shop) -> None:
    path = f"/api/v1/models/{MODEL}"
    assert "list_pricing" not in (await shop.bench.call(path)).json
    await shop.agree("-10")
    told = (await shop.bench.call(path)).json
    assert (told["pricing"]["prompt"], told["list_pricing"]["prompt"]) == ("0.000000135", "0.00000015")
    await shop.agree("0", starts_at=None)
    assert "list_pricing" not in (await shop.bench.call(path)).json


async def test_a_rule_that_is_gone_blocks_nothing_and_is_told(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await shop.agree("-10")
    book = shop.bench.runtime.catalog.book
    [[own]] = book._rules.values()
    ghost = msgspec.structs.replace(own, rule_id="rule_gone")
    shop.bench.runtime.catalog.book = type(book)([ghost])
    call = await shop.bench.chat(MODEL, "one two three")
    with caplog.at_level(logging.ERROR):
        await shop.settle()
    assert "or its price rule" in caplog.text
    assert await shop.in_thread(lambda: balance_nanos(shop.owner.id)) == -2_025
    receipt = (await shop.receipt(call.request_id))["receipt"]
    assert (receipt["cost"], receipt["correction"], receipt["discounts"]) == ("0.000002025", "-0.000000225", [])


async def test_without_the_database_the_receipt_is_told_at_the_own_price(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.agree("-10")
    call = await shop.bench.chat(MODEL, "one two three")

    def away(*arguments: object) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(receipt_reading, "record_of", away)
    monkeypatch.setattr(receipt_reading, "_listing", away)
    receipt = (await shop.receipt(call.request_id))["receipt"]
    assert (receipt["cost"], receipt["discounts"]) == ("0.000002025", [])
    assert receipt["lines"][0]["unit_price"] == "0.135000000"


async def test_a_new_rule_raises_the_version_and_is_loaded_with_the_catalog(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real refresh of the feed
    feed = CatalogFeed()
    await feed.refresh()
    assert feed.snapshot is not None
    before = feed.snapshot.version
    assert feed.book.rule_for(shop.owner.id, MODEL, moment=2e9) is None
    made = await shop.in_thread(lambda: rule(shop.owner, "-10"))
    await feed.refresh()
    assert feed.snapshot.version > before
    found = feed.book.rule_for(shop.owner.id, MODEL, moment=2e9)
    assert found is not None and found.rule_id == made.id
    feed.close()


@pytest.mark.parametrize(("percent", "sign"), [("50", 1), ("-50", -1)])
async def test_a_re_rating_counts_as_usage_and_not_as_credit(shop: Shop, percent: str, sign: int) -> None:
    """Whichever way it goes, what came in as credit stays."""
    answer = await shop.bench.chat(MODEL)
    assert answer.status == 200
    await shop.settle()
    await shop.in_thread(lambda: books.credit(shop.owner, 10**9))
    await shop.in_thread(lambda: rebuild([shop.owner.id], settings.JOURNAL_DIR))
    before = json.loads((await shop.bench.call("/api/v1/credits")).body, parse_float=Decimal)["data"]
    await shop.in_thread(lambda: rule(shop.owner, percent))
    done = await shop.in_thread(lambda: rerate(window(), reason="Typo", actor="test"))
    assert done is not None
    [delta] = await shop.in_thread(lambda: deltas(shop.owner))
    assert delta * sign > 0
    await shop.in_thread(lambda: rebuild([shop.owner.id], settings.JOURNAL_DIR))
    after = json.loads((await shop.bench.call("/api/v1/credits")).body, parse_float=Decimal)["data"]
    usd = Decimal(delta) / 10**9
    assert after["total_usage"] == before["total_usage"] + usd
    assert after["total_credits"] == before["total_credits"]
    assert after["balance"] == before["balance"] - usd
