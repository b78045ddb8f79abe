"""Tokens times prices. Pure: integers in, integers out, one rounding a request."""

from apps.catalog.contracts import Price
from apps.core.money import TOKENS_PER_PRICE_UNIT, round_half_even
from apps.usage.contracts import TokenCounts


def cost_nanos(tokens: TokenCounts, price: Price) -> int:
    """What the tokens cost in nano-USD: the exact sum over all buckets, rounded once, half to even."""
    exact = (
        tokens.input * price.input
        + tokens.cache_read * price.cache_read
        + tokens.cache_write * price.cache_write
        + tokens.output * price.output
        + tokens.reasoning * price.reasoning
    )
    return round_half_even(exact, TOKENS_PER_PRICE_UNIT)
