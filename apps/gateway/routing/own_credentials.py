"""Routes with the organization's own provider keys: opened once for each grant, tried before the operator's."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from django.conf import settings

from apps.catalog.contracts import OfferedModel, Target
from apps.core.crypto import unseal
from apps.core.errors import ConfigurationError
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.errors import (
    DATA_POLICY,
    MODEL_IN_MAINTENANCE,
    NO_MATCHING_PROVIDER,
    PROVIDER_KEY_REFUSED,
    UPSTREAM_MISCONFIGURED,
    UPSTREAM_OVERLOADED,
    UPSTREAM_UNAUTHORIZED,
    GatewayError,
)
from apps.gateway.routing.health import Upstreams
from apps.gateway.routing.order import chosen, in_order, usable_first
from apps.gateway.routing.wishes import Preferences
from apps.keys.contracts import KeyGrant
from apps.policies.contracts import Policy
from apps.policies.own_credentials import OwnCredential, kind_of

MAX_OWN_CALLS: Final = 2
"""Of one model, before the operator's credential is tried: a caller does not wait for a row of keys that all fail."""
MAX_SHARED_CALLS: Final = 3
"""Of one model with the operator's credential."""
MAX_GRANTS: Final = 10_000
_NONE_LEFT: Final = (DATA_POLICY, NO_MATCHING_PROVIDER, MODEL_IN_MAINTENANCE)
log = logging.getLogger(__name__)


class OwnRoutes(msgspec.Struct, frozen=True):
    """The routes of a model that an organization's own keys open: a model for each key, in the order of the keys."""

    organization_id: str
    groups: tuple[OfferedModel, ...]
    is_exclusive: bool
    """The operator's credential must not be used in their place."""


class _Opened(msgspec.Struct):
    """The keys of a policy, opened so far. Never shown."""

    policy: Policy
    secrets: dict[str, str | None]

    def __repr__(self) -> str:
        return f"_Opened({len(self.secrets)})"


class OwnKeys:
    """Opens the keys of grants. One a worker; what is opened is forgotten with the grant's policy."""

    def __init__(self) -> None:
        self._opened: dict[str, _Opened] = {}

    def routes(self, grant: KeyGrant, model: OfferedModel) -> OwnRoutes | None:
        """The routes of the model with keys of the grant's organization; None where it has none for it.

        Raises GatewayError (403) when it may be asked with own keys alone and none of them can be opened."""
        policy = grant.policy
        if policy is None or not policy.credentials or grant.sandbox:
            return None
        groups, is_exclusive, is_meant = [], False, False
        for credential in policy.credentials:
            if credential.organization_id != grant.organization_id or not credential.is_for(model.id):
                continue
            routes = [
                target for target in model.targets if target.provider == credential.provider and not target.is_sandbox
            ]
            is_meant = is_meant or bool(routes)
            is_exclusive = is_exclusive or (credential.is_exclusive and bool(routes))
            own = [self._with_key(target, credential, grant.key_id, policy) for target in routes]
            if targets := tuple(target for target in own if target is not None):
                groups.append(msgspec.structs.replace(model, targets=targets))
        if is_exclusive and not groups:
            raise GatewayError(PROVIDER_KEY_REFUSED, "Your organization's own provider key must be entered again.")
        return OwnRoutes(grant.organization_id, tuple(groups), is_exclusive) if groups else None

    def _with_key(self, target: Target, credential: OwnCredential, key_id: str, policy: Policy) -> Target | None:
        opened = self._opened.get(key_id)
        if opened is None or opened.policy is not policy:
            if len(self._opened) >= MAX_GRANTS:
                self._opened.clear()
            opened = self._opened[key_id] = _Opened(policy, {})
        bound_to = credential.binding_for(target.base_url)
        if bound_to not in opened.secrets:
            opened.secrets[bound_to] = _open(credential, bound_to)
        secret = opened.secrets[bound_to]
        if secret is None:
            return None
        options = {**target.options, **credential.options} if credential.options else target.options
        if kind := kind_of(target.dialect, credential.options, target.options):
            options = {**options, "auth": kind}  # what the operator's machine may do is nobody else's
        return msgspec.structs.replace(target, api_key=secret, credential_id=credential.id, options=options)


