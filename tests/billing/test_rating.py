"""Rating, against an independent calculation with decimals."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.billing.holding import output_covered, worst_cost_nanos
from apps.billing.rating import cost_nanos, exact_cost
from apps.catalog.contracts import Price, PriceVariant
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


RARE = ("cache_write_1h", "audio_input", "image_input", "audio_output", "image_output")
NIGHT = "req_" + f"{int(datetime(2026, 11, 22, 23, 30, tzinfo=UTC).timestamp() * 1000):012x}" + "0" * 20
NOON = "req_" + f"{int(datetime(2026, 11, 22, 12, 0, tzinfo=UTC).timestamp() * 1000):012x}" + "0" * 20
nanos = st.integers(0, 10**15)
amounts = {
    **dict.fromkeys(BUCKETS, nanos), **dict.fromkeys(RARE, st.none() | nanos),
    **dict.fromkeys(("per_request", "per_image"), st.integers(0, 10**9)),
}  # fmt: skip
variants = st.lists(
    st.builds(
        PriceVariant,
        **amounts,
        min_input_tokens=st.sampled_from([0, 1, 500, 1_000]),
        service_tier=st.sampled_from(["", "flex", "priority"]),
        from_minute=st.sampled_from([0, 360, 1_320]),
        until_minute=st.sampled_from([360, 720, 1_440]),
    ),
    max_size=4,
).map(tuple)
any_price = st.builds(Price, **amounts, version_id=st.just(1), starts_at=st.just(0.0), variants=variants)
small = st.integers(0, 1_000)
any_tokens = st.builds(TokenCounts, **dict.fromkeys((*BUCKETS, *RARE), small))
tiers = st.sampled_from(["", "flex", "priority"])
requests = st.sampled_from([NIGHT, NOON])


def flat(**changes: Any) -> dict[str, Any]:
    return {**dict.fromkeys(BUCKETS, 1_000_000), **changes}


@given(
    st.fixed_dictionaries(dict.fromkeys((*BUCKETS, *RARE), prices)),
    st.fixed_dictionaries(dict.fromkeys((*BUCKETS, *RARE), counts)),
)
def test_every_bucket_is_charged_at_its_own_price(price: dict[str, Decimal], count: dict[str, int]) -> None:
    usd = sum((price[name] * count[name] for name in price), Decimal(0)) / 1_000_000
    expected = int((usd * 10**9).to_integral_value(ROUND_HALF_EVEN))
    whole = Price(version_id=1, starts_at=0.0, **{name: int(amount.scaleb(9)) for name, amount in price.items()})
    assert cost_nanos(TokenCounts(**count), whole) == expected


@given(any_price, any_tokens, tiers, requests, st.integers(0, 5))
def test_no_bill_is_above_the_worst_case(
    price: Price, tokens: TokenCounts, tier: str, request_id: str, images: int
) -> None:
    bill = cost_nanos(tokens, price, request_id=request_id, service_tier=tier, images=images)
    for room in (0, 7, 10_000):
        bound = (tokens.all_input + room, tokens.all_output + room)
        assert bill <= worst_cost_nanos(*bound, price, service_tier=tier, images=images)
        assert bill <= worst_cost_nanos(*bound, price, images=images)
    denied = cost_nanos(tokens, price, request_id=request_id, images=images)
    assert denied <= worst_cost_nanos(tokens.all_input, tokens.all_output, price, service_tier=tier, images=images)


@given(any_price, st.integers(0, 5_000), st.integers(0, 10**16), tiers, st.integers(0, 3))
def test_covered_output_is_the_most_that_the_hold_pays_for(
    price: Price, input_tokens: int, hold: int, tier: str, images: int
) -> None:
    covered = output_covered(hold, input_tokens, price, service_tier=tier, images=images)
    if covered >= 0:
        assert worst_cost_nanos(input_tokens, covered, price, service_tier=tier, images=images) <= hold
        dearer = worst_cost_nanos(input_tokens, covered + 1, price, service_tier=tier, images=images)
        free_output = worst_cost_nanos(0, 10, price, service_tier=tier) == worst_cost_nanos(
            0, 0, price, service_tier=tier
        )
        assert dearer > hold or free_output


@given(any_price, st.lists(any_tokens, max_size=6), st.randoms(use_true_random=False))
def test_exact_costs_add_up_in_any_order(price: Price, requests_of: list[TokenCounts], random: Any) -> None:
    costs = [exact_cost(tokens, price) for tokens in requests_of]
    random.shuffle(requests_of)
    assert sum(costs) == sum(exact_cost(tokens, price) for tokens in requests_of)


@given(any_tokens, nanos)
def test_a_bucket_without_a_price_costs_what_its_container_costs(tokens: TokenCounts, amount: int) -> None:
    price = Price(version_id=1, starts_at=0.0, **dict.fromkeys(BUCKETS, amount))
    assert exact_cost(tokens, price) == (tokens.all_input + tokens.all_output) * amount


def test_an_hour_long_cache_without_a_price_costs_as_a_cache_write_and_not_as_input() -> None:
    price = Price(version_id=1, starts_at=0.0, **flat(cache_write=3_000_000))
    assert cost_nanos(TokenCounts(cache_write_1h=1), price) == 3


def test_a_tier_begins_at_its_number_of_tokens_and_is_for_the_whole_request() -> None:
    long = PriceVariant(**flat(input=2_000_000, output=5_000_000), min_input_tokens=1_000)
    price = Price(version_id=1, starts_at=0.0, **flat(), variants=(long,))
    assert cost_nanos(TokenCounts(input=999, output=10), price) == 999 + 10
    assert cost_nanos(TokenCounts(input=1_000, output=10), price) == 2_000 + 50
    # cached and media tokens are input too, output is not
    assert (
        cost_nanos(TokenCounts(input=990, cache_read=5, audio_input=5, output=10), price) == 980 * 2 + 20 + 5 + 10 + 50
    )
    assert cost_nanos(TokenCounts(input=999, output=5_000), price) == 999 + 5_000


def test_the_worst_case_knows_a_tier_that_begins_at_its_very_bound_and_none_above() -> None:
    long = PriceVariant(**flat(input=2_000_000), min_input_tokens=1_000)
    price = Price(version_id=1, starts_at=0.0, **flat(), variants=(long,))
    assert worst_cost_nanos(1_000, 0, price) == cost_nanos(TokenCounts(input=1_000), price) == 2_000
    assert worst_cost_nanos(999, 0, price) == 999


def test_the_first_variant_that_fits_counts() -> None:
    both = PriceVariant(**flat(input=7_000_000), min_input_tokens=10, service_tier="priority")
    dear = PriceVariant(**flat(input=3_000_000), service_tier="priority")
    long = PriceVariant(**flat(input=2_000_000), min_input_tokens=10)
    price = Price(version_id=1, starts_at=0.0, **flat(), variants=(both, dear, long))
    few, many = TokenCounts(input=9), TokenCounts(input=10)
    assert [cost_nanos(tokens, price) for tokens in (few, many)] == [9, 20]
    assert [cost_nanos(tokens, price, service_tier="priority") for tokens in (few, many)] == [27, 70]
    assert [cost_nanos(tokens, price, service_tier="flex") for tokens in (few, many)] == [9, 20]


@pytest.mark.parametrize(
    ("window", "minute", "is_inside"),
    [
        ((60, 120), 59, False), ((60, 120), 60, True), ((60, 120), 119, True), ((60, 120), 120, False),
        ((1_320, 360), 1_319, False), ((1_320, 360), 1_320, True), ((1_320, 360), 0, True),
        ((1_320, 360), 359, True), ((1_320, 360), 360, False),
    ],
)  # fmt: skip
def test_a_window_includes_its_first_minute_and_not_its_last(
    window: tuple[int, int], minute: int, is_inside: bool
) -> None:
    cheap = PriceVariant(**flat(input=0), from_minute=window[0], until_minute=window[1])
    price = Price(version_id=1, starts_at=0.0, **flat(), variants=(cheap,))
    moment = datetime(2026, 11, 22, minute // 60, minute % 60, 59, tzinfo=UTC)
    request_id = f"req_{int(moment.timestamp() * 1000):012x}{'0' * 20}"
    assert (cost_nanos(TokenCounts(input=1), price, request_id=request_id) == 0) is is_inside


def test_a_price_with_hours_is_not_rated_without_knowing_the_time() -> None:
    cheap = PriceVariant(**flat(input=0), from_minute=60, until_minute=120)
    with pytest.raises(ValueError, match="not an id of ours"):
        cost_nanos(TokenCounts(input=1), Price(version_id=1, starts_at=0.0, **flat(), variants=(cheap,)))


def test_flat_parts_are_added_once_and_only_to_requests_with_tokens() -> None:
    price = Price(version_id=1, starts_at=0.0, **flat(), per_request=500, per_image=30)
    assert cost_nanos(TokenCounts(), price, images=2) == 0
    assert cost_nanos(TokenCounts(input=1), price) == 501
    assert cost_nanos(TokenCounts(audio_output=1), price, images=2) == 561
    assert worst_cost_nanos(1, 1, price, images=2) == 562
