"""Fees for own provider keys: which one is in force, what a price becomes, and that posting, corrections, proofs and
vendors' bills know it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.db import IntegrityError, InternalError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.models import Organization
from apps.billing.holding import worst_cost_nanos
from apps.billing.models import ProviderKeyFee
from apps.billing.pricing.book import DEFAULT_FEE_PPM, FeeRule, PriceBook, as_fee, at_share
from apps.billing.pricing.loading import load_book
from apps.billing.pricing.rerating import preview_rerating, rerate
from apps.billing.rating import cost_nanos
from apps.billing.receipt_reading import find_stored_receipt
from apps.billing.reconciliation.drift import read_drift
from apps.catalog.contracts import Price, PriceVariant
from apps.catalog.models import Provider
from apps.catalog.snapshot import read_version
from apps.policies import credentials
from apps.policies.models import ProviderCredential
from apps.usage.contracts import AttemptMade, CacheHit, Outcome, RequestClosed, TokenCounts
from apps.usage.export import iter_rows
from apps.usage.models import UsageRecord, UsageRollup
from tests import factories
from tests.billing import books
from tests.billing.pricing.traffic import MODEL, corrected, deltas, list_price, post, rule, window

PPM = st.integers(0, 1_000_000)
RATE = st.integers(0, 10**12)


def with_own_key(
    owner: Organization, price: Price, *, ppm: int = 50_000, tokens: int = 1_000, **changes: Any
) -> RequestClosed:
    """A request that the organization's own key served."""
    fee, counts = as_fee(price, ppm), TokenCounts(input=tokens)
    names = {"credential_id": "cred_1", "hold_nanos": None} | changes
    opened = factories.opened(organization_id=owner.id, price=fee, model=MODEL, **names)
    return factories.closed(opened, tokens=counts, cost_nanos=cost_nanos(counts, fee))


