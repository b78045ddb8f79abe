"""Money as integer nano-USD, and the one rounding rule. No floats anywhere."""

from decimal import Context, Decimal, Inexact

NANOS_PER_USD = 1_000_000_000
NANOS_PER_CENT = NANOS_PER_USD // 100
_EXACTLY = Context(prec=60, traps=[Inexact])
"""Decimals round silently at 28 digits by default; here they say so."""
TOKENS_PER_PRICE_UNIT = 1_000_000
"""Prices are quoted per million tokens."""


def round_half_even(numerator: int, denominator: int) -> int:
    """numerator / denominator to the nearest integer, ties to the even one; denominator > 0."""
    quotient, remainder = divmod(numerator, denominator)
    doubled = remainder * 2
    if doubled > denominator or (doubled == denominator and quotient % 2):
        return quotient + 1
    return quotient


def nanos_from_usd(amount: Decimal) -> int:
    """Exact nano-USD of a decimal amount; ValueError when it is finer than a nano or not finite."""
    if not amount.is_finite():
        raise ValueError(f"not an amount of money: {amount}")
    try:
        nanos = amount.scaleb(9, _EXACTLY)
    except Inexact as error:
        raise ValueError(f"{amount} USD has too many digits") from error
    if nanos != nanos.to_integral_value():
        raise ValueError(f"{amount} USD is finer than a nano-dollar")
    return int(nanos)


def usd_from_nanos(nanos: int) -> Decimal:
    """The exact decimal amount in USD, with nine places."""
    return Decimal(nanos).scaleb(-9, _EXACTLY)


def format_usd(nanos: int) -> str:
    """All nine places, for exports and receipts: `0.000012345`."""
    sign = "-" if nanos < 0 else ""
    whole, fraction = divmod(abs(nanos), NANOS_PER_USD)
    return f"{sign}{whole}.{fraction:09d}"
