"""Which routes of a model a request takes, and in which order: by weights and the conversation that it belongs to, by
what its caller asks for in `provider`, and by how the routes do. Pure, but for the dice."""

import math
import random
import time
from collections.abc import Iterable, Sequence

from apps.catalog.contracts import OfferedModel, Price, Target
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.errors import DATA_POLICY, NO_MATCHING_PROVIDER, GatewayError
from apps.gateway.providers import upstream_request
from apps.gateway.routing.affinity import draw
from apps.gateway.routing.health import RouteHealth, Upstreams
from apps.gateway.routing.maintenance import in_service
from apps.gateway.routing.wishes import FLAT_LIMITS, Preferences
from apps.keys.contracts import KeyGrant


def in_order(
    model: OfferedModel, asked: ModelRequest, organization_id: str, *, upstreams: Upstreams
) -> Sequence[Target]:
    """The routes of a model, those that rest last. The turns of a conversation find them in the same order, all others
    in a random one; over all of them a heavier route comes first as often as its weight says.

    Raises GatewayError (503) when all are in maintenance."""
    in_turn = in_service(model.id, model.targets, time.time()) if model.has_maintenance else model.targets
    if len(in_turn) == 1:
        return in_turn
    session = upstreams.affinity.session_of(asked, organization_id)
    targets = _weighted(in_turn, session)
    if asked.pinned is not None:
        _put_first(targets, asked.pinned)
    is_sticky = session is not None or asked.pinned is not None
    return usable_first(targets, upstreams, is_sticky=is_sticky) if upstreams.troubled else targets


def _put_first(targets: list[Target], pinned: tuple[str, str]) -> None:
    """The route that has what was said before, if it is still among them, before all others."""
    targets.sort(key=lambda target: (target.provider, target.upstream_model) != pinned)


def usable_first(targets: list[Target], upstreams: Upstreams, *, is_sticky: bool) -> list[Target]:
    """Routes that are due for a trial, then those that do well, then those that rest, the one that rests shortest
    first: where all rest, that one is used. A conversation leaves its route for no trial of another."""

    def rank(target: Target) -> tuple[int, float]:
        health = upstreams.of(target)
        if health.is_resting:
            return 2, health.rests_until
        return (0 if health.is_broken and not is_sticky else 1), 0.0

    return sorted(targets, key=rank)


def has_usable_route(model: OfferedModel, upstreams: Upstreams) -> bool:
    """Whether any of its routes is not resting."""
    return not upstreams.troubled or any(not upstreams.of(target).is_resting for target in model.targets)


def chosen(
    model: OfferedModel,
    preferences: Preferences,
    asked: ModelRequest,
    grant: KeyGrant,
    *,
    upstreams: Upstreams,
) -> list[Target]:
    """The routes that the caller's organization permits and the caller wants, in the order of the caller's preferences.

    Raises GatewayError: 403 when none is permitted, 404 when none is wanted, 503 when all are in maintenance. `order`
    and `sort` stand above health, but for routes that rest; a conversation stays where `sort` sent its first turn."""
    targets = [target for target in permitted(model, grant) if is_wanted(target, preferences)]
    if preferences.require_parameters:
        targets = [target for target in targets if takes_all_of(asked, model, target)]
    if not targets:
        message = f"No provider of the model '{model.id}' is left by the 'provider' field of the request."
        raise GatewayError(NO_MATCHING_PROVIDER, message, param="provider")
    if model.has_maintenance:
        targets = list(in_service(model.id, targets, time.time()))
    if len(targets) == 1:
        return targets
    session = upstreams.affinity.session_of(asked, grant.organization_id)
    targets = _weighted(targets, session)
    if preferences.order:
        place = {provider: position for position, provider in enumerate(preferences.order)}
        targets = _measured(targets, preferences, upstreams)
        targets.sort(key=lambda target: place.get(target.provider, len(place)))
    elif preferences.is_measured:
        targets = _staying(_measured(targets, preferences, upstreams), session, upstreams)
    elif upstreams.troubled:
        targets = usable_first(targets, upstreams, is_sticky=session is not None)
    if asked.pinned is not None and not preferences.order:
        _put_first(targets, asked.pinned)
    targets.sort(key=lambda target: upstreams.of(target).is_resting)
    return targets if preferences.allow_fallbacks or preferences.order else targets[:1]