@given(PPM, RATE, RATE, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_fee_is_that_part_of_the_price_and_never_more_than_what_is_held_for_it(
    ppm: int, dear: int, cheap: int, tokens_in: int, tokens_out: int
) -> None:
    variant = PriceVariant(
        input=cheap, output=dear, cache_read=cheap, cache_write=cheap, reasoning=dear, min_input_tokens=1_000
    )
    price = Price(
        version_id=1, starts_at=0.0, input=dear, output=cheap, cache_read=dear, cache_write=dear, reasoning=cheap,
        per_request=7, variants=(variant,),
    )  # fmt: skip
    fee, tokens = as_fee(price, ppm), TokenCounts(input=tokens_in, output=tokens_out)
    paid, normal = cost_nanos(tokens, fee), cost_nanos(tokens, price)
    assert paid <= worst_cost_nanos(tokens_in, tokens_out, price)
    assert paid <= worst_cost_nanos(tokens_in, tokens_out, fee)
    assert abs(paid - normal * ppm / 1_000_000) <= 2 + (tokens_in + tokens_out) / 10**6
    assert (fee.fee_ppm, fee.version_id) == (ppm, 1)


def test_the_latest_fee_of_the_organization_goes_before_the_latest_of_everybody() -> None:
    fees = [FeeRule("", 10.0, 40_000), FeeRule("", 20.0, 30_000), FeeRule("org_1", 15.0, 0), FeeRule("org_1", 30.0, 9)]
    book = PriceBook(fees=fees)
    assert [book.fee_ppm("org_1", moment=moment) for moment in (5, 12, 16, 25, 31)] == [50_000, 40_000, 0, 0, 9]
    assert [book.fee_ppm("org_2", moment=moment) for moment in (5, 12, 25)] == [50_000, 40_000, 30_000]
    assert DEFAULT_FEE_PPM == 50_000
    assert book.fee_for("org_2", factories.PRICE, moment=25.0).input == 150_000_000 * 3 // 100


@pytest.mark.django_db
def test_a_fee_is_in_every_book_at_the_next_version_and_stays_as_it_was_said() -> None:
    owner, version = books.organization(), read_version()
    row = ProviderKeyFee.objects.create(percent=Decimal("2.5"), starts_at=datetime(2026, 1, 1, tzinfo=UTC))
    ProviderKeyFee.objects.create(organization=owner, percent=0, starts_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert read_version() > version
    now = datetime.now(UTC).timestamp()
    assert [load_book().fee_ppm(each, moment=now) for each in (owner.id, "org_other")] == [0, 25_000]
    for statement in ("UPDATE billing_providerkeyfee SET percent = 1", "DELETE FROM billing_providerkeyfee"):
        with pytest.raises((IntegrityError, InternalError)), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    for percent in ("-1", "100.5"):
        with pytest.raises(IntegrityError), transaction.atomic():
            ProviderKeyFee.objects.create(percent=Decimal(percent))
    assert row.percent == Decimal("2.5")


@pytest.mark.django_db
def test_posting_knows_the_fee_and_keeps_it_apart(caplog: pytest.LogCaptureFixture) -> None:
    owner, price = books.organization(), list_price()
    credit = 10**9
    books.credit(owner, credit)
    own, shared = with_own_key(owner, price), books.used(owner, price, tokens=1_000, model=MODEL)
    post(own, shared)
    assert (own.cost_nanos, shared.cost_nanos) == (7_500, 150_000)
    rollups = UsageRollup.objects.for_organization(owner.id).order_by("byok")
    assert [(row.byok, row.requests, row.cost_nanos) for row in rollups] == [(False, 1, 150_000), (True, 1, 7_500)]
    assert books.failed_proofs() == []
    assert [entry.message for entry in caplog.records if entry.levelname == "ERROR"] == []
    record = UsageRecord.objects.get(request_id=own.opened.request_id)
    assert (record.is_byok, record.credential_id, record.fee_ppm) == (True, "cred_1", 50_000)
    told = {row["request_id"]: (row["is_byok"], row["cost_usd"]) for row in iter_rows(owner.id)}
    assert told == {own.opened.request_id: (True, "0.000007500"), shared.opened.request_id: (False, "0.000150000")}


@pytest.mark.django_db
def test_a_correction_keeps_the_fee_of_each_request() -> None:
    owner, price = books.organization(), list_price()
    post(
        with_own_key(owner, price),
        with_own_key(owner, price, ppm=0),
        books.used(owner, price, tokens=1_000, model=MODEL),
    )
    corrected("0.30")
    assert preview_rerating(window()).total.difference_nanos == 7_500 + 150_000
    rerate(window(), reason="Typo", actor="test")
    assert sorted(deltas(owner)) == [7_500, 150_000]
    assert preview_rerating(window()).total.difference_nanos == 0
    assert books.failed_proofs() == []


@pytest.mark.django_db
def test_a_fee_is_a_part_of_what_the_price_book_says() -> None:
    owner, price = books.organization(), list_price()
    rule(owner, "-10")
    book = load_book()
    now = datetime.now(UTC).timestamp()
    own = book.price_for(owner.id, MODEL, price, moment=now)
    fee = book.fee_for(owner.id, own, moment=now)
    assert fee.input == 150_000_000 * 9 // 10 // 20 and fee.rule_id == own.rule_id != ""
    assert book.fee_for(owner.id, own, moment=now) is fee


@pytest.mark.django_db
def test_a_vendors_bill_has_nothing_of_what_own_keys_served() -> None:
    Provider.objects.create(id="openai", name="OpenAI", base_url="https://api.openai.com/v1")
    owner, price = books.organization(), list_price()
    post(
        with_own_key(owner, price, provider="openai"),
        books.used(owner, price, tokens=70, provider="openai", model=MODEL),
    )
    today = datetime.now(UTC).date()
    [row] = [each for each in read_drift("openai", today - timedelta(days=1), today) if each.our_tokens]
    assert (row.requests, row.our_tokens, row.charged_nanos) == (1, 70, 70 * 150)


@pytest.mark.django_db
def test_posting_tells_a_key_when_it_was_used_and_what_it_met() -> None:
    host = Provider.objects.create(id="vendor", name="Vendor", base_url="https://api.vendor.example/v1")
    owner, price = books.organization(), list_price()
    rows = [
        credentials.add_credential(owner.id, host, "sk-own-0123456789abcdef", credentials.Terms(label=label), actor="a")
        for label in ("refused", "good", "unused")
    ]
    refused, good, unused = (row.id for row in rows)

    def made(credential: str, outcome: Outcome, code: str = "") -> AttemptMade:
        return AttemptMade(MODEL, "vendor", 0, 1, outcome, 403, code, "customer", credential)

    end = with_own_key(owner, price, credential_id=good)
    attempts = (made(refused, Outcome.FAILED, "provider_key_refused"), made(good, Outcome.COMPLETED))
    post(msgspec.structs.replace(end, attempts=attempts))
    found = {row.pk: (row.last_used_at is not None, row.last_error) for row in ProviderCredential.objects.all()}
    assert found == {refused: (True, "provider_key_refused"), good: (True, ""), unused: (False, "")}
    alone = with_own_key(owner, price, credential_id=good, tokens=0)
    post(msgspec.structs.replace(alone, outcome=Outcome.FAILED, error_code="upstream_overloaded"))
    assert ProviderCredential.objects.get(pk=good).last_error == "upstream_overloaded"


@pytest.mark.django_db
def test_an_answer_that_cost_a_fee_costs_its_share_of_that_out_of_the_cache(caplog: pytest.LogCaptureFixture) -> None:
    owner, price = books.organization(), list_price()
    fee, tokens = as_fee(price, 50_000), TokenCounts(input=1_000)
    own = at_share(fee, 500_000)
    opened = factories.opened(
        organization_id=owner.id, price=own, model=MODEL, hold_nanos=3_750, cache_hit=CacheHit(500_000, 7_500)
    )
    post(factories.closed(opened, tokens=tokens, cost_nanos=cost_nanos(tokens, own)))
    receipt = find_stored_receipt(owner.id, opened.request_id)
    assert receipt is not None and receipt.arithmetic is not None
    assert (receipt.charged_nanos, receipt.arithmetic.correction_nanos, receipt.is_byok) == (3_750, 0, True)
    assert [entry.message for entry in caplog.records if entry.levelname == "ERROR"] == []
