"""The routes of a model as callers see them, in OpenRouter's shape: how they do, and not who they are. Pure.

Their addresses and what the model is called there are nobody's business; a provider's id is shown where the operator
wants it to be."""

from datetime import UTC, datetime
from typing import Any, Final

from apps.billing.pricing.book import PriceBook
from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.listing.models import present, supported_by
from apps.gateway.routing.health import RouteHealth, Upstreams
from apps.gateway.routing.maintenance import window_at
from apps.keys.contracts import KeyGrant

SERVES: Final = 0
ON_TRIAL: Final = -1
RESTS: Final = -2
IN_MAINTENANCE: Final = -3
_OF_MODEL: Final = ("id", "name", "created", "description", "architecture")


def present_endpoints(
    model: OfferedModel, grant: KeyGrant, book: PriceBook, *, upstreams: Upstreams, now: float, shows_providers: bool
) -> dict[str, Any]:
    """The public form of a model's routes, priced for the key's organization at `now` (Unix seconds)."""
    rules = grant.policy.data if grant.policy is not None else None
    shown = present(model, grant, book, now=now)
    common = {
        "model_id": model.id,
        "model_name": model.name,
        "context_length": model.context_length,
        "max_completion_tokens": shown["top_provider"]["max_completion_tokens"],
        "max_prompt_tokens": None,
        "pricing": shown["pricing"],
        "supports_implicit_caching": None,
    }
    endpoints = [
        {
            "name": f"{model.name}, route {number}",
            "provider_name": target.provider if shows_providers else None,
            "tag": target.provider if shows_providers else None,
            "supported_parameters": supported_by(model, target) if shows_providers else shown["supported_parameters"],
            "quantization": target.quantization,
            **common,
            **_of_route(upstreams.of(target)),
            **_maintenance(target, now),
        }
        for number, target in enumerate(model.targets, 1)
        if rules is None or rules.permits(target)
    ]
    return {"data": {**{name: shown[name] for name in _OF_MODEL}, "endpoints": endpoints}}


def _of_route(health: RouteHealth) -> dict[str, Any]:
    measures, uptime, cached = health.measures, health.measures.uptime(), health.measures.cache_hit_rate()
    return {
        "status": RESTS if health.is_resting else ON_TRIAL if health.is_broken else SERVES,
        "uptime_last_5m": None,
        "uptime_last_30m": None if uptime is None else round(100 * uptime, 2),
        "uptime_last_1d": None,
        "latency_last_30m": measures.latency_ms(),
        "throughput_last_30m": measures.tokens_per_s(),
        "cache_hit_rate_last_30m": None if cached is None else round(cached, 3),
    }


def _maintenance(target: Target, now: float) -> dict[str, Any]:
    """The window that the route is in, or the next one; and the status while it is in it."""
    current = window_at(target, now)
    shown = current or next((window for window in target.maintenance if window.starts_at > now), None)
    status = {} if current is None else {"status": IN_MAINTENANCE}
    if shown is None:
        return {"maintenance": None}
    window = {"from": _moment(shown.starts_at), "until": _moment(shown.ends_at), "note": shown.note or None}
    return {**status, "maintenance": window}


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
