"""Hits of the response cache in money: rated at their share, posted, summed and shown on receipts, to the nano."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.billing.posting import post_batch
from apps.billing.pricing.book import PERCENT_UNIT, at_share
from apps.billing.pricing.loading import book_rule
from apps.billing.pricing.versions import RuleDraft, add_rule
from apps.billing.proofs import verify
from apps.billing.rating import cost_nanos, exact_cost
from apps.billing.receipt_reading import find_receipt
from apps.billing.receipts import cache_discount, percent_of, receipt_of
from apps.catalog.contracts import FULL_SHARE_PPM, Price, PriceVariant
from apps.core.money import round_half_even
from apps.usage.contracts import RESPONSE_CACHE, CacheHit, Outcome, RequestClosed, TokenCounts
from apps.usage.export import iter_rows
from apps.usage.journal import Journal
from apps.usage.models import UsageRecord, UsageRollup
from apps.usage.recording import record
from tests.factories import PRICE, closed, opened, project, stored_price

TOKENS = TokenCounts(input=1_001, output=333, cache_read=7)
AMOUNTS = st.integers(0, 10**9)
SHARES = st.integers(0, FULL_SHARE_PPM)


def hit(price: Price, share: int, **changes: object) -> RequestClosed:
    """A request that the cache answered, as the gateway closes it."""
    full = cost_nanos(TOKENS, price)
    own = at_share(price, share)
    entry = opened(provider=RESPONSE_CACHE, upstream_model="", price=own, cache_hit=CacheHit(share, full), **changes)
    cost = cost_nanos(TOKENS, own)
    return closed(entry, tokens=TOKENS, cost_nanos=cost)


@given(AMOUNTS, AMOUNTS, AMOUNTS, SHARES)
def test_each_amount_is_rounded_half_to_even_and_the_receipt_has_no_gap(
    plain: int, output: int, cached: int, share: int
) -> None:
    price = Price(
        version_id=1, starts_at=0.0, input=plain, output=output, cache_read=cached, cache_write=plain, reasoning=output,
        per_request=plain, variants=(
            PriceVariant(input=output, output=plain, cache_read=0, cache_write=0, reasoning=1, min_input_tokens=1_000),
        ),
    )  # fmt: skip
    own = at_share(price, share)
    assert own.input == round_half_even(plain * share, PERCENT_UNIT)
    assert own.variants[0].output == round_half_even(plain * share, PERCENT_UNIT)
    assert at_share(price, FULL_SHARE_PPM) == at_share(price, None) == price
    assert cost_nanos(TOKENS, at_share(price, 0)) == 0
    end = hit(price, share)
    assert end.saved_nanos == cost_nanos(TOKENS, price) - end.cost_nanos
    arithmetic = receipt_of(end, price, discounts=[cache_discount(end, price, share)]).arithmetic
    assert arithmetic is not None
    assert (arithmetic.correction_nanos, arithmetic.rounded_nanos) == (0, end.cost_nanos)
    assert arithmetic.exact_femtos == exact_cost(TOKENS, own.variants[0])


def test_half_a_nano_goes_to_the_even_one() -> None:
    odd, even = (PRICE.__class__(**{**_amounts(PRICE), "input": amount}) for amount in (1, 3))
    assert (at_share(odd, 500_000).input, at_share(even, 500_000).input) == (0, 2)


def _amounts(price: Price) -> dict[str, object]:
    return {name: getattr(price, name) for name in price.__struct_fields__}


def test_what_was_not_whole_saved_nothing() -> None:
    end = hit(PRICE, 100_000)
    assert end.saved_nanos > 0
    assert closed(end.opened, tokens=TokenCounts(), cost_nanos=0).saved_nanos == 0
    orphan = closed(end.opened, tokens=TOKENS, cost_nanos=1, estimated=True, outcome=Outcome.INTERRUPTED)
    assert orphan.saved_nanos == 0


@pytest.mark.parametrize(("share", "words"), [(0, "0 %"), (1, "0.0001 %"), (125_000, "12.5 %"), (1_000_000, "100 %")])
def test_a_share_is_said_in_percent(share: int, words: str) -> None:
    assert f"{percent_of(share)} %" == words


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("share", [0, 123_457, FULL_SHARE_PPM])
@pytest.mark.parametrize("has_rule", [False, True])
def test_a_hit_is_posted_summed_exported_and_shown_at_what_it_cost(
    share: int, has_rule: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    price, home = stored_price(), project()
    owner = home.organization_id
    if has_rule:
        draft = RuleDraft(organization_id=owner, model_id=None, percent=Decimal("-12.5"))
        from_rule = add_rule(draft, actor="test")
        price = book_rule(from_rule).applied_to(price)
    names = {"organization_id": owner, "project_id": home.pk}
    end, paid = hit(price, share, **names), closed(opened(price=price, **names), tokens=TOKENS)
    paid = closed(paid.opened, tokens=TOKENS, cost_nanos=cost_nanos(TOKENS, price))
    journal = Journal(tmp_path, max_bytes=1 << 20)
    journal.open_request(end.opened)
    journal.close_request(end)
    early = find_receipt(owner, end.opened.request_id, journal_root=tmp_path)
    record([end, paid])
    while post_batch():
        pass
    late = find_receipt(owner, end.opened.request_id, journal_root=tmp_path / "gone")
    assert early is not None and late is not None
    assert early.arithmetic == late.arithmetic and late.arithmetic is not None
    assert late.arithmetic.correction_nanos == 0
    assert (late.saved_nanos, late.charged_nanos) == (end.saved_nanos, end.cost_nanos)
    assert len(late.arithmetic.discounts) == 1 + has_rule
    assert "cost differs" not in caplog.text
    assert [proof.name for proof in verify() if not proof.holds] == []
    kept = UsageRecord.objects.for_organization(owner).get(request_id=end.opened.request_id)
    assert (kept.is_cached, kept.cache_share_ppm, kept.saved_nanos) == (True, share, end.saved_nanos)
    sums = UsageRollup.objects.for_organization(owner).get(provider=RESPONSE_CACHE)
    assert (sums.requests, sums.cached_requests) == (1, 1)
    assert (sums.cost_nanos, sums.saved_nanos) == (end.cost_nanos, end.saved_nanos)
    other = UsageRollup.objects.for_organization(owner).exclude(provider=RESPONSE_CACHE).get()
    assert (other.cached_requests, other.saved_nanos) == (0, 0)
    rows = {row["request_id"]: (row["cached"], row["saved_usd"]) for row in iter_rows(owner)}
    assert rows[paid.opened.request_id] == (False, "0.000000000")
    assert rows[end.opened.request_id] == (True, f"{Decimal(end.saved_nanos).scaleb(-9):.9f}")
