"""How numbers are written."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from apps.console.figures import exact_usd, moment, percent, price, short_count, short_usd


@pytest.mark.parametrize(
    ("nanos", "exact", "short"),
    [
        (0, "$0.000000000", "$0.00"),
        (1, "$0.000000001", "$0.000000001"),
        (12_300, "$0.000012300", "$0.0000123"),
        (9_999_999, "$0.009999999", "$0.009999999"),
        (10_000_000, "$0.010000000", "$0.01"),
        (1_234_567_891_234, "$1234.567891234", "$1,234.57"),
        (-1_500_000_000, "-$1.500000000", "-$1.50"),
    ],
)
def test_money(nanos: int, exact: str, short: str) -> None:
    assert exact_usd(nanos) == exact
    assert short_usd(nanos) == short


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (12_345, "12.3k"),
        (123_456, "123k"),
        (4_567_890, "4.57M"),
        (10**12, "1.00T"),
    ],
)
def test_counts(count: int, written: str) -> None:
    assert short_count(count) == written


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (None, ""),
        (Decimal(0), "$0.00"),
        (Decimal("2.500000000"), "$2.50"),
        (Decimal("0.0195"), "$0.0195"),
        (Decimal("1E+2"), "$100.00"),
        (Decimal("0.000000001"), "$0.000000001"),
    ],
)
def test_prices(amount: Decimal | None, written: str) -> None:
    assert price(amount) == written


def test_moments_are_in_utc() -> None:
    assert moment(datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31 22:30:00"
    assert moment(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01 00:00:00"
    assert moment(None) == ""


def test_shares() -> None:
    assert percent(1, 8) == "12.5 %"
    assert percent(0, 0) == ""
