"""Integer money and its one rounding rule."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import format_usd, nanos_from_usd, round_half_even, usd_from_nanos


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_rounding_is_half_to_even_like_decimals(numerator: int, denominator: int) -> None:
    expected = (Decimal(numerator) / denominator) if denominator == 1 else None
    exact = divmod(numerator, denominator)
    rounded = round_half_even(numerator, denominator)
    assert abs(rounded * denominator - numerator) * 2 <= denominator
    if exact[1] * 2 == denominator:
        assert rounded % 2 == 0
    if expected is not None:
        assert rounded == int(expected.to_integral_value(ROUND_HALF_EVEN))


@given(st.integers(-(10**18), 10**18))
def test_dollars_and_nanos_are_the_same_amount(nanos: int) -> None:
    assert nanos_from_usd(usd_from_nanos(nanos)) == nanos
    assert nanos_from_usd(Decimal(format_usd(nanos))) == nanos


@pytest.mark.parametrize("text", ["0.0000000001", "NaN", "Infinity"])
def test_what_is_no_whole_number_of_nanos_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        nanos_from_usd(Decimal(text))


def test_all_nine_places_are_written() -> None:
    assert format_usd(12_345) == "0.000012345"
    assert format_usd(-1) == "-0.000000001"
    assert format_usd(25_000_000_000) == "25.000000000"
