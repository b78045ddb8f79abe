"""Models as callers see them: OpenAI's list with OpenRouter's fields, and Anthropic's list. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson

from apps.billing.pricing.book import PriceBook
from apps.catalog.contracts import CatalogSnapshot, OfferedModel, Price, PriceVariant, Rates, Target
from apps.core.money import NANOS_PER_USD, TOKENS_PER_PRICE_UNIT
from apps.gateway.admission.offers import model_rules, models_for
from apps.gateway.errors import bad_field
from apps.gateway.providers.anthropic_thinking import habits_of, is_claude
from apps.keys.contracts import KeyGrant
from apps.policies.data_rules import DataRules
from apps.policies.rules import Guardrail

MAX_LISTS: Final = 512
"""So many organizations' lists are remembered at a time."""
MAX_PAGE: Final = 1_000
_PLACES: Final = 15
"""Decimal places that hold any price per token exactly: nano-USD per million tokens."""
_ALWAYS: Final = {
    "prompt": "input",
    "completion": "output",
    "input_cache_read": "cache_read",
    "input_cache_write": "cache_write",
    "internal_reasoning": "reasoning",
}
_IF_PRICED: Final = {
    "input_cache_write_1h": "cache_write_1h",
    "audio": "audio_input",
    "image_token": "image_input",
    "audio_output": "audio_output",
    "image_output": "image_output",
}
"""Public name -> bucket. The names are OpenRouter's, but for the one of the cache that lives for an hour."""

