"""From nano-USD to the cents of an invoice, and the taxes that a total contains. Pure; one rounding a document."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from apps.core.money import NANOS_PER_CENT, round_half_even

_PERCENT_PARTS: Final = 10_000
"""Percentages have four decimal places."""
ITEM: Final = "item"
BALANCE: Final = "balance"
ROUNDING: Final = "rounding"


@dataclass(frozen=True)
class Item:
    """What is asked for (nano-USD, perhaps below zero), in words."""

    description: str
    amount_nanos: int
    kind: str = ITEM


@dataclass(frozen=True)
class Line:
    """An item as a document shows it: exact, and in cents."""

    kind: str
    description: str
    amount_nanos: int
    amount_cents: int


@dataclass(frozen=True)
class Account:
    """The lines of a document and what they sum to: `total_nanos` before the one rounding, `total_cents` after it."""

    lines: tuple[Line, ...]
    total_nanos: int
    total_cents: int


@dataclass(frozen=True)
class Rate:
    """A tax in force: `percent` with up to four places."""

    name: str
    percent: Decimal
    reverse_charge: bool = False


@dataclass(frozen=True)
class Tax:
    """What of a total is tax at one rate, and the net amount that it is taken on; in cents."""

    rate: Rate
    base_cents: int
    tax_cents: int


def cents_from_nanos(nanos: int) -> int:
    """Whole cents, ties to the even one."""
    return round_half_even(nanos, NANOS_PER_CENT)


def in_usd(cents: int) -> str:
    """Cents of 0 or more in words: `$1,234.50`."""
    return f"${cents // 100:,}.{cents % 100:02d}"


def add_up(items: Sequence[Item]) -> Account:
    """The lines of a document. The total is rounded once; a last line shows by how much, in both columns.

    Each column sums to the total exactly. A single amount is never rounded on its own: its cents are for reading, and
    what they lack or have too much is part of the rounding line."""
    lines = [
        Line(item.kind, item.description, item.amount_nanos, cents_from_nanos(item.amount_nanos)) for item in items
    ]
    total_nanos = sum(line.amount_nanos for line in lines)
    total_cents = cents_from_nanos(total_nanos)
    nanos = total_cents * NANOS_PER_CENT - total_nanos
    cents = total_cents - sum(line.amount_cents for line in lines)
    if nanos or cents:
        lines.append(Line(ROUNDING, "Rounding to whole cents", nanos, cents))
    return Account(tuple(lines), total_nanos, total_cents)


def contained_taxes(total_cents: int, rates: Sequence[Rate]) -> list[Tax]:
    """The taxes that a total of at least 0 cents contains, all on the same net amount.

    Their sum is rounded once; each rate gets its share of that sum, the last what is left."""
    parts = [int(rate.percent * _PERCENT_PARTS) for rate in rates]
    whole = 100 * _PERCENT_PARTS + sum(parts)
    tax_cents = round_half_even(total_cents * sum(parts), whole)
    taxes, shared, given = [], 0, 0
    for rate, part in zip(rates, parts, strict=True):
        shared += part
        until_here = round_half_even(tax_cents * shared, sum(parts)) if sum(parts) else 0
        taxes.append(Tax(rate, total_cents - tax_cents, until_here - given))
        given = until_here
    return taxes


def share_of_tax(amount_cents: int, *, total_cents: int, tax_cents: int, earlier: tuple[int, int] = (0, 0)) -> int:
    """How much tax a credit note of `amount_cents` takes back; `earlier` are the cents and tax of those before it.

    Cumulative, so that credit notes over the whole total take back exactly its tax."""
    credited, credited_tax = earlier
    share = round_half_even((credited + amount_cents) * tax_cents, total_cents) - credited_tax
    return min(max(share, 0), amount_cents, tax_cents - credited_tax)