def _open(credential: OwnCredential, bound_to: str) -> str | None:
    """The key, or None when it was sealed for another host, or with a key of the ring that is gone."""
    try:
        return unseal(credential.sealed, bound_to=bound_to, ring=settings.ENCRYPTION_KEYS)
    except ConfigurationError:
        log.error(
            "a provider key of an organization cannot be opened",
            extra={"credential": credential.id, "organization": credential.organization_id},
        )
        return None


def own_first(own: OwnRoutes, model: OfferedModel, asked: ModelRequest, *, upstreams: Upstreams) -> list[Target]:
    """The routes of the own keys, then the others; nothing but the own ones where that is exclusive.

    Raises GatewayError (503) when all are in maintenance."""

    def pick(offer: OfferedModel) -> Sequence[Target]:
        return in_order(offer, asked, own.organization_id, upstreams=upstreams)

    mine = _mine(own, pick)
    return _together(mine, _others(own, model, mine, pick), upstreams)


def chosen_own_first(
    own: OwnRoutes,
    model: OfferedModel,
    preferences: Preferences,
    asked: ModelRequest,
    *,
    grant: KeyGrant,
    upstreams: Upstreams,
) -> list[Target]:
    """The same of the routes that the caller's organization permits and the caller wants. Raises GatewayError: 403 when
    none is permitted, 404 when none is wanted, 503 as above.

    `order` orders the own ones and the others each for themselves: an own key comes first, wherever its provider
    stands."""

    def pick(offer: OfferedModel) -> Sequence[Target]:
        return chosen(offer, preferences, asked, grant, upstreams=upstreams)

    mine = _mine(own, pick)
    if preferences.order:
        place = {provider: position for position, provider in enumerate(preferences.order)}
        mine.sort(key=lambda target: place.get(target.provider, len(place)))
    targets = _together(mine, _others(own, model, mine, pick), upstreams)
    return targets if preferences.allow_fallbacks or preferences.order else targets[:1]


def _mine(own: OwnRoutes, pick: Callable[[OfferedModel], Sequence[Target]]) -> list[Target]:
    found: list[Target] = []
    failure = None
    for group in own.groups:
        try:
            found += pick(group)
        except GatewayError as error:
            if error.kind not in _NONE_LEFT:
                raise
            failure = error
    if failure is not None and own.is_exclusive and not found:
        raise failure
    return found


def _others(
    own: OwnRoutes, model: OfferedModel, mine: list[Target], pick: Callable[[OfferedModel], Sequence[Target]]
) -> Sequence[Target]:
    """The routes with the operator's credential."""
    if own.is_exclusive:
        return ()
    try:
        return pick(model)
    except GatewayError as error:
        if not mine or error.kind not in _NONE_LEFT:
            raise
        return ()


def _together(mine: list[Target], others: Sequence[Target], upstreams: Upstreams) -> list[Target]:
    """An own route that rests is left alone while there is another way."""
    usable = [target for target in mine if not upstreams.of(target).is_resting]
    if others:
        return [*usable[:MAX_OWN_CALLS], *others[:MAX_SHARED_CALLS]]
    return usable_first(mine, upstreams, is_sticky=False) if len(usable) < len(mine) else mine


def told_of_own(error: GatewayError, target: Target) -> GatewayError:
    """What a refusal means when it was the organization's own key that was sent. No operator can mend that."""
    provider = target.provider
    if error.kind is UPSTREAM_UNAUTHORIZED:
        message = f"The provider '{provider}' refused your organization's own key: see the portal's provider keys."
        return GatewayError(PROVIDER_KEY_REFUSED, message)
    if error.kind is UPSTREAM_MISCONFIGURED:
        message = f"The provider '{provider}' does not serve this model to your organization's own key."
        return GatewayError(UPSTREAM_MISCONFIGURED, message)
    if error.kind is UPSTREAM_OVERLOADED:
        message = f"The provider '{provider}' limits your organization's own key, or is overloaded; try again later."
        return GatewayError(UPSTREAM_OVERLOADED, message, retry_after_ms=error.retry_after_ms)
    return error
