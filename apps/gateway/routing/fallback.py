"""The models of a request that names several, or says which providers it wants: each is admitted for itself."""

import copy
from collections import deque
from collections.abc import Callable
from typing import Final

from apps.billing.admission import Allowance
from apps.catalog.contracts import Target
from apps.core.errors import Unavailable
from apps.gateway.admission.decision import Admission, admit, reserve
from apps.gateway.admission.refusals import LimitReached
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.errors import (
    BAD_REQUEST,
    CONTENT_POLICY,
    CONTEXT_TOO_LONG,
    DATA_POLICY,
    LIVE_MODEL,
    MODEL_IN_MAINTENANCE,
    MODEL_NOT_FOUND,
    NO_MATCHING_PROVIDER,
    REQUEST_OVER_RATE,
    STORE_AWAY,
    UNPRICED,
    UNSUPPORTED_MODALITY,
    GatewayError,
)
from apps.gateway.routing.order import check_price, chosen, has_usable_route
from apps.gateway.routing.own_credentials import chosen_own_first
from apps.gateway.routing.wishes import wishes_of
from apps.gateway.runtime import Runtime
from apps.keys.contracts import KeyGrant

_OF_ONE_MODEL: Final = (
    CONTENT_POLICY,
    CONTEXT_TOO_LONG,
    DATA_POLICY,
    LIVE_MODEL,
    MODEL_IN_MAINTENANCE,
    MODEL_NOT_FOUND,
    NO_MATCHING_PROVIDER,
    REQUEST_OVER_RATE,
    UNPRICED,
    UNSUPPORTED_MODALITY,
)
"""Refusals that another model may not have. A lack of money, or a limit that all models share, ends the request."""


class Fallback:
    """Admits the first model that may run, and after it the next, each with its own price, limits and hold.

    The request keeps its id, and its one hold is always that of the model that runs: docs/decisions/0021."""

    def __init__(
        self,
        runtime: Runtime,
        grant: KeyGrant,
        asked: ModelRequest,
        *,
        request_id: str,
        note: Callable[[Allowance], None],
    ) -> None:
        """`note` is told what the caller has left, whenever that is known anew. Raises GatewayError (400)."""
        wishes = wishes_of(asked)
        self._runtime = runtime
        self._snapshot = runtime.snapshot
        self._grant = grant
        self._asked = asked
        self._request_id = request_id
        self._note = note
        self._preferences = wishes.preferences
        self._left = deque(wishes.models)
        self.targets: list[Target] = []
        """The routes of the model that was admitted last."""

    async def first(self) -> Admission:
        """The first model that may run. As for `reserve`, `dispatch.open_exchange` must follow at once.

        Raises GatewayError when none may, Unavailable without the store."""
        return await self._admit_one(None)

    async def next(self, failure: GatewayError) -> tuple[Admission, list[Target]]:
        """The next model that may run, in place of one whose routes all failed for nothing, and its routes.

        What the request holds is exchanged in one call. Raises `failure` when there is no other model, GatewayError
        when money, a limit or the store says no: it holds nothing then, and only its record is to be closed."""
        try:
            return await self._admit_one(failure), self.targets
        except Unavailable as error:
            raise GatewayError(STORE_AWAY, f"Not available right now: {error.message}.") from error

    async def _admit_one(self, failure: GatewayError | None) -> Admission:
        is_again = failure is not None
        self._put_usable_first()
        while self._left:
            try:
                return await self._admit(self._left.popleft(), is_again=is_again)
            except GatewayError as error:
                if is_again and isinstance(error, LimitReached):
                    self._note(error.allowance)
                if not _is_of_one_model(error):
                    raise
                failure = failure or error
        raise failure or GatewayError(MODEL_NOT_FOUND, "No model is left to be tried.", param="models")

    def _put_usable_first(self) -> None:
        """A model all of whose routes rest waits until the others were tried."""
        upstreams, models = self._runtime.upstreams, self._snapshot.models
        if upstreams.troubled and len(self._left) > 1:
            resting = [name for name in self._left if name in models and not has_usable_route(models[name], upstreams)]
            self._left = deque([*(name for name in self._left if name not in resting), *resting])

    async def _admit(self, model_id: str, *, is_again: bool) -> Admission:
        runtime = self._runtime
        # A copy, because what is counted in one model's vocabulary and cut to its hold says nothing about the next.
        asked = copy.copy(self._asked)
        asked.model = model_id
        admission = admit(
            self._grant,
            asked,
            self._snapshot,
            book=runtime.book,
            request_id=self._request_id,
            own_keys=runtime.own_keys,
        )
        admission.is_again = is_again
        check_price(admission.price, self._preferences, service_tier=asked.asked_tier)
        admission, targets = self._ways(admission)
        admission, allowance = await reserve(runtime.reservations, admission)
        self.targets = targets
        self._note(allowance)
        if admission.own is not None and admission.own.is_exclusive:
            self.targets = [target for target in targets if target.credential_id]
        return admission

    def _ways(self, admission: Admission) -> tuple[Admission, list[Target]]:
        """The routes that the caller wants, and the request held for no more than these can cost."""
        upstreams, model, own = self._runtime.upstreams, admission.model, admission.own
        if own is None:
            return admission, chosen(model, self._preferences, admission.asked, self._grant, upstreams=upstreams)
        targets = chosen_own_first(
            own, model, self._preferences, admission.asked, grant=self._grant, upstreams=upstreams
        )
        kinds = {bool(target.credential_id) for target in targets}
        if kinds == {True}:
            return admission.with_own_keys_alone(), targets
        return (admission if True in kinds else admission.without_own_keys()), targets


def _is_of_one_model(error: GatewayError) -> bool:
    if isinstance(error, LimitReached) and error.is_of_model:
        return True
    return error.kind in _OF_ONE_MODEL or (error.kind is BAD_REQUEST and error.param == "service_tier")
