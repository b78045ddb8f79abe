"""A price as an operator states it: decimal USD, a start, and variants for some requests. Pure, no Django."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from apps.catalog.contracts import BUCKETS, MINUTES_PER_DAY, PriceVariant, conditions_in_words
from apps.core.money import nanos_from_usd

FLAT: Final = ("per_request", "per_image")
_FIRST: Final = ("input", "output")
AMOUNTS: Final = (*_FIRST, *(bucket for bucket in BUCKETS if bucket not in _FIRST), *FLAT)
"""All amounts that a price can have: USD per million tokens of a bucket, and USD for each request or image."""
CONDITIONS: Final = ("min_input_tokens", "service_tier", "utc_from", "utc_until")
MAX_VARIANTS: Final = 50


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Amounts in USD; an absent one is None."""

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    audio_input: Decimal | None = None
    image_input: Decimal | None = None
    audio_output: Decimal | None = None
    image_output: Decimal | None = None
    per_request: Decimal | None = None
    per_image: Decimal | None = None

    def given(self) -> dict[str, Decimal]:
        """The amounts that are there, by name."""
        amounts = {name: getattr(self, name) for name in AMOUNTS}
        return {name: amount for name, amount in amounts.items() if amount is not None}


@dataclass(frozen=True, kw_only=True)
class VariantEntry(Amounts):
    """Other amounts for requests that meet all of its conditions; an absent amount is that of the version.

    `utc_from` and `utc_until` are "HH:MM", both or neither. What is compared is in `contracts.PriceVariant`."""

    min_input_tokens: int = 0
    service_tier: str = ""
    utc_from: str = ""
    utc_until: str = ""

    def conditions(self) -> str:
        """The conditions in words; "" when there are none."""
        window = (self.utc_from, self.utc_until) if self.utc_from else None
        return conditions_in_words(self.min_input_tokens, self.service_tier, window)


@dataclass(frozen=True, kw_only=True)
class PriceEntry(Amounts):
    """A price from a moment (UTC) on. An absent bucket costs what the bucket that contains it costs.

    The first of `variants` whose conditions a request meets replaces the amounts that it gives."""

    starts_at: datetime
    input: Decimal
    output: Decimal
    note: str = ""
    variants: tuple[VariantEntry, ...] = ()


def frozen_rates(amounts: Mapping[str, Decimal]) -> dict[str, Any]:
    """The fields of `contracts.Rates`, in nano-USD, for stated amounts, which have `input` and `output`."""
    nanos: dict[str, Any] = {name: nanos_from_usd(amount) for name, amount in amounts.items()}
    for bucket, container in (("cache_read", "input"), ("cache_write", "input"), ("reasoning", "output")):
        nanos.setdefault(bucket, nanos[container])
    return nanos


def frozen_variant(amounts: Mapping[str, Decimal], variant: VariantEntry) -> PriceVariant:
    """The variant of a version with these amounts. Its own come first; only then do buckets look to their container."""
    return PriceVariant(
        **frozen_rates({**amounts, **variant.given()}),
        min_input_tokens=variant.min_input_tokens,
        service_tier=variant.service_tier,
        from_minute=_minute(variant.utc_from) if variant.utc_from else 0,
        until_minute=_minute(variant.utc_until) if variant.utc_until else MINUTES_PER_DAY,
    )


def variant_problem(variant: VariantEntry, earlier: Iterable[VariantEntry]) -> str:
    """Why the variant cannot stand behind the earlier ones of its price; "" when it can."""
    if not variant.conditions():
        return "has no condition: give min_input_tokens, service_tier or utc_from and utc_until"
    if bool(variant.utc_from) != bool(variant.utc_until):
        return "needs both utc_from and utc_until"
    if variant.utc_from and variant.utc_from == variant.utc_until:
        return "has a window that is empty or the whole day: utc_from and utc_until are the same"
    if not variant.given():
        return f"changes nothing: give at least one of {', '.join(AMOUNTS)}"
    for number, other in enumerate(earlier, start=1):
        if _covers(other, variant):
            return f"can never apply: variant {number} fits every request that it fits, and the first that fits counts"
    return ""


def variants_as_json(variants: Iterable[VariantEntry]) -> list[dict[str, Any]]:
    """The variants as the database keeps them: decimal numbers as text, absent ones left out."""
    return [
        {
            **{name: value for name in CONDITIONS if (value := getattr(variant, name))},
            **{name: f"{amount.normalize():f}" for name, amount in variant.given().items()},
        }
        for variant in variants
    ]


def variants_from_json(stored: Sequence[Mapping[str, Any]]) -> tuple[VariantEntry, ...]:
    """The inverse of `variants_as_json`, for what it has written."""
    return tuple(_from_json(entry) for entry in stored)


def _from_json(entry: Mapping[str, Any]) -> VariantEntry:
    values: dict[str, Any] = {name: Decimal(value) if name in AMOUNTS else value for name, value in entry.items()}
    return VariantEntry(**values)


def _covers(earlier: VariantEntry, later: VariantEntry) -> bool:
    return (
        earlier.min_input_tokens <= later.min_input_tokens
        and earlier.service_tier in ("", later.service_tier)
        and _minutes(earlier) >= _minutes(later)
    )


def _minutes(variant: VariantEntry) -> set[int]:
    """The minutes of the day in which the variant applies."""
    if not (variant.utc_from and variant.utc_until):
        return set(range(MINUTES_PER_DAY))
    start, end = _minute(variant.utc_from), _minute(variant.utc_until)
    if start < end:
        return set(range(start, end))
    return set(range(start, MINUTES_PER_DAY)) | set(range(end))


def _minute(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)
