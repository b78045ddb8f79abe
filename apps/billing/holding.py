"""The most that a request can cost, and how much output an amount covers. Pure: exact integers, rounded up."""

from typing import Final

from apps.catalog.contracts import Price
from apps.core.money import TOKENS_PER_PRICE_UNIT

LEAST_OUTPUT_TOKENS: Final = 64
"""An answer that must be cut to what the money covers still has room for so many tokens; with less it is refused."""


def worst_cost_nanos(input_tokens: int, output_tokens: int, price: Price) -> int:
    """The cost in nano-USD when every token falls into the dearest bucket of its side. Never less than any bill."""
    exact = input_tokens * _dearest_input(price) + output_tokens * _dearest_output(price)
    return -(-exact // TOKENS_PER_PRICE_UNIT)


def output_covered(hold_nanos: int, input_tokens: int, price: Price) -> int:
    """The most output tokens with which the worst case is no more than the hold; below zero for too small a hold."""
    left = hold_nanos * TOKENS_PER_PRICE_UNIT - input_tokens * _dearest_input(price)
    return left // max(_dearest_output(price), 1)


def _dearest_input(price: Price) -> int:
    return max(price.input, price.cache_read, price.cache_write)


def _dearest_output(price: Price) -> int:
    return max(price.output, price.reasoning)
