"""The most that a request can cost, and how much output an amount covers. Pure: exact integers, rounded up."""

from typing import Final

from apps.billing.rating import rates_possible
from apps.catalog.contracts import Price, Rates
from apps.core.money import TOKENS_PER_PRICE_UNIT

LEAST_OUTPUT_TOKENS: Final = 64
"""An answer that must be cut to what the money covers still has room for so many tokens; with less it is refused."""
FIRST_OUTPUT_TOKENS: Final = 2_048
"""What a stream without a bound holds for the output of each choice before it begins."""
GROWTH_TOKENS: Final = 2_048
"""How much more output of each choice a hold covers after it has grown by one step."""


def worst_cost_nanos(
    input_tokens: int, output_tokens: int, price: Price, *, service_tier: str | None = None, images: int = 0
) -> int:
    """The cost in nano-USD when every token falls into the dearest bucket of its side. Never less than any bill.

    All rates count that a request of so much input can come to have: at the tier it asks for ("" for the standard one,
    None for any) and the standard one, whatever the time of day. `images` is how many the request brings."""
    dearest_input, dearest_output, flat_nanos = _dearest(price, input_tokens, service_tier, images)
    exact = input_tokens * dearest_input + output_tokens * dearest_output
    return -(-exact // TOKENS_PER_PRICE_UNIT) + flat_nanos


def output_covered(
    hold_nanos: int, input_tokens: int, price: Price, *, service_tier: str | None = None, images: int = 0
) -> int:
    """The most output tokens with which the worst case is no more than the hold; below zero for too small a hold."""
    dearest_input, dearest_output, flat_nanos = _dearest(price, input_tokens, service_tier, images)
    left = (hold_nanos - flat_nanos) * TOKENS_PER_PRICE_UNIT - input_tokens * dearest_input
    return left // max(dearest_output, 1)


def _dearest(price: Price, input_tokens: int, service_tier: str | None, images: int) -> tuple[int, int, int]:
    """The dearest input, the dearest output, and the dearest flat part in nano-USD, each of all rates possible."""
    if not price.variants:
        return _dearest_input(price), _dearest_output(price), price.per_request + images * price.per_image
    possible = rates_possible(price, input_tokens=input_tokens, service_tier=service_tier)
    return (
        max(map(_dearest_input, possible)),
        max(map(_dearest_output, possible)),
        max(rates.per_request + images * rates.per_image for rates in possible),
    )


def _dearest_input(rates: Rates) -> int:
    """A bucket without a price of its own counts already, as the one that contains it."""
    most = max(rates.input, rates.cache_read, rates.cache_write)
    for amount in (rates.cache_write_1h, rates.audio_input, rates.image_input):
        if amount is not None and amount > most:
            most = amount
    return most


def _dearest_output(rates: Rates) -> int:
    most = max(rates.output, rates.reasoning)
    for amount in (rates.audio_output, rates.image_output):
        if amount is not None and amount > most:
            most = amount
    return most
