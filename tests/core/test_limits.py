"""Limits as a value: what is possible, amounts read digit by digit, and when a budget begins again."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import InvalidInput
from apps.core.limit_fields import UsdField
from apps.core.limits import (
    MAX_BUDGET_NANOS,
    MAX_RATE,
    RATES,
    BudgetPeriod,
    Limits,
    budget_from_usd,
    budget_window,
    check_limits,
    check_period,
    spoken_limits,
    usd_text,
)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_no_limits_are_possible_limits() -> None:
    assert check_limits(Limits()) == Limits()


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize(("value", "is_possible"), [(-1, False), (0, False), (1, True), (MAX_RATE, True)])
def test_a_rate_is_at_least_one(name: str, value: int, is_possible: bool) -> None:
    limits = msgspec.structs.replace(Limits(), **{name: value})
    if is_possible:
        assert check_limits(limits) is limits
    else:
        with pytest.raises(InvalidInput, match=f"^{name.replace('_', ' ')} must be from 1"):
            check_limits(limits)


@pytest.mark.parametrize("name", RATES)
def test_a_rate_has_an_upper_end(name: str) -> None:
    with pytest.raises(InvalidInput, match="1,000,000,000"):
        check_limits(msgspec.structs.replace(Limits(), **{name: MAX_RATE + 1}))


@pytest.mark.parametrize(("nanos", "words"), [(-1, "cannot be negative"), (MAX_BUDGET_NANOS + 1, "at most 9,000,000")])
def test_a_budget_is_neither_negative_nor_beyond_exact_counting(nanos: int, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_limits(Limits(budget_nanos=nanos))


def test_the_largest_budget_is_exact_in_a_double() -> None:
    assert int(float(MAX_BUDGET_NANOS)) == MAX_BUDGET_NANOS < 2**53
    assert check_limits(Limits(budget_nanos=0)).budget_nanos == 0
    assert check_limits(Limits(budget_nanos=MAX_BUDGET_NANOS)).budget_nanos == MAX_BUDGET_NANOS


def test_an_unknown_period_is_named() -> None:
    with pytest.raises(InvalidInput, match="day, week, month, lifetime, not 'year'"):
        check_period("year")


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0", 0),
        ("1", 1_000_000_000),
        ("12.50", 12_500_000_000),
        (" .5 ", 500_000_000),
        ("5.", 5_000_000_000),
        ("007", 7_000_000_000),
        ("0.000000001", 1),
        ("0.1", 100_000_000),
        ("1.0000000000000000000000000000000000", 1_000_000_000),
        ("9000000", MAX_BUDGET_NANOS),
    ],
)
def test_an_amount_is_read_exactly(text: str, nanos: int) -> None:
    assert budget_from_usd(text) == nanos


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an amount"),
        (".", "is not an amount"),
        ("-", "is not an amount"),
        ("ten", "'ten' is not an amount in USD: write it like 12.50"),
        ("1,50", "is not an amount"),
        ("1e3", "is not an amount"),
        ("1_000", "is not an amount"),
        ("NaN", "is not an amount"),
        ("Infinity", "is not an amount"),
        ("$5", "is not an amount"),
        ("١", "is not an amount"),
        ("1\n2", "is not an amount"),
        ("-1", "cannot be negative"),
        ("0.0000000001", "at most nine decimals"),
        ("1.00000000000000000000000000000000001", "at most nine decimals"),
        ("9000000.000000001", "at most 9,000,000 USD"),
        ("1" * 5000, "at most 9,000,000 USD"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        budget_from_usd(text)
    assert words in refusal.value.message
    assert len(refusal.value.message) < 200


@given(st.integers(0, MAX_BUDGET_NANOS))
def test_what_is_shown_reads_back_as_the_same_amount(nanos: int) -> None:
    assert budget_from_usd(usd_text(nanos)) == nanos
    assert Decimal(usd_text(nanos)) * 10**9 == nanos


@pytest.mark.parametrize(
    ("period", "now", "starts", "ends"),
    [
        ("day", "2026-11-22T00:00:00", "2026-11-22", "2026-11-23"),
        ("day", "2026-11-22T23:59:59.999", "2026-11-22", "2026-11-23"),
        ("week", "2026-11-22T23:59:59.999", "2026-11-16", "2026-11-23"),
        ("week", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),
        ("week", "2027-01-01T12:00:00", "2026-12-28", "2027-01-04"),
        ("month", "2026-11-30T23:59:59.999", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T23:00:00", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
        ("month", "2026-01-31T12:00:00", "2026-01-01", "2026-02-01"),
    ],
)
def test_budgets_begin_again_in_utc(period: BudgetPeriod, now: str, starts: str, ends: str) -> None:
    assert budget_window(period, moment(now)) == (moment(starts), moment(ends))


def test_a_lifetime_never_ends() -> None:
    assert budget_window("lifetime", moment("2026-11-22T00:00:00")) == (0, None)


@given(st.sampled_from(["day", "week", "month"]), st.floats(0, 4_102_444_800))
def test_every_moment_lies_in_one_window_and_windows_follow_each_other(period: BudgetPeriod, now: float) -> None:
    window = budget_window(period, now)
    assert window.ends_at is not None
    assert window.starts_at <= now < window.ends_at
    assert budget_window(period, window.starts_at) == window
    assert budget_window(period, window.ends_at).starts_at == window.ends_at
    assert datetime.fromtimestamp(window.starts_at, UTC).timetz().isoformat() == "00:00:00+00:00"
    if period == "week":
        assert datetime.fromtimestamp(window.starts_at, UTC).weekday() == 0


@pytest.mark.parametrize("period", ["", "Day", "year"])
def test_a_window_of_an_unknown_period_is_refused(period: Any) -> None:
    with pytest.raises(InvalidInput):
        budget_window(period, 0.0)


def test_limits_are_said_in_words() -> None:
    assert spoken_limits(Limits()) == []
    assert spoken_limits(Limits(budget_nanos=0)) == ["0.00 USD in all"]
    limits = Limits(60, 40_000, 1_000, 5, 12_500_000_000, "month")
    assert spoken_limits(limits) == [
        "12.50 USD a month",
        "60 requests per minute",
        "40,000 tokens per minute",
        "1,000 requests per day",
        "5 at a time",
    ]


def test_a_form_field_takes_usd_and_gives_nanos() -> None:
    field = UsdField(required=False)
    assert field.clean("12.50") == 12_500_000_000
    assert field.clean("") is None
    assert field.prepare_value(12_500_000_000) == "12.50"
    assert field.prepare_value("twelve") == "twelve"
    assert not field.has_changed(12_500_000_000, "12.5")
    assert field.has_changed(12_500_000_000, "")
    assert field.has_changed(None, "0")
