"""How money, prices, tokens and durations are written."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import nanos_from_usd
from apps.portal.templatetags.portal import compact, milliseconds, unit_price, usd, usd_brief, usd_femtos


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "$0.000000000"),
        (1, "$0.000000001"),
        (12_345, "$0.000012345"),
        (1_234_567_890_123_456_789, "$1,234,567,890.123456789"),
        (-5, "−$0.000000005"),
    ],
)
def test_money_is_exact(nanos: int, text: str) -> None:
    assert usd(nanos) == text


@given(st.integers(min_value=0, max_value=10**18))
def test_exact_money_can_be_read_back(nanos: int) -> None:
    assert nanos_from_usd_text(usd(nanos)) == nanos


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (12_345, "$0.00001234"),
        (436_529_946, "$0.4365"),
        (500_000_000, "$0.50"),
        (999_999_999, "$1.00"),
        (5_090_894_070, "$5.09"),
        (1_234_567_000_000_000, "$1,234,567.00"),
    ],
)
def test_headings_round_for_reading(nanos: int, text: str) -> None:
    assert usd_brief(nanos) == text


@pytest.mark.parametrize(
    ("femtos", "text"),
    [(12_345_670_000, "$0.00001234567"), (525_000_000, "$0.000000525"), (0, "$0.000000000"), (1, "$0.000000000000001")],
)
def test_amounts_before_rounding_keep_every_digit(femtos: int, text: str) -> None:
    assert usd_femtos(femtos) == text


@pytest.mark.parametrize(
    ("nanos", "text"), [(150_000_000, "$0.15"), (600_000_000, "$0.60"), (75_000_000, "$0.075"), (15 * 10**9, "$15.00")]
)
def test_prices_have_two_places_or_all_they_need(nanos: int, text: str) -> None:
    assert unit_price(nanos) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0K"),
        (123_456, "123K"),
        (999_999, "999K"),
        (4_246_000, "4.24M"),
        (10**12, "1.00T"),
    ],
)
def test_large_counts_are_cut_for_reading(number: int, text: str) -> None:
    assert compact(number) == text


@pytest.mark.parametrize(
    ("duration", "text"), [(None, "–"), (0, "0 ms"), (840, "840 ms"), (1_240, "1.24 s"), (125_400, "2 min 5 s")]
)
def test_durations(duration: int | None, text: str) -> None:
    assert milliseconds(duration) == text


def nanos_from_usd_text(text: str) -> int:
    return nanos_from_usd(Decimal(text.removeprefix("$").replace(",", "")))
