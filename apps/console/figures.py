"""How money, tokens, prices and moments are written on the console's pages. Pure."""

from datetime import UTC, datetime
from decimal import Decimal

from apps.core.money import NANOS_PER_CENT, format_usd, usd_from_nanos

_STEPS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def exact_usd(nanos: int) -> str:
    """All nine places: `$0.000012345`."""
    return f"-${format_usd(-nanos)}" if nanos < 0 else f"${format_usd(nanos)}"


def short_usd(nanos: int) -> str:
    """For headlines: cents from one cent up, below that all there is: `$1,234.50`, `$0.000012345`."""
    if nanos == 0 or abs(nanos) >= NANOS_PER_CENT:
        sign = "-" if nanos < 0 else ""
        return f"{sign}${usd_from_nanos(abs(nanos)):,.2f}"
    return exact_usd(nanos).rstrip("0")


def short_count(count: int) -> str:
    """`987`, `12.3k`, `4.57M`: three figures are enough for a headline."""
    for step, suffix in _STEPS:
        if count >= step:
            places = 2 if count < 10 * step else 1 if count < 100 * step else 0
            return f"{Decimal(count) / step:.{places}f}{suffix}"
    return str(count)


def price(amount: Decimal | None) -> str:
    """A price in USD per million tokens without idle zeros, at least cents; "" for an absent one."""
    if amount is None:
        return ""
    digits = f"{amount:.9f}".rstrip("0")
    whole, _, fraction = digits.partition(".")
    return f"${whole}.{fraction:0<2}"


def moment(instant: datetime | None) -> str:
    """`2026-11-22 12:00:05` in UTC; "" for none."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if instant else ""


def percent(part: int, whole: int) -> str:
    """`12.5 %`; "" of nothing."""
    return f"{Decimal(part) * 100 / whole:.1f} %" if whole else ""
