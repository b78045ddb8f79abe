"""Which models and which of their routes a request may take, and in which order: by weights, by what its caller asks
for in `models` and `provider`, and by how the routes do. Pure, but for the dice."""

import random
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from apps.catalog.contracts import OfferedModel, Price, Target
from apps.core.money import NANOS_PER_USD
from apps.gateway.dialects.chat_fields import MAX_MODEL_ID, clean_name
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.errors import NO_MATCHING_PROVIDER, GatewayError, bad_field
from apps.gateway.providers import upstream_request
from apps.gateway.routing.health import RouteHealth, Upstreams
from apps.gateway.routing.maintenance import in_service

MAX_MODELS: Final = 8
MAX_PROVIDERS: Final = 32
SORTS: Final = ("price", "throughput", "latency")
PRICE_LIMITS: Final = {"prompt": "input", "completion": "output", "audio": "audio_input"}
"""Fields of `max_price` in USD per million tokens -> bucket."""
FLAT_LIMITS: Final = {"request": "per_request", "image": "per_image"}
"""Fields of `max_price` in USD for one."""


class Preferences(msgspec.Struct, frozen=True):
    """The `provider` object of a request. Providers are named by the operator's ids."""

    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    require_parameters: bool = False
    sort: str = ""
    max_price: tuple[tuple[str, int], ...] = ()
    """Field of Rates -> the most it may be: nano-USD per million tokens, or for one."""
    min_throughput: float = 0.0
    """Tokens a second."""
    max_latency: float = 0.0
    """Seconds to the first byte; 0 for any."""


class Wishes(msgspec.Struct, frozen=True):
    """What a request says of its way: its models in their order, and its preferences."""

    models: tuple[str, ...]
    preferences: Preferences = Preferences()


def wishes_of(asked: ModelRequest) -> Wishes:
    """Read `models` and `provider`. Raises GatewayError (400) naming the first field that is wrong."""
    models, provider = asked.body.get("models"), asked.body.get("provider")
    names = (asked.model, *(_models(models) if models is not None else ()))
    preferences = _preferences(provider) if provider is not None else Preferences()
    return Wishes(tuple(dict.fromkeys(names)), preferences)


def in_order(model: OfferedModel, upstreams: Upstreams) -> Sequence[Target]:
    """The routes of a model in a random order in which a heavier one tends to come first; those that rest come last.

    Raises GatewayError (503) when all are in maintenance."""
    in_turn = in_service(model.id, model.targets, time.time()) if model.has_maintenance else model.targets
    if len(in_turn) == 1:
        return in_turn
    targets = _weighted(in_turn)
    return usable_first(targets, upstreams) if upstreams.troubled else targets


def usable_first(targets: list[Target], upstreams: Upstreams) -> list[Target]:
    """Routes that are due for a trial, then those that do well, then those that rest, the one that rests shortest
    first: where all rest, that one is used."""

    def rank(target: Target) -> tuple[int, float]:
        health = upstreams.of(target)
        if health.is_resting:
            return 2, health.rests_until
        return (0 if health.is_broken else 1), 0.0

    return sorted(targets, key=rank)


def has_usable_route(model: OfferedModel, upstreams: Upstreams) -> bool:
    """Whether any of its routes is not resting."""
    return not upstreams.troubled or any(not upstreams.of(target).is_resting for target in model.targets)


def chosen(model: OfferedModel, preferences: Preferences, asked: ModelRequest, *, upstreams: Upstreams) -> list[Target]:
    """The routes that the caller wants, in the order of the caller's preferences.

    Raises GatewayError: 404 when there is none, 503 when all are in maintenance. `order` and `sort` stand above health,
    but for routes that rest."""
    targets = [target for target in model.targets if _is_wanted(target, preferences)]
    if preferences.require_parameters:
        targets = [target for target in targets if takes_all_of(asked, model, target)]
    if not targets:
        message = f"No provider of the model '{model.id}' is left by the 'provider' field of the request."
        raise GatewayError(NO_MATCHING_PROVIDER, message, param="provider")
    if model.has_maintenance:
        targets = list(in_service(model.id, targets, time.time()))
    targets = _preferred(_weighted(targets), preferences, upstreams)
    if preferences.order:
        place = {provider: position for position, provider in enumerate(preferences.order)}
        targets.sort(key=lambda target: place.get(target.provider, len(place)))
    elif not preferences.sort and upstreams.troubled:
        targets = usable_first(targets, upstreams)
    targets.sort(key=lambda target: upstreams.of(target).is_resting)
    return targets if preferences.allow_fallbacks or preferences.order else targets[:1]


def check_price(price: Price, preferences: Preferences, *, service_tier: str) -> None:
    """Raises GatewayError (404) when the model costs more than the caller wants to pay, at any rate it can come to."""
    rates = (price, *(each for each in price.variants if each.service_tier in ("", service_tier)))
    for field, most in preferences.max_price:
        asked = max(getattr(each, field) if field in FLAT_LIMITS.values() else each.of(field) for each in rates)
        if asked > most:
            message = "The model costs more than provider.max_price allows."
            raise GatewayError(NO_MATCHING_PROVIDER, message, param="provider.max_price")


def _weighted(targets: Iterable[Target]) -> list[Target]:
    return sorted(targets, key=lambda target: random.random() ** (1 / target.weight), reverse=True)  # noqa: S311 - no secret, a load


