"""GET /models and /models/{id}."""

import time
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from apps.billing.pricing.book import PriceBook
from apps.catalog.contracts import OfferedModel, Price, PriceVariant, Rates
from apps.core.money import NANOS_PER_USD, TOKENS_PER_PRICE_UNIT
from apps.gateway.http import AsyncAPIView, json_response
from apps.gateway.offers import models_for, offered
from apps.keys.contracts import KeyGrant

_PLACES = 15
"""Decimal places that hold any price per token exactly: nano-USD per million tokens."""
_ALWAYS = {
    "prompt": "input",
    "completion": "output",
    "input_cache_read": "cache_read",
    "input_cache_write": "cache_write",
    "internal_reasoning": "reasoning",
}
_IF_PRICED = {
    "input_cache_write_1h": "cache_write_1h",
    "audio": "audio_input",
    "image_token": "image_input",
    "audio_output": "audio_output",
    "image_output": "image_output",
}
"""Public name -> bucket. The names are OpenRouter's, but for the one of the cache that lives for an hour."""


class Models(AsyncAPIView):
    """The models that the key can call now, in OpenAI's list shape with OpenRouter's extra fields."""

    async def get(self, request: Request) -> HttpResponse:
        now = time.time()
        grant, book = self.grant, self.runtime.book
        models = models_for(grant, self.runtime.snapshot)
        return json_response({"object": "list", "data": [present(model, grant, book, now=now) for model in models]})


class ModelDetail(AsyncAPIView):
    """One model."""

    async def get(self, request: Request, model_id: str) -> HttpResponse:
        model = offered(self.runtime.snapshot, model_id, grant=self.grant)
        return json_response(present(model, self.grant, self.runtime.book, now=time.time()))


def present(model: OfferedModel, grant: KeyGrant, book: PriceBook, *, now: float) -> dict[str, Any]:
    """The public form of a model, priced for the key's organization at `now` (Unix seconds)."""
    listed = model.price_at(now)
    price = listed and book.price_for(grant.organization_id, model.id, listed, moment=now)
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.vendor,
        "name": model.name,
        "description": model.description,
        "context_length": model.context_length,
        "architecture": {
            "input_modalities": model.input_modalities,
            "output_modalities": model.output_modalities,
            "tokenizer": model.tokenizer or None,
        },
        "pricing": _pricing(price) if price else None,
        **_listed(listed, price),
        "is_sandbox": model.is_sandbox,
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output_tokens,
        },
    }


def _pricing(price: Price) -> dict[str, Any]:
    """The price in OpenRouter's names; `variants`, beyond them, are the prices of requests that meet conditions."""
    pricing: dict[str, Any] = _amounts(price)
    if price.variants:
        pricing["variants"] = [_variant(variant) for variant in price.variants]
    return pricing


def _listed(listed: Price | None, price: Price | None) -> dict[str, Any]:
    """The list price, where the organization has another one."""
    if listed is None or price is None or not price.rule_id or _pricing(listed) == _pricing(price):
        return {}
    return {"list_pricing": _pricing(listed)}


def _variant(variant: PriceVariant) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    if variant.min_input_tokens:
        conditions["min_input_tokens"] = variant.min_input_tokens
    if variant.service_tier:
        conditions["service_tier"] = variant.service_tier
    if variant.has_window:
        conditions["utc_from"], conditions["utc_until"] = variant.window
    return {**conditions, **_amounts(variant)}


def _amounts(rates: Rates) -> dict[str, str]:
    """Decimal strings in USD per token, request or image. Buckets of media stand there when they have own prices."""
    amounts = {name: _usd_per_token(rates.of(bucket)) for name, bucket in _ALWAYS.items()}
    amounts["request"] = _usd_per_token(rates.per_request * TOKENS_PER_PRICE_UNIT)
    amounts["image"] = _usd_per_token(rates.per_image * TOKENS_PER_PRICE_UNIT)
    for name, bucket in _IF_PRICED.items():
        if getattr(rates, bucket) is not None:
            amounts[name] = _usd_per_token(rates.of(bucket))
    return amounts


def _usd_per_token(nanos_per_million: int) -> str:
    """Exact: nano-USD per million tokens is 10^-15 USD per token."""
    whole, fraction = divmod(nanos_per_million, NANOS_PER_USD * TOKENS_PER_PRICE_UNIT)
    return f"{whole}.{fraction:0{_PLACES}d}".rstrip("0").rstrip(".")
