"""Rating, against an independent calculation with decimals."""

from decimal import ROUND_HALF_EVEN, Decimal

from hypothesis import given
from hypothesis import strategies as st

from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Price
from apps.usage.contracts import TokenCounts

BUCKETS = ("input", "output", "cache_read", "cache_write", "reasoning")
prices = st.decimals(0, 1_000, places=9)
counts = st.integers(0, 2_000_000)


@given(st.fixed_dictionaries(dict.fromkeys(BUCKETS, prices)), st.fixed_dictionaries(dict.fromkeys(BUCKETS, counts)))
def test_cost_is_the_exact_sum_rounded_once(price: dict[str, Decimal], count: dict[str, int]) -> None:
    nanos = {name: int(amount.scaleb(9)) for name, amount in price.items()}
    usd = sum((price[name] * count[name] for name in BUCKETS), Decimal(0)) / 1_000_000
    expected = int((usd * 10**9).to_integral_value(ROUND_HALF_EVEN))
    assert cost_nanos(TokenCounts(**count), Price(version_id=1, starts_at=0, **nanos)) == expected


def test_nothing_used_costs_nothing_and_a_known_request_costs_what_the_price_list_says() -> None:
    price = Price(
        version_id=1, starts_at=0, input=150_000_000, output=600_000_000, cache_read=75_000_000,
        cache_write=150_000_000, reasoning=600_000_000,
    )  # fmt: skip
    assert cost_nanos(TokenCounts(), price) == 0
    # 1000 in at 0.15, 200 cached at 0.075, 500 out at 0.60 USD per million: 0.00015 + 0.000015 + 0.0003
    assert cost_nanos(TokenCounts(input=1_000, cache_read=200, output=500), price) == 465_000
