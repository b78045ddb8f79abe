"""The catalog as YAML: what `apps.catalog.document` reads, written."""

import json
import re
from collections.abc import Iterator

from apps.catalog.cache_document import cache_pairs
from apps.catalog.contracts import IMAGE_TOKENS, OUTPUT_LIMIT_FIELDS, QUANTIZATIONS, UNSUPPORTED_POLICIES
from apps.catalog.document import CatalogDocument, ModelEntry, ProviderEntry
from apps.catalog.maintenance_document import render_maintenance
from apps.catalog.price_document import price_pairs
from apps.catalog.price_entries import PriceEntry

_PLAIN = re.compile(r"[A-Za-z]([A-Za-z0-9 ._/()+-]*[A-Za-z0-9._/()+-])?")
_YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
_HEADING = "# Prices are in USD per million tokens. API keys are not exported: name a variable with api_key_env."


def render_catalog(document: CatalogDocument, *, heading: str = _HEADING) -> str:
    """The document as YAML, without API keys: parsing it gives an equal document if that had none.

    `heading` is put on top as it is and must consist of comment lines."""
    blocks = (
        ("providers", [_render_provider(entry) for entry in document.providers]),
        ("models", [_render_model(entry) for entry in document.models]),
    )
    lines = [heading, ""]
    for name, entries in blocks:
        lines.append(f"{name}:" if entries else f"{name}: []")
        for first, *others in entries:
            lines += [f"  - {first}", *(f"    {other}" for other in others)]
    return "\n".join(lines) + "\n"


def _render_provider(entry: ProviderEntry) -> Iterator[str]:
    yield f"id: {_render_text(entry.id)}"
    yield f"name: {_render_text(entry.name)}"
    yield f"dialect: {entry.dialect}"
    yield f"base_url: {_render_text(entry.base_url)}"
    if entry.api_key_env:
        yield f"api_key_env: {_render_text(entry.api_key_env)}"
    if not entry.enabled:
        yield "enabled: false"
    if entry.sandbox:
        yield "sandbox: true"
    if entry.output_limit_field != OUTPUT_LIMIT_FIELDS[0]:
        yield f"output_limit_field: {entry.output_limit_field}"
    if entry.options:
        pairs = (f"{name}: {_render_text(value)}" for name, value in sorted(entry.options.items()))
        yield f"options: {{{', '.join(pairs)}}}"
    if entry.region:
        yield f"region: {_render_text(entry.region)}"
    if not entry.collects_data:
        yield "collects_data: false"
    if entry.zero_retention:
        yield "zero_retention: true"
    if entry.maintenance is not None:
        yield render_maintenance(entry.maintenance)


def _render_model(entry: ModelEntry) -> Iterator[str]:
    yield f"id: {_render_text(entry.id)}"
    yield f"name: {_render_text(entry.name)}"
    if entry.vendor:
        yield f"vendor: {_render_text(entry.vendor)}"
    if entry.description:
        yield f"description: {_render_text(entry.description)}"
    yield f"context_length: {entry.context_length}"
    yield f"max_output_tokens: {entry.max_output_tokens}"
    yield f"input_modalities: [{', '.join(entry.input_modalities)}]"
    yield f"output_modalities: [{', '.join(entry.output_modalities)}]"
    if entry.tokenizer:
        yield f"tokenizer: {_render_text(entry.tokenizer)}"
    if entry.image_tokens != IMAGE_TOKENS:
        yield f"image_tokens: {entry.image_tokens}"
    if entry.unsupported_parameters != UNSUPPORTED_POLICIES[0]:
        yield f"unsupported_parameters: {entry.unsupported_parameters}"
    if entry.first_byte_timeout_s is not None:
        yield f"first_byte_timeout_s: {entry.first_byte_timeout_s}"
    if not entry.enabled:
        yield "enabled: false"
    if terms := ", ".join(cache_pairs(entry.cache)):
        yield f"cache: {{{terms}}}"
    yield "routes:" if entry.routes else "routes: []"
    for route in entry.routes:
        pairs = [
            f"provider: {_render_text(route.provider)}",
            f"upstream_model: {_render_text(route.upstream_model)}",
        ]
        pairs += [f"weight: {route.weight}"] + ([] if route.enabled else ["enabled: false"])
        pairs += [] if route.quantization == QUANTIZATIONS[0] else [f"quantization: {route.quantization}"]
        for name in ("canary_percent", "shadow_percent"):
            pairs += [f"{name}: {getattr(route, name)}"] if getattr(route, name) else []
        pairs += [] if route.maintenance is None else [render_maintenance(route.maintenance)]
        yield f"  - {{{', '.join(pairs)}}}"
    yield "prices:" if entry.prices else "prices: []"
    for price in entry.prices:
        yield f"  - {{{', '.join(_price_pairs(price))}}}"


def _price_pairs(price: PriceEntry) -> Iterator[str]:
    yield from price_pairs(price)
    if price.note:
        yield f"note: {_render_text(price.note)}"


def _render_text(value: str) -> str:
    """Plain where no YAML reader could take it for something else, else quoted as JSON, which YAML reads."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS
    return value if is_plain else json.dumps(value, ensure_ascii=False)
