"""Own provider keys with the database: from a row to the header of a request and back to receipt, balance and row."""

import json
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings

from apps.billing.ledger import balance_nanos
from apps.billing.posting import post_batch
from apps.billing.pricing.loading import load_book
from apps.billing.recovery import close_orphan
from apps.catalog.models import Provider
from apps.keys.issuing import create_key
from apps.keys.lookup import KeyLookup
from apps.keys.reading import read_grant
from apps.policies import credentials
from apps.policies.models import ProviderCredential
from apps.usage.models import UsageRecord
from apps.usage.shipping import ship
from tests.billing import books
from tests.billing.pricing.traffic import list_price, rule
from tests.factories import project
from tests.gateway.conftest import UPSTREAM_KEY, Bench
from tests.gateway.own_keys import KeyedUpstream, Tenants, refusal
from tests.gateway.test_money import short_connections

__all__ = ["short_connections"]
pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]
MINE = "sk-own-canary-of-acme-0123456789"


async def in_thread(bench: Bench, work: Any) -> Any:
    return await bench.runtime.bridge.read(work)


async def test_from_the_row_to_the_header_and_back(
    short_connections: None, transactional_db: None, bench: Bench, empty_store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with KeyedUpstream() as upstream:
        tenants = Tenants(bench, upstream)

        def prepare() -> Any:
            price = list_price()
            issued = create_key(project(), name="Key")
            rule(issued.key.organization, "-10", model_id=None)
            host = Provider.objects.create(id="local", name="Local", base_url=upstream.url)
            row = credentials.add_credential(
                issued.key.organization_id, host, MINE, credentials.Terms(label="Ours"), actor="owner"
            )
            return price, issued, row, load_book()

        price, issued, row, bench.runtime.catalog.book = await in_thread(bench, prepare)
        tenants.offer(price=price)

        async def read(digests: Any) -> Any:
            return await in_thread(bench, lambda: read_grant(digests))

        bench.runtime.keys = KeyLookup(read, settings.KEY_PEPPERS)
        own = await tenants.ask(key=issued.secret)
        upstream.by_key[MINE] = refusal(401, message=f"Incorrect API key provided: {MINE}")
        shared = await tenants.ask(key=issued.secret)
        assert upstream.keys == [MINE, MINE, UPSTREAM_KEY]

        async def receipt(call: Any) -> Any:
            headers = {"authorization": f"Bearer {issued.secret}"}
            found = await bench.call("/api/v1/generation", query=f"id={call.request_id}", headers=headers)
            return json.loads(found.body, parse_float=Decimal)["data"]

        from_journal = [await receipt(each) for each in (own, shared)]
        await in_thread(bench, lambda: ship(settings.JOURNAL_DIR, close_orphan=close_orphan))
        await in_thread(bench, post_batch)
        from_record = [await receipt(each) for each in (own, shared)]
        assert from_journal == from_record

        told, owner = from_record[0]["receipt"], issued.key.organization_id
        fee = (20 * 150 + 40 * 600) * 9 // 10 // 20
        assert (from_record[0]["is_byok"], told["byok"]) == (True, {"fee_percent": "5", "fee": "0.000001215"})
        assert [each["description"] for each in told["discounts"]] == [
            "10 % discount", "Own provider key: the fee is 5 %",
        ]  # fmt: skip
        lines = sum(Decimal(line["amount"]) for line in told["lines"])
        assert lines - sum(Decimal(each["amount"]) for each in told["discounts"]) == Decimal(told["sum"])
        assert (Decimal(told["sum"]), told["correction"]) == (Decimal(fee) / 10**9, "0.000000000")
        assert (from_record[1]["is_byok"], from_record[1]["receipt"]["byok"]) == (False, None)
        assert [each["is_byok"] for each in from_record[1]["receipt"]["attempts"]] == [True, False]

        records = await in_thread(bench, lambda: list(UsageRecord.objects.order_by("request_id")))
        assert [(each.cost_nanos, each.credential_id) for each in records] == [(fee, row.id), (fee * 20, "")]
        assert await in_thread(bench, lambda: balance_nanos(owner)) == -21 * fee
        assert await in_thread(bench, books.failed_proofs) == []
        noted = await in_thread(bench, lambda: ProviderCredential.objects.get(pk=row.id))
        assert (noted.last_error, noted.last_used_at is not None) == ("provider_key_refused", True)
        assert [entry.message for entry in caplog.records if entry.levelname == "ERROR"] == []

        # Switched off: from the next reading of the grant on nobody uses it.
        await in_thread(bench, lambda: credentials.switch_credential(row, on=False, actor="owner"))
        bench.runtime.keys.distrust(owner)
        await tenants.ask(key=issued.secret)
        assert upstream.keys[-1] == UPSTREAM_KEY
