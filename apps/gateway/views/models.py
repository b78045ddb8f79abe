"""GET /models and /models/{id}."""

import time
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from apps.catalog.contracts import OfferedModel, Price
from apps.core.money import NANOS_PER_USD, TOKENS_PER_PRICE_UNIT
from apps.gateway.errors import MODEL_NOT_FOUND, GatewayError
from apps.gateway.http import AsyncAPIView, json_response

_PLACES = 15
"""Decimal places that hold any price per token exactly: nano-USD per million tokens."""


class Models(AsyncAPIView):
    """The models that can be called now, in OpenAI's list shape with OpenRouter's extra fields."""

    async def get(self, request: Request) -> HttpResponse:
        now = time.time()
        models = sorted(self.runtime.snapshot.models.values(), key=lambda model: model.id)
        return json_response({"object": "list", "data": [present(model, now) for model in models]})


class ModelDetail(AsyncAPIView):
    """One model."""

    async def get(self, request: Request, model_id: str) -> HttpResponse:
        model = self.runtime.snapshot.models.get(model_id)
        if model is None:
            raise GatewayError(MODEL_NOT_FOUND, f"The model '{model_id}' does not exist.", param="model")
        return json_response(present(model, time.time()))


def present(model: OfferedModel, now: float) -> dict[str, Any]:
    """The public form of a model, priced at `now` (Unix seconds)."""
    price = model.price_at(now)
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
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output_tokens,
        },
    }


def _pricing(price: Price) -> dict[str, str]:
    """Decimal strings in USD per token, as OpenRouter writes them."""
    amounts = {
        "prompt": price.input,
        "completion": price.output,
        "input_cache_read": price.cache_read,
        "input_cache_write": price.cache_write,
        "internal_reasoning": price.reasoning,
    }
    return {name: _usd_per_token(nanos) for name, nanos in amounts.items()}


def _usd_per_token(nanos_per_million: int) -> str:
    """Exact: nano-USD per million tokens is 10^-15 USD per token."""
    whole, fraction = divmod(nanos_per_million, NANOS_PER_USD * TOKENS_PER_PRICE_UNIT)
    return f"{whole}.{fraction:0{_PLACES}d}".rstrip("0").rstrip(".")
