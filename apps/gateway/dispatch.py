"""The attempt loop: try the routes of a model until one answers. What may have been charged is never tried again."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from apps.catalog.contracts import Target
from apps.core.crash_points import crash_point
from apps.gateway.admission.decision import Admission
from apps.gateway.admission.reservations import Reservations
from apps.gateway.errors import (
    CONTEXT_TOO_LONG,
    GATEWAY_STOPPING,
    SERVER_ERROR,
    STORE_AWAY,
    UPSTREAM_FAILED,
    UPSTREAM_MISCONFIGURED,
    UPSTREAM_OVERLOADED,
    UPSTREAM_TIMEOUT,
    UPSTREAM_UNAUTHORIZED,
    GatewayError,
)
from apps.gateway.metering.growth import Growth
from apps.gateway.metering.record import Meter
from apps.gateway.providers import PROVIDERS, upstream_request
from apps.gateway.providers.transport import (
    MAX_ERROR_BYTES,
    CredentialRefused,
    Transport,
    UpstreamBroken,
    UpstreamResponse,
    UpstreamUnreachable,
)
from apps.gateway.providers.vendor_errors import credential_refused
from apps.gateway.routing.health import RouteHealth, Upstreams
from apps.gateway.routing.order import in_order
from apps.gateway.routing.own_credentials import MAX_OWN_CALLS, MAX_SHARED_CALLS, own_first, told_of_own
from apps.gateway.server.cancellation import told_to_client
from apps.gateway.server.deadline import FIRST_BYTE, WHOLE_ANSWER, Deadline
from apps.policies.guarding import Guarding
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, TokenCounts
from apps.usage.journal import Journal, JournalFull

MAX_ATTEMPTS = MAX_SHARED_CALLS
"""Of one model, and MAX_OWN_CALLS with own provider keys before them."""
MAX_CALLS = 8
"""Of all models together: after so many that failed no further model is tried."""
_NOT_THE_CALLERS_FAULT = (UPSTREAM_OVERLOADED, UPSTREAM_FAILED, UPSTREAM_MISCONFIGURED, UPSTREAM_UNAUTHORIZED)
"""An answer of these kinds cost nothing, and another route may do better."""
log = logging.getLogger(__name__)


class AnswerSource(Protocol):
    """Where the bytes of an answer come from: an upstream's response, or a kept answer."""

    taker: Callable[[bytes], bool] | None

    async def read(self, limit: int = ...) -> bytes: ...

    async def read_some(self) -> bytes: ...

    async def finish(self) -> None: ...

    def close(self) -> None: ...


class KeepsAnswer(Protocol):
    """Who may keep the answer (`apps.gateway.response_cache.keeping.Keeping`)."""

    def chat(self, exchange: "Exchange", answer: dict[str, Any], closed: RequestClosed) -> None: ...

    def content(self, exchange: "Exchange", parts: Sequence[bytes], closed: RequestClosed) -> None: ...

    def stream(self, source: AsyncGenerator[bytes, None], exchange: "Exchange") -> AsyncGenerator[bytes, None]: ...


@dataclass(slots=True)
class Exchange:
    """An admitted request and the upstream's answer to it, status 200, its body still to come."""

    admission: Admission
    meter: Meter
    response: AnswerSource
    target: Target
    deadline: Deadline
    growth: Growth | None = None
    health: RouteHealth | None = None
    """Of the route that answers, until it is told how that ended."""
    dropped: tuple[str, ...] = ()
    """Fields of the request that the upstream could not be told."""
    answer: dict[str, Any] | None = None
    """The whole answer, where it was read before and is not to be parsed again."""
    keeping: KeepsAnswer | None = None
    """Whoever keeps the answer, where the response cache is wanted."""

    def fail(self, failure: GatewayError) -> None:
        """As `abandon`, where the client gets this instead of an answer. Nobody pays for it, unless it is billed."""
        status, code = failure.kind.status, failure.code or ""
        self.meter.close(Outcome.FAILED, TokenCounts(), http_status=status, error_code=code)
        self.abandon()

    def abandon(self) -> None:
        """Let go of the upstream and close the record, if nobody did. For every way out."""
        self.deadline.stop()
        if self.growth is not None:
            self.growth.stop()
        self.response.close()
        self.meter.close_partial(Outcome.CANCELLED, None, 0, error_code="client_closed")
        health, self.health = self.health, None
        if health is not None and self.meter.closed is not None:
            health.ended(self.meter.closed)


class OtherModels(Protocol):
    """The way of a request that says something about it (`apps.gateway.routing.fallback.Fallback`)."""

    targets: list[Target]
    """The routes of the model that was admitted last."""

    async def next(self, failure: GatewayError) -> tuple[Admission, list[Target]]:
        """The next model, admitted in place of the last one, and its routes. Raises GatewayError: it ends here."""


