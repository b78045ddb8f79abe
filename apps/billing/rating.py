"""Tokens times prices. Pure: integers in, integers out, one rounding a request."""

from apps.catalog.contracts import Price, PriceVariant, Rates
from apps.core.ids import created_at
from apps.core.money import TOKENS_PER_PRICE_UNIT, round_half_even
from apps.usage.contracts import RequestOpened, TokenCounts


def cost_nanos(
    tokens: TokenCounts, price: Price, *, request_id: str = "", service_tier: str = "", images: int = 0
) -> int:
    """What a request costs in nano-USD: the exact sum over all buckets and flat parts, rounded once, half to even.

    `request_id` tells when the request began; only prices that depend on the time of day need it, and raise ValueError
    without one. `service_tier` is the tier that it was served at, "" the standard one. A request without tokens is
    free."""
    rates: Rates = price
    if price.variants:
        rates = rates_for(tokens, price, request_id=request_id, service_tier=service_tier)
    return round_half_even(exact_cost(tokens, rates, images=images), TOKENS_PER_PRICE_UNIT)


def cost_of(opened: RequestOpened, tokens: TokenCounts, *, service_tier: str = "") -> int:
    """What an opened request costs in nano-USD when it ends with these tokens."""
    return cost_nanos(
        tokens, opened.price, request_id=opened.request_id, service_tier=service_tier, images=opened.images
    )


def rates_for(tokens: TokenCounts, price: Price, *, request_id: str, service_tier: str) -> Rates:
    """The rates that apply: those of the first variant whose conditions the request meets, else the version's own."""
    input_tokens = tokens.all_input
    for variant in price.variants:
        if (
            input_tokens >= variant.min_input_tokens
            and variant.service_tier in ("", service_tier)
            and _began_within(variant, request_id)
        ):
            return variant
    return price


def rates_possible(price: Price, *, input_tokens: int, service_tier: str | None) -> list[Rates]:
    """Everything that `rates_for` can choose for a request of at most so much input that asks for this tier.

    "" asks for the standard tier, None stands for any. A tier asked for may be denied, and the time of day is left
    open, so the version's own rates are always among them."""
    possible: list[Rates] = [price]
    if price.variants:
        possible += (
            variant
            for variant in price.variants
            if variant.min_input_tokens <= input_tokens
            and (service_tier is None or variant.service_tier in ("", service_tier))
        )
    return possible


def exact_cost(tokens: TokenCounts, rates: Rates, *, images: int = 0) -> int:
    """The cost in 10^-15 USD (nano-USD times tokens per price unit): exact, not rounded."""
    exact = (
        tokens.input * rates.input
        + tokens.cache_read * rates.cache_read
        + tokens.cache_write * rates.cache_write
        + tokens.output * rates.output
        + tokens.reasoning * rates.reasoning
    )
    if tokens.cache_write_1h or tokens.audio_input or tokens.image_input or tokens.audio_output or tokens.image_output:
        exact += (
            tokens.cache_write_1h * rates.of("cache_write_1h")
            + tokens.audio_input * rates.of("audio_input")
            + tokens.image_input * rates.of("image_input")
            + tokens.audio_output * rates.of("audio_output")
            + tokens.image_output * rates.of("image_output")
        )
    if (rates.per_request or rates.per_image) and (tokens.all_input or tokens.all_output):
        exact += (rates.per_request + images * rates.per_image) * TOKENS_PER_PRICE_UNIT
    return exact


def _began_within(variant: PriceVariant, request_id: str) -> bool:
    if not variant.has_window:
        return True
    began = created_at(request_id)
    return variant.includes_minute(began.hour * 60 + began.minute)