_COMMON: Final = frozenset({
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "tools", "tool_choice", "response_format",
    "structured_outputs", "reasoning_effort",
})  # fmt: skip
_OPENAI: Final = _COMMON | {
    "frequency_penalty", "presence_penalty", "seed", "logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls",
    "verbosity",
}  # fmt: skip
EXPRESSED: Final[Mapping[str, frozenset[str]]] = {
    "openai": _OPENAI,
    "openai-responses": (_COMMON - {"stop"}) | {"parallel_tool_calls", "verbosity", "logprobs", "top_logprobs"},
    "azure": _OPENAI,
    "anthropic": _COMMON | {"top_k", "parallel_tool_calls"},
    "gemini": _COMMON | {"top_k", "seed", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs"},
    "bedrock": _COMMON | {"top_k"},
}
"""Dialect -> what can be said in it, in OpenRouter's names. What a model makes of it is its vendor's affair."""
_SAMPLING: Final = frozenset(("temperature", "top_p", "top_k"))
_OF_EMBEDDINGS: Final = ("dimensions", "encoding_format")


class Listing(msgspec.Struct, frozen=True):
    """A list, ready to be sent, with the tag that changes with it."""

    content: bytes
    etag: str
    until: float
    """When a price begins that changes it, in Unix seconds."""


class Listings:
    """The lists of the catalog and price book in force, each made once for an organization and what it allows."""

    def __init__(self) -> None:
        self._made_from: tuple[CatalogSnapshot, PriceBook] | None = None
        self._lists: dict[tuple[str, bool, tuple[Guardrail, ...], DataRules | None], Listing] = {}

    def of(self, grant: KeyGrant, snapshot: CatalogSnapshot, book: PriceBook, *, now: float) -> Listing:
        """The models that the key can call at `now` (Unix seconds). A sandbox key has a list of its own."""
        made_from = self._made_from
        if made_from is None or made_from[0] is not snapshot or made_from[1] is not book:
            self._made_from = (snapshot, book)
            self._lists.clear()
        data = grant.policy.data if grant.policy is not None else None
        owner = (grant.organization_id, grant.sandbox, model_rules(grant), data)
        listing = self._lists.get(owner)
        if listing is None or listing.until <= now:
            if len(self._lists) >= MAX_LISTS:
                self._lists.pop(next(iter(self._lists)))
            listing = self._lists[owner] = _listing(grant, snapshot, book, now=now)
        return listing


def _listing(grant: KeyGrant, snapshot: CatalogSnapshot, book: PriceBook, *, now: float) -> Listing:
    models = models_for(grant, snapshot)
    content = orjson.dumps({"object": "list", "data": [present(model, grant, book, now=now) for model in models]})
    starts = [price.starts_at for model in models for price in model.prices]
    starts += [start for model in models for start in book.starts(grant.organization_id, model.id)]
    return Listing(content, etag_of(content), min((start for start in starts if start > now), default=float("inf")))


def etag_of(content: bytes) -> str:
    """A tag that is the same as long as the content is."""
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether the caller has this version: `If-None-Match` names it, or is `*`."""
    named = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in (etag, "*") for tag in named)


def present(model: OfferedModel, grant: KeyGrant, book: PriceBook, *, now: float) -> dict[str, Any]:
    """The public form of a model, priced for the key's organization at `now` (Unix seconds).

    null, where OpenRouter's schema allows it, stands for what CRUN does not know."""
    listed = model.price_at(now)
    price = listed and book.price_for(grant.organization_id, model.id, listed, moment=now)
    return {
        "id": model.id,
        "canonical_slug": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.vendor,
        "name": model.name,
        "description": model.description,
        "context_length": model.context_length,
        "architecture": {
            "modality": f"{'+'.join(model.input_modalities)}->{'+'.join(model.output_modalities)}",
            "input_modalities": model.input_modalities,
            "output_modalities": model.output_modalities,
            "tokenizer": model.tokenizer or None,
            "instruct_type": None,
        },
        "pricing": _pricing(price) if price else None,
        **_listed(listed, price),
        "is_sandbox": model.is_sandbox,
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": None if model.only_embeds else model.max_output_tokens,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": supported_parameters(model),
        "default_parameters": {},
        "hugging_face_id": None,
        "knowledge_cutoff": None,
        "expiration_date": None,
    }


def supported_parameters(model: OfferedModel) -> list[str]:
    """What can be asked of the model without being dropped or refused, whichever way it goes: what every dialect has,
    so that the list tells nothing of the upstream, less what the model itself does not take."""
    if model.only_embeds:
        return list(_OF_EMBEDDINGS)
    common = _COMMON if any(map(_samples, model.targets)) else _COMMON - _SAMPLING
    return sorted(common if any(map(_stops, model.targets)) else common - {"stop"})


def supported_by(model: OfferedModel, target: Target) -> list[str]:
    """What can be asked of this route without being dropped. For who may know the route."""
    if model.only_embeds:
        return list(_OF_EMBEDDINGS)
    expressed = EXPRESSED.get(target.dialect, _COMMON)
    return sorted(expressed if _samples(target) else expressed - _SAMPLING)


def _samples(target: Target) -> bool:
    """Whether the model behind a route takes sampling parameters: the newer Claudes take none, wherever they run."""
    return not is_claude(target.upstream_model) or habits_of(target.upstream_model, "auto").samples


def _stops(target: Target) -> bool:
    """Whether a route takes texts to stop at: those of OpenAI's Responses do not, nor most models behind them."""
    return "stop" in EXPRESSED.get(target.dialect, _COMMON)


def present_as_anthropic(model: OfferedModel) -> dict[str, Any]:
    """A model in the shape of Anthropic's Models API. What is on offer is active: what has ended is not listed."""
    created_at = datetime.fromtimestamp(model.created, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "created_at": created_at,
        "lifecycle": "active",
        "max_input_tokens": model.context_length,
        "max_tokens": None if model.only_embeds else model.max_output_tokens,
    }


def anthropic_page(models: Sequence[OfferedModel], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of Anthropic's list: the newest first, `limit` of them after `after_id` or before `before_id`.

    Raises GatewayError (400) naming the parameter."""
    newest = sorted(models, key=lambda model: (-model.created, model.id))
    limit = _limit(query.get("limit", "20"))
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise bad_field("before_id", "Give after_id or before_id, not both.")
    if before:
        end = _position(newest, before, "before_id")
        start, has_more = max(end - limit, 0), end > limit
    else:
        start = _position(newest, after, "after_id") + 1 if after else 0
        end, has_more = start + limit, len(newest) > start + limit
    page = [present_as_anthropic(model) for model in newest[start:end]]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"data": page, "has_more": has_more, "first_id": first, "last_id": last}


def _limit(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_PAGE:
        return int(text)
    raise bad_field("limit", f"limit must be an integer from 1 to {MAX_PAGE}.")


def _position(models: Sequence[OfferedModel], model_id: str, param: str) -> int:
    for position, model in enumerate(models):
        if model.id == model_id:
            return position
    raise bad_field(param, f"{param} is not the id of a model in this list.")


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