def permitted(model: OfferedModel, grant: KeyGrant) -> Sequence[Target]:
    """The routes that the data policy of the caller's organization leaves. Raises GatewayError (403) for none.

    What the caller wants comes after that, and can only take more of them away."""
    rules = grant.policy.data if grant.policy is not None else None
    if rules is None:
        return model.targets
    targets = [target for target in model.targets if rules.permits(target)]
    if not targets:
        message = (
            f"No route of the model '{model.id}' is left by the data policy of your organization, which allows"
            f" {rules.reasons}."
        )
        raise GatewayError(DATA_POLICY, message, param="model")
    return targets


def check_price(price: Price, preferences: Preferences, *, service_tier: str) -> None:
    """Raises GatewayError (404) when the model costs more than the caller wants to pay, at any rate it can come to."""
    rates = (price, *(each for each in price.variants if each.service_tier in ("", service_tier)))
    for field, most in preferences.max_price:
        asked = max(getattr(each, field) if field in FLAT_LIMITS.values() else each.of(field) for each in rates)
        if asked > most:
            message = "The model costs more than provider.max_price allows."
            raise GatewayError(NO_MATCHING_PROVIDER, message, param="provider.max_price")


def _weighted(targets: Iterable[Target], session: bytes | None) -> list[Target]:
    """By weighted rendezvous: each route draws a number, and the heavier it is, the nearer to the top that gets.

    A session's numbers are always the same, so a route that comes or goes moves no session but its own. A canary comes
    first for its share of sessions, and last for all others: when it rests or fails, the rest of the order stands."""

    def place(target: Target) -> tuple[int, float]:
        drawn = _drawn(session, target)
        if not target.canary_percent:
            return 0, math.log(drawn) / target.weight
        return (1 if 100 * _drawn(session, target, b"canary") < target.canary_percent else -1), drawn

    return sorted(targets, key=place, reverse=True)


def _drawn(session: bytes | None, target: Target, purpose: bytes = b"") -> float:
    """Above 0 and below 1: the session's own number, or any where there is no session."""
    if session is None:
        return any_number()
    return draw(session, target, purpose)


def any_number() -> float:
    """Above 0 and below 1."""
    return random.random() or 0.5  # noqa: S311 - spreads requests over routes; nobody gains by guessing


def _staying(targets: list[Target], session: bytes | None, upstreams: Upstreams) -> list[Target]:
    """The route that the session took before comes first: what is measured matters to new ones."""
    if session is None:
        return targets
    known = upstreams.sessions.recall(session, targets)
    if known is None:
        upstreams.sessions.remember(session, targets[0])
        return targets
    return [known, *(target for target in targets if target is not known)]


def is_wanted(target: Target, preferences: Preferences) -> bool:
    """Whether the caller lets its request go there."""
    provider = target.provider
    if provider in preferences.ignore or (preferences.only and provider not in preferences.only):
        return False
    if preferences.quantizations and target.quantization not in preferences.quantizations:
        return False
    if preferences.is_private and not preferences.data.permits(target):
        return False
    return not preferences.order or preferences.allow_fallbacks or provider in preferences.order


def takes_all_of(asked: ModelRequest, model: OfferedModel, target: Target) -> bool:
    """Whether the route's dialect has words for every field of the request."""
    try:
        return not upstream_request(asked, model, target, request_id="").dropped
    except GatewayError:
        return False


def _measured(targets: list[Target], preferences: Preferences, upstreams: Upstreams) -> list[Target]:
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