class _TryNext(Exception):
    """This route failed in a way that cannot have cost anything; `error` is what the caller sees if it was the last.

    `is_for_all`: other routes of the model would say the same. `was_asked`: False when the route's dialect has no words
    for the request, so that nobody was."""

    def __init__(self, error: GatewayError, *, is_for_all: bool = False, was_asked: bool = True) -> None:
        super().__init__(error.message)
        self.error = error
        self.is_for_all = is_for_all
        self.was_asked = was_asked


async def open_exchange(
    transport: Transport,
    journal: Journal,
    admission: Admission,
    *,
    reservations: Reservations,
    upstreams: Upstreams,
    fallback: OtherModels | None = None,
) -> Exchange:
    """Call the upstreams in turn, for a request that is reserved. Raises GatewayError when none answers; the record is
    closed then, and the reservation settled.

    With `fallback` its routes come first, and after them the models that it has left."""
    # Nobody but the meter settles, and holds of running requests are renewed for ever: until there is a meter,
    # whatever goes wrong, be it a mistake of ours or a cancellation, must give the hold back.
    try:
        upstreams.retries.requests += 1
        targets = _routes(admission, upstreams) if fallback is None else fallback.targets
        meter = Meter(journal, opened_record(admission, targets[0]), settle=reservations.settle)
    except JournalFull as error:
        reservations.release(admission.demand)
        raise unrecorded() from error
    except BaseException:  # a hold without a meter is settled by nobody
        reservations.release(admission.demand)
        raise
    deadline = Deadline()  # not before: nobody would stop it
    call = _Call(transport, upstreams, deadline, meter)
    try:
        if (guarding := admission.asked.guarding) is not None:
            await judge(meter, guarding)
        admission, response, target = await _answer_of_any_model(call, admission, targets, fallback)
    except GatewayError as error:
        deadline.stop()
        meter.close(Outcome.FAILED, TokenCounts(), http_status=error.kind.status, error_code=error.code or "")
        raise
    except asyncio.CancelledError as cancellation:
        deadline.stop()
        failure_told = told_to_client(cancellation, deadline)
        if failure_told is None:
            meter.close_partial(Outcome.CANCELLED, None, 0, error_code="client_closed")
            raise
        call.note_end(failure_told)
        outcome = Outcome.INTERRUPTED if failure_told.kind is GATEWAY_STOPPING else Outcome.FAILED
        meter.close(outcome, TokenCounts(), http_status=failure_told.kind.status, error_code=failure_told.code or "")
        raise failure_told from None
    except BaseException:  # a record that stays open holds money for as long as this process lives
        deadline.stop()
        meter.close(Outcome.FAILED, TokenCounts(), http_status=500, error_code=SERVER_ERROR.code or "")
        raise
    admission = admission.served_by(target)
    growth = Growth(admission, note=meter.note_hold, reservations=reservations) if admission.grows else None
    return Exchange(admission, meter, response, target, deadline, growth, call.health, call.dropped)


async def judge(meter: Meter, guarding: Guarding) -> None:
    """Put the verdicts of these guardrails into the record, and have the request judged where they want that.

    It holds what it needs by now: who has no money, or is at a limit, makes the operator ask no moderation model.
    Raises GatewayError when it must not go on; the record is still to be closed."""
    meter.guarding, guarding.is_recorded = guarding, True
    if guarding.judge_request is not None:
        try:
            await guarding.judge_request()
        except BaseException:  # a cancellation too: the record says that no provider saw the request
            meter.note_nobody_asked()
            raise


def _routes(admission: Admission, upstreams: Upstreams) -> Sequence[Target]:
    if admission.own is not None:
        return own_first(admission.own, admission.model, admission.asked, upstreams=upstreams)
    return in_order(admission.model, admission.asked, admission.grant.organization_id, upstreams=upstreams)


async def _answer_of_any_model(
    call: "_Call", admission: Admission, targets: Sequence[Target], fallback: OtherModels | None
) -> tuple[Admission, UpstreamResponse, Target]:
    """The first answer, of the model that was admitted or of one that is admitted after it. Raises GatewayError."""
    while True:
        try:
            return admission, *await call.first_answer(admission, targets)
        except _TryNext as failure:
            if fallback is None or call.meter.attempts >= MAX_CALLS:
                raise failure.error from failure
            admission, targets = await fallback.next(failure.error)
            _go_on(call.meter, admission, targets[0])


def opened_record(admission: Admission, target: Target) -> RequestOpened:
    """What is written of an admitted request before the route is called."""
    return RequestOpened(
        request_id=admission.request_id,
        organization_id=admission.grant.organization_id,
        project_id=admission.grant.project_id,
        key_id=admission.grant.key_id,
        model=admission.model.id,
        provider=target.provider,
        upstream_model=target.upstream_model,
        streamed=admission.asked.stream,
        price=admission.price_with(target),
        input_estimate=admission.asked.input_estimate(),
        hold_nanos=admission.hold_nanos,
        sandbox=admission.grant.sandbox,
        balance_nanos=admission.balance_nanos,
        images=admission.images,
        credential_id=target.credential_id,
        endpoint=admission.asked.endpoint,
    )


