"""The attempt loop: try the routes of a model until one answers. What may have been charged is never tried again."""

import asyncio
import logging
import random
from dataclasses import dataclass

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.admission import Admission
from apps.gateway.cancellation import told_to_client
from apps.gateway.deadline import Deadline, Wait
from apps.gateway.errors import (
    GATEWAY_STOPPING,
    SERVER_ERROR,
    STORE_AWAY,
    UPSTREAM_FAILED,
    UPSTREAM_MISCONFIGURED,
    UPSTREAM_OVERLOADED,
    UPSTREAM_UNAUTHORIZED,
    GatewayError,
)
from apps.gateway.growth import Growth
from apps.gateway.metering import Meter
from apps.gateway.providers import PROVIDERS
from apps.gateway.providers.transport import (
    MAX_ERROR_BYTES,
    Transport,
    UpstreamBroken,
    UpstreamResponse,
    UpstreamUnreachable,
)
from apps.gateway.reservations import Reservations
from apps.usage.contracts import Outcome, RequestOpened, TokenCounts
from apps.usage.journal import Journal, JournalFull

MAX_ATTEMPTS = 3
_NOT_THE_CALLERS_FAULT = (UPSTREAM_OVERLOADED, UPSTREAM_FAILED, UPSTREAM_MISCONFIGURED, UPSTREAM_UNAUTHORIZED)
"""An answer of these kinds cost nothing, and another route may do better."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Exchange:
    """An admitted request and the upstream's answer to it, status 200, its body still to come."""

    admission: Admission
    meter: Meter
    response: UpstreamResponse
    target: Target
    deadline: Deadline
    growth: Growth | None = None

    def abandon(self) -> None:
        """Let go of the upstream and close the record, if nobody did. For every way out."""
        self.deadline.stop()
        if self.growth is not None:
            self.growth.stop()
        self.response.close()
        self.meter.close_partial(Outcome.CANCELLED, None, 0, error_code="client_closed")


class _TryNext(Exception):
    """This route failed in a way that cannot have cost anything; `error` is what the caller sees if it was the last."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(error.message)
        self.error = error


async def open_exchange(
    transport: Transport, journal: Journal, admission: Admission, *, reservations: Reservations
) -> Exchange:
    """Call the upstreams in turn, for a request that is reserved. Raises GatewayError when none answers; the record is
    closed then, and the reservation settled."""
    # Nobody but the meter settles, and holds of running requests are renewed for ever: until there is a meter,
    # whatever goes wrong, be it a mistake of ours or a cancellation, must give the hold back.
    try:
        targets = in_order(admission.model)[:MAX_ATTEMPTS]
        deadline = Deadline()
        meter = _open_meter(journal, admission, targets[0], reservations=reservations)
    except JournalFull as error:
        reservations.release(admission.demand)
        raise GatewayError(STORE_AWAY, "Usage cannot be recorded right now, so nothing is served.") from error
    except BaseException:
        reservations.release(admission.demand)
        raise
    try:
        response, target = await _first_answer(transport, admission, targets, deadline=deadline, meter=meter)
    except GatewayError as error:
        deadline.stop()
        meter.close(Outcome.FAILED, TokenCounts(), http_status=error.kind.status, error_code=error.code or "")
        raise
    except asyncio.CancelledError as cancellation:
        deadline.stop()
        failure = told_to_client(cancellation, deadline)
        if failure is None:
            meter.close_partial(Outcome.CANCELLED, None, 0, error_code="client_closed")
            raise
        outcome = Outcome.INTERRUPTED if failure.kind is GATEWAY_STOPPING else Outcome.FAILED
        meter.close(outcome, TokenCounts(), http_status=failure.kind.status, error_code=failure.code or "")
        raise failure from None
    except BaseException:
        deadline.stop()
        meter.close(Outcome.FAILED, TokenCounts(), http_status=500, error_code=SERVER_ERROR.code or "")
        raise
    growth = Growth(admission, note=meter.note_hold, reservations=reservations) if admission.grows else None
    return Exchange(admission, meter, response, target, deadline, growth)


def in_order(model: OfferedModel) -> list[Target]:
    """The routes of a model in a random order in which a heavier one tends to come first."""
    if len(model.targets) == 1:
        return list(model.targets)
    return sorted(model.targets, key=lambda target: random.random() ** (1 / target.weight), reverse=True)  # noqa: S311 - no secret, a load


def _open_meter(journal: Journal, admission: Admission, target: Target, *, reservations: Reservations) -> Meter:
    opened = RequestOpened(
        request_id=admission.request_id,
        organization_id=admission.grant.organization_id,
        project_id=admission.grant.project_id,
        key_id=admission.grant.key_id,
        model=admission.model.id,
        provider=target.provider,
        upstream_model=target.upstream_model,
        streamed=admission.chat.stream,
        price=admission.price,
        input_estimate=admission.chat.input_estimate(),
        hold_nanos=admission.hold_nanos,
        sandbox=admission.grant.sandbox,
        balance_nanos=admission.balance_nanos,
        images=admission.images,
    )
    return Meter(journal, opened, settle=reservations.settle)


async def _first_answer(
    transport: Transport, admission: Admission, targets: list[Target], *, deadline: Deadline, meter: Meter
) -> tuple[UpstreamResponse, Target]:
    for position, target in enumerate(targets, start=1):
        meter.route_to(target)
        deadline.expect(Wait.FIRST_BYTE if admission.chat.stream else Wait.WHOLE_ANSWER)
        try:
            return await _attempt(transport, admission, target, meter=meter), target
        except _TryNext as failure:
            log.warning(
                "attempt failed",
                extra={
                    "request_id": admission.request_id,
                    "provider": target.provider,
                    "reason": failure.error.code,
                },
            )
            if position == len(targets):
                raise failure.error from failure
    raise GatewayError(UPSTREAM_FAILED, "No route of this model can be used right now.")


async def _attempt(transport: Transport, admission: Admission, target: Target, *, meter: Meter) -> UpstreamResponse:
    """One call. Raises _TryNext when another route may be tried, GatewayError when that would be wrong."""
    provider = PROVIDERS[target.dialect]
    request = provider.chat_request(admission.chat, admission.model, target, request_id=admission.request_id)
    try:
        response = await transport.post(request, on_send=meter.note_sent)
    except UpstreamUnreachable as error:
        raise _TryNext(GatewayError(UPSTREAM_FAILED, "The upstream cannot be reached.")) from error
    except UpstreamBroken as error:
        raise GatewayError(UPSTREAM_FAILED, "The upstream closed the connection without an answer.") from error
    if response.status == 200:
        return response
    meter.note_refused()
    try:
        body = await response.read(MAX_ERROR_BYTES)
    except UpstreamBroken:
        body = b""
    finally:
        response.close()
    failure = provider.failure(
        response.status, response.header("retry-after"), body, target=target, model=admission.model.id
    )
    if failure.kind in _NOT_THE_CALLERS_FAULT:
        raise _TryNext(failure)
    raise failure
