"""How invoices and statements write amounts: cents where money is asked for, nine places where it is counted."""

from decimal import Decimal

from django import template

from apps.core.money import format_usd

register = template.Library()
_MINUS = "\N{MINUS SIGN}"


@register.filter
def cents(amount_cents: int) -> str:
    """Whole cents as `$1,234.50`."""
    whole, rest = divmod(abs(amount_cents), 100)
    return f"{_MINUS if amount_cents < 0 else ''}${whole:,}.{rest:02d}"


@register.filter
def exact(nanos: int) -> str:
    """Nano-USD, to the last: `$0.000012345`."""
    whole, _, fraction = format_usd(abs(nanos)).partition(".")
    return f"{_MINUS if nanos < 0 else ''}${int(whole):,}.{fraction}"


@register.filter
def negated(number: int) -> int:
    """What lowers a balance, as a number to be added to it."""
    return -number


@register.filter
def thousands(number: int) -> str:
    """1234567 as `1,234,567`."""
    return f"{number:,}"


@register.filter
def percentage(percent: Decimal) -> str:
    """`20 %`, `7.25 %`, without idle zeros."""
    return f"{percent.normalize():f} %"