def _is_wanted(target: Target, preferences: Preferences) -> bool:
    provider = target.provider
    if provider in preferences.ignore or (preferences.only and provider not in preferences.only):
        return False
    return not preferences.order or preferences.allow_fallbacks or provider in preferences.order


def takes_all_of(asked: ModelRequest, model: OfferedModel, target: Target) -> bool:
    """Whether the route's dialect has words for every field of the request."""
    try:
        return not upstream_request(asked, model, target, request_id="").dropped
    except GatewayError:
        return False


def _preferred(targets: list[Target], preferences: Preferences, upstreams: Upstreams) -> list[Target]:
    """By the wanted measure; a route that nothing is known of comes after those that are measured, and one that is
    known to miss a wanted figure comes last. All routes of a model have one price, so `price` changes nothing here."""
    if preferences.sort == "latency":
        targets.sort(key=lambda target: upstreams.of(target).latency_ms or float("inf"))
    elif preferences.sort == "throughput":
        targets.sort(key=lambda target: -upstreams.of(target).tokens_per_s)
    targets.sort(key=lambda target: _misses(upstreams.of(target), preferences))
    return targets


def _misses(health: RouteHealth, preferences: Preferences) -> bool:
    is_slow = 0 < health.tokens_per_s < preferences.min_throughput
    return is_slow or 0 < preferences.max_latency * 1000 < health.latency_ms


def _models(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MAX_MODELS:
        raise bad_field("models", f"models must be a list of at most {MAX_MODELS} model ids.")
    return [clean_name(f"models[{index}]", name, most=MAX_MODEL_ID) for index, name in enumerate(value)]


def _preferences(value: object) -> Preferences:
    if not isinstance(value, dict):
        raise bad_field("provider", "provider must be an object.")
    found: dict[str, Any] = {}
    for name, given in value.items():
        field = f"provider.{name}"
        reader = _READERS.get(name)
        if reader is None:
            raise bad_field(field, f"provider has no field {name!r}; it may have: {', '.join(_READERS)}.")
        if given is not None:
            found |= reader(field, given)
    return Preferences(**found)


def _providers(field: str, value: object) -> dict[str, Any]:
    if value == [] and field != "provider.only":
        return {}  # some clients send their empty defaults; that nobody may serve it is no default
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PROVIDERS:
        raise bad_field(field, f"{field} must be a list of 1 to {MAX_PROVIDERS} provider ids.")
    names = (clean_name(f"{field}[{index}]", name, most=MAX_MODEL_ID) for index, name in enumerate(value))
    return {field.partition(".")[2]: tuple(names)}


def _flag(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise bad_field(field, f"{field} must be true or false.")
    return {field.partition(".")[2]: value}


def _unpromised_flag(field: str, value: object) -> dict[str, Any]:
    if _flag(field, value).popitem()[1]:
        raise bad_field(field, f"{field} cannot be promised: it is not known of the providers here.")
    return {}


def _data_collection(field: str, value: object) -> dict[str, Any]:
    if value not in ("allow", "deny"):
        raise bad_field(field, f"{field} must be 'allow' or 'deny'.")
    if value == "deny":
        raise bad_field(field, f"{field} 'deny' cannot be promised: what providers keep is not known here.")
    return {}


def _quantizations(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise bad_field(field, f"{field} must be a list of strings.")
    if "unknown" not in value:
        message = f"{field} must contain 'unknown': how the providers here quantize their models is not known."
        raise bad_field(field, message)
    return {}


def _sort(field: str, value: object) -> dict[str, Any]:
    if value not in SORTS:
        raise bad_field(field, f"{field} must be one of: {', '.join(SORTS)}.")
    return {"sort": value}


def _max_price(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_field(field, f"{field} must be an object.")
    known = {**PRICE_LIMITS, **FLAT_LIMITS}
    limits = []
    for name, given in value.items():
        if name not in known:
            raise bad_field(f"{field}.{name}", f"{field} has no field {name!r}; it may have: {', '.join(known)}.")
        if given is not None:
            limits.append((known[name], _nanos(f"{field}.{name}", given)))
    return {"max_price": tuple(limits)}


def _nanos(field: str, value: object) -> int:
    amount = None
    if isinstance(value, str) or type(value) in (int, float):
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = None
    if amount is None or not amount.is_finite() or not 0 <= amount < 1_000_000_000:
        raise bad_field(field, f"{field} must be an amount in USD, 0 or more.")
    return int(amount * NANOS_PER_USD)


def _figure(name: str) -> Any:
    """A number, or an object with `p50`: averages are all that is kept."""

    def read(field: str, value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            for other in value:
                if other != "p50":
                    raise bad_field(f"{field}.{other}", f"{field} knows p50 alone: averages are what is kept here.")
            value = value.get("p50")
        if value is None:
            return {}
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e9:
            raise bad_field(field, f"{field} must be a number above 0.")
        return {name: float(value)}

    return read


_READERS: Final = {
    "order": _providers,
    "only": _providers,
    "ignore": _providers,
    "allow_fallbacks": _flag,
    "require_parameters": _flag,
    "data_collection": _data_collection,
    "zdr": _unpromised_flag,
    "enforce_distillable_text": _unpromised_flag,
    "quantizations": _quantizations,
    "sort": _sort,
    "max_price": _max_price,
    "preferred_min_throughput": _figure("min_throughput"),
    "preferred_max_latency": _figure("max_latency"),
}
