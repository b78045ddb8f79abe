"""Limits of an owner (key, project, organization, plan) as one frozen value, and when budgets begin again. Pure."""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from apps.core.errors import InvalidInput
from apps.core.money import NANOS_PER_USD, format_usd

BudgetPeriod = Literal["day", "week", "month", "lifetime"]
BUDGET_PERIODS: Final[tuple[BudgetPeriod, ...]] = get_args(BudgetPeriod)
RATES: Final = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "concurrency")

MAX_RATE: Final = 1_000_000_000
MAX_BUDGET_NANOS: Final = 9_000_000 * NANOS_PER_USD
"""Below 2^53: the limiter's scripts count in doubles, which are exact up to there."""

_USD = re.compile(r"(-?)(\d*)(?:\.(\d*))?", re.ASCII)
_DECIMALS = 9
_SPANS: Final = {"day": "a day", "week": "a week", "month": "a month", "lifetime": "in all"}


class Limits(msgspec.Struct, frozen=True):
    """What an owner may use. None is no limit; a budget of 0 means that nothing may be spent.

    `budget_period` says how often the budget begins again (UTC); without a budget it means nothing."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    concurrency: int | None = None
    budget_nanos: int | None = None
    budget_period: BudgetPeriod = "lifetime"


class BudgetWindow(NamedTuple):
    """The stretch of time that one budget covers, in Unix seconds: from `starts_at`, up to but not with `ends_at`."""

    starts_at: int
    ends_at: int | None


class UsdWords(NamedTuple):
    """How mistakes in an amount are told: what it is, what 0 means, and what to do for none."""

    what: str
    zero: str
    none: str


BUDGET_WORDS: Final = UsdWords("a budget", "nothing may be spent", "leave it out for no limit")
BRAKE_WORDS: Final = UsdWords("the amount of a brake", "the key is never paused", "leave it out to follow the plan")
MARK_WORDS: Final = UsdWords("the mark of low credit", "you are told when nothing is left", "leave it out for none")


def check_limits(limits: Limits) -> Limits:
    """The same limits when they are possible. Raises InvalidInput with a sentence that names the wrong one."""
    for name in RATES:
        value = getattr(limits, name)
        if value is not None and not 1 <= value <= MAX_RATE:
            raise InvalidInput(f"{spoken(name)} must be from 1 to {MAX_RATE:,}; leave it out for no limit")
    if limits.budget_nanos is not None:
        _check_usd(limits.budget_nanos, BUDGET_WORDS)
    check_period(limits.budget_period)
    return limits


def _check_usd(nanos: int, words: UsdWords) -> None:
    if nanos < 0:
        raise InvalidInput(f"{words.what} cannot be negative; 0 means that {words.zero}")
    if nanos > MAX_BUDGET_NANOS:
        raise InvalidInput(f"{words.what} is at most {MAX_BUDGET_NANOS // NANOS_PER_USD:,} USD; {words.none}")


def check_period(text: str) -> BudgetPeriod:
    """The period of this name. Raises InvalidInput for any other word."""
    if text not in BUDGET_PERIODS:
        raise InvalidInput(f"a budget's period is one of {', '.join(BUDGET_PERIODS)}, not {text!r}")
    return text


def spoken(name: str) -> str:
    """The name of a limit as words: `requests per minute`."""
    return name.replace("_", " ")


def spoken_limits(limits: Limits) -> list[str]:
    """The limits that are set, in words: `10.00 USD a month`, `60 requests per minute`, `5 at a time`."""
    words: list[str] = []
    if limits.budget_nanos is not None:
        words.append(f"{usd_text(limits.budget_nanos)} USD {_SPANS[limits.budget_period]}")
    for name in RATES[:-1]:
        value = getattr(limits, name)
        if value is not None:
            words.append(f"{value:,} {spoken(name)}")
    if limits.concurrency is not None:
        words.append(f"{limits.concurrency:,} at a time")
    return words


def usd_text(nanos: int) -> str:
    """Exact USD with at least two decimals and no more than needed: `12.50`, `0.000000001`."""
    whole, _, fraction = format_usd(nanos).partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def budget_from_usd(text: str, words: UsdWords = BUDGET_WORDS) -> int:
    """Exact nano-USD of an amount such as `12.50`, read digit by digit. Raises InvalidInput with the reason."""
    match = _USD.fullmatch(text.strip())
    sign, whole, fraction = match.groups(default="") if match else ("", "", "")
    if not whole and not fraction:
        raise InvalidInput(f"{text[:40]!r} is not an amount in USD: write it like 12.50")
    fraction = fraction.rstrip("0")
    if len(fraction) > _DECIMALS:
        raise InvalidInput("an amount in USD has at most nine decimals")
    whole = whole.lstrip("0")[: len(str(MAX_BUDGET_NANOS))]  # longer ones are too large in any case
    nanos = int(whole or "0") * NANOS_PER_USD + int(fraction.ljust(_DECIMALS, "0"))
    _check_usd(-1 if sign else nanos, words)
    return nanos


def budget_window(period: BudgetPeriod, now: float) -> BudgetWindow:
    """The window in force at `now` (Unix seconds). All in UTC: a day from 00:00, a week from Monday, a month from
    the 1st; a lifetime starts at 0 and has no end. Raises InvalidInput for an unknown period."""
    midnight = datetime.fromtimestamp(math.floor(now), UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match check_period(period):
        case "lifetime":
            return BudgetWindow(0, None)
        case "day":
            start, end = midnight, midnight + timedelta(days=1)
        case "week":
            start = midnight - timedelta(days=midnight.weekday())
            end = start + timedelta(days=7)
        case "month":
            start = midnight.replace(day=1)
            end = (start + timedelta(days=31)).replace(day=1)
    return BudgetWindow(int(start.timestamp()), int(end.timestamp()))