def _go_on(meter: Meter, admission: Admission, target: Target) -> None:
    """The record is that of another model, or at somebody else's expense, from now on."""
    crash_point("P18")
    try:
        meter.reopen(opened_record(admission, target))
    except JournalFull as error:
        raise unrecorded() from error


def unrecorded() -> GatewayError:
    """What a client is told when the journal takes no more."""
    return GatewayError(STORE_AWAY, "Usage cannot be recorded right now, so nothing is served.")


class _Call:
    """The attempts of one request."""

    __slots__ = ("_deadline", "_transport", "_upstreams", "dropped", "health", "meter")

    def __init__(self, transport: Transport, upstreams: Upstreams, deadline: Deadline, meter: Meter) -> None:
        self._transport = transport
        self._upstreams = upstreams
        self._deadline = deadline
        self.meter = meter
        self.health: RouteHealth | None = None
        """Of the route that was asked last."""
        self.dropped: tuple[str, ...] = ()
        """What that could not be told."""

    def note_end(self, failure: GatewayError) -> None:
        """The wait for the route that was asked last is over."""
        if self.health is not None and failure.kind is UPSTREAM_TIMEOUT:
            self.health.failed()

    async def first_answer(self, admission: Admission, targets: Sequence[Target]) -> tuple[UpstreamResponse, Target]:
        """The first of the routes that answers. Raises _TryNext when none did and none can have charged."""
        upstreams, is_retry, failure = self._upstreams, False, None
        if admission.model.first_byte_timeout_s != self._deadline.first_byte_s:
            self._deadline.bound_first_byte(admission.model.first_byte_timeout_s)
        most = MAX_ATTEMPTS if admission.own is None else MAX_OWN_CALLS + MAX_ATTEMPTS
        for target in targets[:most]:
            health = self.health = upstreams.of(target)
            if is_retry and (health.is_resting or not upstreams.retries.take()):
                continue
            if target.credential_id != self.meter.credential_id:
                _go_on(self.meter, admission, target)
            self.meter.route_to(target)
            self._deadline.expect(FIRST_BYTE if admission.asked.stream else WHOLE_ANSWER)
            try:
                response = await self._attempt(admission, target, health)
            except _TryNext as error:
                # What an own key met takes nothing from the retries that all organizations share.
                is_retry = is_retry or (error.was_asked and not target.credential_id)
                if failure is None or error.was_asked:
                    failure = error
                self.meter.note_failed_attempt(error.error)
                log.warning(
                    "attempt failed",
                    extra={
                        "request_id": admission.request_id,
                        "provider": target.provider,
                        "reason": error.error.code,
                    },
                )
                if error.is_for_all:
                    break
            else:
                health.answered()
                return response, target
        raise failure or _TryNext(GatewayError(UPSTREAM_FAILED, "No route of this model can be used right now."))

    async def _attempt(self, admission: Admission, target: Target, health: RouteHealth) -> UpstreamResponse:
        """One call. Raises _TryNext when another route may be tried, GatewayError when that would be wrong."""
        try:
            request = upstream_request(admission.asked, admission.model, target, request_id=admission.request_id)
        except GatewayError as error:  # its dialect has no words for the request
            raise _TryNext(error, was_asked=False) from error
        self.dropped = request.dropped
        health.begin()
        try:
            response = await self._transport.post(request, on_send=self.meter.note_sent)
        except CredentialRefused as error:
            health.failed()
            raise _TryNext(_told(credential_refused(), target)) from error
        except UpstreamUnreachable as error:
            health.failed()
            raise _TryNext(GatewayError(UPSTREAM_FAILED, "The upstream cannot be reached.")) from error
        except UpstreamBroken as error:
            health.failed()
            raise GatewayError(UPSTREAM_FAILED, "The upstream closed the connection without an answer.") from error
        if response.status == 200:
            return response
        self.meter.note_refused()
        try:
            body = await response.read(MAX_ERROR_BYTES)
        except UpstreamBroken:
            body = b""
        finally:
            response.close()
        shown = self._transport.secrets_of(target, request)
        failure = PROVIDERS[target.dialect].failure(
            response.status, response.header("retry-after"), body, target=shown, model=admission.model.id
        )
        if failure.kind in _NOT_THE_CALLERS_FAULT:
            health.failed(failure)
            if failure.kind is UPSTREAM_UNAUTHORIZED:
                self._transport.refused(request)
            raise _TryNext(_told(failure, target))
        health.answered()
        if failure.code == CONTEXT_TOO_LONG.code:
            raise _TryNext(failure, is_for_all=True)
        raise failure


def _told(failure: GatewayError, target: Target) -> GatewayError:
    return told_of_own(failure, target) if target.credential_id else failure
