"""Integer money and its one rounding rule."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import format_usd, nanos_from_usd, round_half_even, usd_from_nanos


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_rounding_is_to_the_nearest_and_half_to_even(numerator: int, denominator: int) -> None:
    exact = divmod(numerator, denominator)
    rounded = round_half_even(numerator, denominator)
    assert abs(rounded * denominator - numerator) * 2 <= denominator
    if exact[1] * 2 == denominator:
        assert rounded % 2 == 0


@given(st.integers(-(10**18), 10**18))
def test_dollars_and_nanos_are_the_same_amount(nanos: int) -> None:
    assert nanos_from_usd(usd_from_nanos(nanos)) == nanos
    assert nanos_from_usd(Decimal(format_usd(nanos))) == nanos


@pytest.mark.parametrize("text", ["0.0000000001", "NaN", "Infinity", "1" + "0" * 60 + ".1"])
def test_what_is_no_whole_number_of_nanos_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        nanos_from_usd(Decimal(text))


def test_all_nine_places_are_written() -> None:
    assert format_usd(12_345) == "0.000012345"
    assert format_usd(-1) == "-0.000000001"
    assert format_usd(25_000_000_000) == "25.000000000"
