"""The price book: percentages are exact to the nano, the specific goes before the general, the latest start counts."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from apps.billing.pricing.book import ALL_MODELS, PERCENT_UNIT, BookRule, PriceBook
from apps.billing.rating import exact_cost
from apps.billing.receipts import discount_of, receipt_of
from apps.catalog.contracts import BUCKETS, Price, PriceVariant, Rates
from apps.core.money import TOKENS_PER_PRICE_UNIT
from apps.usage.contracts import TokenCounts
from tests import factories
from tests.billing.test_receipts import counts, ended, maybe, prices, walk

AMOUNTS = (*BUCKETS, "per_request", "per_image")
changes = st.integers(-PERCENT_UNIT, 10 * PERCENT_UNIT)
fixed_rates = st.builds(
    Rates,
    **dict.fromkeys(("input", "output", "cache_read", "cache_write", "reasoning"), st.integers(0, 10**12)),
    audio_input=maybe,
    per_request=st.integers(0, 10**9),
)
PRICE = replace(factories.PRICE, variants=(PriceVariant(3, 3, 3, 3, 3, min_input_tokens=5),))


def rule(**changes: Any) -> BookRule:
    usual = {"rule_id": "rule_1", "organization_id": "org_1", "model_id": "m", "starts_at": 100.0, "change": -100_000}
    return BookRule(**{**usual, **changes})


def paid(book: PriceBook, moment: float, *, organization: str = "org_1", model: str = "m") -> str:
    """The id of the rule that made the price; "" for the list price."""
    price = book.price_for(organization, model, PRICE, moment=moment)
    if not price.rule_id:
        assert price is PRICE
    return price.rule_id


@given(prices, changes)
def test_a_percentage_changes_each_amount_exactly_and_is_rounded_once(price: Price, change: int) -> None:
    own = rule(change=change).applied_to(price)
    assert (own.version_id, own.starts_at, own.rule_id) == (price.version_id, price.starts_at, "rule_1")
    for listed, changed in [(price, own), *zip(price.variants, own.variants, strict=True)]:
        for name in AMOUNTS:
            before, after = getattr(listed, name), getattr(changed, name)
            if before is None:
                assert after is None
                continue
            with localcontext(prec=60):
                exact = Decimal(before) * (100 + Decimal(change) / 10_000) / 100
            assert after == int(exact.to_integral_value(ROUND_HALF_EVEN))
            assert after >= 0
    assert [variant.conditions for variant in own.variants] == [variant.conditions for variant in price.variants]


def test_ten_percent_off_and_twenty_percent_on_top() -> None:
    assert rule(change=-100_000).applied_to(PRICE).input == 135_000_000
    assert rule(change=200_000).applied_to(PRICE).output == 720_000_000
    assert rule(change=-PERCENT_UNIT).applied_to(PRICE).output == 0
    assert rule(change=-100_000).applied_to(replace(PRICE, input=5)).input == 4  # 4.5, to the even one
    assert rule(change=-100_000).applied_to(replace(PRICE, input=15)).input == 14  # 13.5, to the even one


def test_a_fixed_price_replaces_the_list_with_its_variants() -> None:
    own = rule(change=0, fixed=Rates(1, 2, 1, 1, 2, per_request=9)).applied_to(PRICE)
    assert (own.input, own.output, own.per_request, own.variants) == (1, 2, 9, ())
    assert own.version_id == PRICE.version_id


def test_a_rule_for_the_model_goes_before_one_for_all_however_old() -> None:
    book = PriceBook([rule(rule_id="old", starts_at=1.0), rule(rule_id="new", starts_at=50.0, model_id=ALL_MODELS)])
    assert paid(book, 60.0) == "old"
    assert paid(book, 60.0, model="other") == "new"
    assert paid(book, 60.0, organization="org_2") == ""


def test_a_rule_begins_at_its_moment_and_not_before() -> None:
    book = PriceBook([rule(rule_id="first", starts_at=100.0), rule(rule_id="second", starts_at=200.0)])
    assert [paid(book, moment) for moment in (99.999, 100.0, 199.999, 200.0, 1e9)] == [
        "", "first", "first", "second", "second",
    ]  # fmt: skip


def test_before_the_rule_for_the_model_begins_the_one_for_all_counts() -> None:
    book = PriceBook([rule(rule_id="all", starts_at=1.0, model_id=ALL_MODELS), rule(rule_id="own", starts_at=100.0)])
    assert [paid(book, moment) for moment in (0.5, 50.0, 100.0)] == ["", "all", "own"]


@given(st.lists(st.tuples(st.sampled_from(["m", "n", ""]), st.integers(0, 5)), max_size=8), st.integers(0, 6))
def test_the_book_finds_what_a_plain_search_finds(starts: list[tuple[str, int]], moment: int) -> None:
    rules = [
        rule(rule_id=f"rule_{number}", model_id=model, starts_at=float(start))
        for number, (model, start) in enumerate(dict.fromkeys(starts))
    ]
    begun = [each for each in rules if each.starts_at <= moment]
    own = [each for each in begun if each.model_id == "m"] or [each for each in begun if each.model_id == ""]
    expected = max(own, key=lambda each: each.starts_at).rule_id if own else ""
    assert paid(PriceBook(rules), float(moment)) == expected


def test_the_words_say_what_a_rule_does() -> None:
    words = [rule(change=change).in_words() for change in (-100_000, 200_000, -125_050, 1, 0)]
    assert words == ["10 % discount", "20 % markup", "12.505 % discount", "0.0001 % markup", "list price"]
    assert rule(fixed=Rates(1, 1, 1, 1, 1)).in_words() == "fixed price"


@given(counts, prices, changes, st.none() | fixed_rates, st.none() | st.integers(0, 10**12))
def test_a_receipt_at_list_price_with_the_rule_as_a_line_sums_exactly_to_the_cost(
    tokens: TokenCounts, listed: Price, change: int, fixed: Rates | None, hold: int | None
) -> None:
    own_rule = rule(change=change, fixed=fixed)
    closed = ended(tokens, own_rule.applied_to(listed), hold=hold)
    discount = discount_of(closed, listed, own_rule)
    arithmetic = receipt_of(closed, listed, discounts=[discount]).arithmetic
    assert arithmetic is not None
    assert walk(arithmetic) == closed.cost_nanos
    assert arithmetic.correction_nanos == 0
    assert discount.rule_id == "rule_1"


@given(st.integers(0, 10**9), st.integers(0, 10**12), changes)
def test_rounding_the_price_costs_less_than_a_nano_dollar_for_two_million_tokens(
    number: int, amount: int, change: int
) -> None:
    price = replace(factories.PRICE, input=amount)
    tokens = TokenCounts(input=number)
    exact = Fraction(number * amount * (PERCENT_UNIT + change), PERCENT_UNIT)
    own = exact_cost(tokens, rule(change=change).applied_to(price))
    assert abs(own - exact) * 2 <= number <= 1_000 * TOKENS_PER_PRICE_UNIT
