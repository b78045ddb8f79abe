"""Prices in the catalog document: read with the line of every problem, and rendered."""

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from apps.catalog.contracts import BUCKETS, SERVICE_TIERS
from apps.catalog.moments import moment, moment_text
from apps.catalog.nodes import (
    Convert,
    Findings,
    Items,
    Key,
    Problem,
    Refusal,
    Scalar,
    Spot,
    SyntaxProblem,
    compose,
    integer,
    items,
    matching,
    one_of,
    read_table,
    scalar,
    text,
)
from apps.catalog.price_entries import (
    AMOUNTS,
    FLAT,
    MAX_VARIANTS,
    Amounts,
    PriceEntry,
    VariantEntry,
    variant_problem,
)

MAX_PRICE = 1_000_000
"""USD per million tokens: far above any real price, and low enough that no cost outgrows 64 bits."""
MAX_FLAT = 1_000
"""USD per request or image."""
_MAX_INTEGER = 2_147_483_647
_AMOUNT = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def parse_variants(source_text: str) -> tuple[tuple[VariantEntry, ...], list[Problem]]:
    """The variants in a YAML list of their own, as the console's form takes it, and what is wrong with it."""
    if not source_text.strip():
        return (), []
    findings = Findings()
    try:
        root = compose(source_text)
    except SyntaxProblem as error:
        return (), [error.problem]
    found = _read_variants(Spot(root, "variants", findings))
    return found or (), findings.problems


def render_variants(variants: tuple[VariantEntry, ...]) -> str:
    """The inverse of `parse_variants`: one line a variant."""
    return "".join(f"- {_variant(variant)}\n" for variant in variants)


def price_pairs(price: PriceEntry) -> Iterator[str]:
    """The `key: value` pairs of a price, without its note."""
    yield f'from: "{moment_text(price.starts_at)}"'
    yield from _amount_pairs(price)
    if price.variants:
        yield f"variants: [{', '.join(map(_variant, price.variants))}]"


def _variant(variant: VariantEntry) -> str:
    return f"{{{', '.join(_variant_pairs(variant))}}}"


def _variant_pairs(variant: VariantEntry) -> Iterator[str]:
    if variant.min_input_tokens:
        yield f"min_input_tokens: {variant.min_input_tokens}"
    if variant.service_tier:
        yield f"service_tier: {variant.service_tier}"
    if variant.utc_from:
        yield f'utc_from: "{variant.utc_from}"'
        yield f'utc_until: "{variant.utc_until}"'
    yield from _amount_pairs(variant)


def _amount_pairs(amounts: Amounts) -> Iterator[str]:
    for name in AMOUNTS:
        amount: Decimal | None = getattr(amounts, name)
        if amount is not None:
            whole, _, fraction = f"{amount:f}".partition(".")
            yield f'{name}: "{whole}.{fraction.rstrip("0"):0<2}"'


def _read_price(spot: Spot) -> PriceEntry | None:
    values = read_table(spot, _PRICE_KEYS)
    return None if values is None else PriceEntry(**values)


def _read_variant(spot: Spot) -> VariantEntry | None:
    values = read_table(spot, _VARIANT_KEYS)
    return None if values is None else VariantEntry(**values)


def _read_variants(spot: Spot) -> tuple[VariantEntry, ...] | None:
    """The list in its order; a variant that has no meaning where it stands is refused there."""
    found: tuple[VariantEntry, ...] | None = _variant_list(spot)
    if not isinstance(spot.node, Items) or found is None or len(found) != len(spot.node.nodes):
        return found
    if len(found) > MAX_VARIANTS:
        spot.refuse(f"has {len(found)} variants; at most {MAX_VARIANTS} are accepted")
    for index, variant in enumerate(found):
        if problem := variant_problem(variant, found[:index]):
            spot.item(index, spot.node.nodes[index]).refuse(problem)
    return found


def _amount(highest: int, unit: str) -> Convert:
    def convert(written: Scalar) -> Decimal:
        if not _AMOUNT.fullmatch(written.text):
            raise Refusal(f"must be a decimal number of USD {unit}, 0 or more, at most 9 decimals")
        amount = Decimal(written.text)
        if amount > highest:
            raise Refusal(f"must be at most {highest} USD {unit}")
        return amount

    return convert


_AMOUNT_KEYS = {
    **{bucket: Key(scalar(_amount(MAX_PRICE, "per million tokens")), bucket) for bucket in BUCKETS},
    **{name: Key(scalar(_amount(MAX_FLAT, name.replace("_", " "))), name) for name in FLAT},
}
_clock = scalar(matching(_CLOCK, 'a time of day in UTC, as in "22:00"'))
_VARIANT_KEYS: dict[str, Key] = {
    "min_input_tokens": Key(scalar(integer(1, _MAX_INTEGER)), "min_input_tokens"),
    "service_tier": Key(scalar(one_of(SERVICE_TIERS)), "service_tier"),
    "utc_from": Key(_clock, "utc_from"),
    "utc_until": Key(_clock, "utc_until"),
    **_AMOUNT_KEYS,
}
_variant_list: Any = items(_read_variant, identity=id, described="variant")
_PRICE_KEYS = {
    "from": Key(scalar(moment), "starts_at", required=True),
    **_AMOUNT_KEYS,
    **{bucket: replace(_AMOUNT_KEYS[bucket], required=True) for bucket in ("input", "output")},
    "variants": Key(_read_variants, "variants"),
    "note": Key(scalar(text(300, may_be_empty=True)), "note"),
}
read_prices = items(_read_price, identity=lambda entry: entry.starts_at, described="from")
"""Reads the list of prices of a model."""
