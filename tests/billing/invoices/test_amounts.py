"""Rounding to cents happens once a document, is visible, and loses nothing; taxes split a total exactly."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.billing.invoices.amounts import (
    ROUNDING,
    Item,
    Rate,
    add_up,
    cents_from_nanos,
    contained_taxes,
    share_of_tax,
)
from apps.core.money import NANOS_PER_CENT

AMOUNTS = st.integers(-(10**15), 10**15) | st.integers(-20_000_000, 20_000_000) | st.just(5_000_000)
PERCENTS = st.decimals(0, 100, places=4)


@given(st.lists(AMOUNTS, min_size=1, max_size=60))
def test_d21_both_columns_sum_to_the_total_which_is_rounded_once(amounts: list[int]) -> None:
    account = add_up([Item("x", amount) for amount in amounts])
    assert account.total_nanos == sum(amounts)
    assert sum(line.amount_nanos for line in account.lines) == account.total_cents * NANOS_PER_CENT
    assert sum(line.amount_cents for line in account.lines) == account.total_cents
    assert abs(account.total_cents * NANOS_PER_CENT - sum(amounts)) <= NANOS_PER_CENT // 2
    assert [line.kind for line in account.lines].count(ROUNDING) <= 1


def test_d21_a_million_tiny_requests_lose_nothing() -> None:
    """Each of them alone is far below half a cent: rounding one by one would make them free."""
    account = add_up([Item("tiny", 1_234)] * 1_000_000)
    assert account.total_nanos == 1_234_000_000
    assert account.total_cents == 123
    rounding = account.lines[-1]
    assert (rounding.kind, rounding.amount_nanos) == (ROUNDING, -4_000_000)


def test_what_needs_no_rounding_has_no_rounding_line() -> None:
    assert [line.amount_cents for line in add_up([Item("a", 10**9), Item("b", -(10**7))]).lines] == [100, -1]


@pytest.mark.parametrize(
    ("nanos", "cents"), [(4_999_999, 0), (5_000_000, 0), (5_000_001, 1), (15_000_000, 2), (-5_000_001, -1)]
)
def test_ties_go_to_the_even_cent(nanos: int, cents: int) -> None:
    assert cents_from_nanos(nanos) == cents


@given(st.integers(0, 10**12), st.lists(PERCENTS, max_size=4))
def test_taxes_and_net_are_the_total(total_cents: int, percents: list[Decimal]) -> None:
    taxes = contained_taxes(total_cents, [Rate("T", percent) for percent in percents])
    tax_cents = sum(tax.tax_cents for tax in taxes)
    assert all(tax.tax_cents >= 0 and tax.base_cents == total_cents - tax_cents for tax in taxes)
    whole = sum(map(Fraction, percents), Fraction(0))
    assert abs(tax_cents - Fraction(total_cents) * whole / (100 + whole)) <= Fraction(1, 2)


def test_twenty_percent_of_twelve_dollars_is_two() -> None:
    (tax,) = contained_taxes(1200, [Rate("VAT", Decimal(20))])
    assert (tax.base_cents, tax.tax_cents) == (1000, 200)


@given(st.integers(1, 10**9), PERCENTS, st.lists(st.integers(1, 10**8), max_size=12))
def test_credit_notes_over_all_of_it_take_back_exactly_the_tax(
    total_cents: int, percent: Decimal, parts: list[int]
) -> None:
    tax_cents = sum(tax.tax_cents for tax in contained_taxes(total_cents, [Rate("T", percent)]))
    credited = credited_tax = 0
    for part in [*parts, total_cents]:
        amount = min(part, total_cents - credited)
        if not amount:
            continue
        share = share_of_tax(amount, total_cents=total_cents, tax_cents=tax_cents, earlier=(credited, credited_tax))
        assert 0 <= share <= amount
        credited, credited_tax = credited + amount, credited_tax + share
    assert (credited, credited_tax) == (total_cents, tax_cents)
