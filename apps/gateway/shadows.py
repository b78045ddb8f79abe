"""Copies of requests that go to a route on trial, at the operator's cost: the client never waits for one or sees it."""

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import Final

from apps.catalog.contracts import Target
from apps.core.ids import new_id
from apps.gateway.admission.decision import Admission
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.messages.request import MessagesRequest
from apps.gateway.errors import UPSTREAM_FAILED, UPSTREAM_TIMEOUT, GatewayError
from apps.gateway.metering.token_usage import read_usage
from apps.gateway.providers import PROVIDERS, upstream_request, whole_answer
from apps.gateway.providers.transport import MAX_ERROR_BYTES, Transport, UpstreamBroken, UpstreamUnreachable
from apps.gateway.routing.affinity import Affinity, draw
from apps.gateway.routing.order import any_number, is_wanted
from apps.gateway.routing.wishes import wishes_of
from apps.gateway.server.stopping import STOPPING
from apps.keys.contracts import KeyGrant
from apps.usage.contracts import Outcome, ShadowMade, TokenCounts
from apps.usage.journal import Journal

MOST_SHADOWS: Final = 8
"""At a time in one worker. More are not made: what customers asked for comes first."""
LONGEST_S: Final = 120.0
MAX_ANSWER_BYTES: Final = 8 << 20
LOOK_S: Final = 0.25
"""How soon a copy notices that its worker stops."""
log = logging.getLogger(__name__)


class Shadows:
    """The copies of one worker. They open no hold, are charged to nobody, and end with the worker's first sign of
    stopping."""

    def __init__(
        self, transport: Transport, journal: Journal, affinity: Affinity, *, is_busy: Callable[[], bool]
    ) -> None:
        """While the worker `is_busy` no copy is made at all."""
        self._is_busy = is_busy
        self._transport = transport
        self._journal = journal
        self._affinity = affinity
        self._running: set[asyncio.Task[None]] = set()
        self.left_out = 0
        """Copies that were due and not made, for want of room."""

    def begin(self, admission: Admission, served_by: Target) -> None:
        """Copy a request whose answer has begun, where its model has such routes and its share is due. Returns at
        once; raises nothing."""
        asked, grant = admission.asked, admission.grant
        if not isinstance(asked, ChatRequest) or grant.sandbox or served_by.credential_id or admission.own is not None:
            return
        session = self._affinity.session_of(asked, grant.organization_id)
        for target in admission.model.shadows:
            drawn = any_number() if session is None else draw(session, target, b"shadow")
            if 100 * drawn >= target.shadow_percent or not _may_see(target, grant, asked):
                continue
            if STOPPING.is_asked or len(self._running) >= MOST_SHADOWS or self._is_busy():
                self.left_out += 1
                continue
            task = asyncio.create_task(self._follow(admission, _in_one_piece(asked), target), name="shadow")
            self._running.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("a copy of a request ended by a mistake of ours: %s", type(bug).__name__)

    async def stop(self) -> None:
        """End all of them now."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _follow(self, admission: Admission, asked: ChatRequest, target: Target) -> None:
        """Let one run until it has ended, takes too long or the worker stops, and record it."""
        loop = asyncio.get_running_loop()
        began, call = loop.time(), asyncio.create_task(self._answer(admission, asked, target))
        outcome, error, tokens = Outcome.CANCELLED, "gateway_stopping", TokenCounts()
        try:
            while not call.done() and not STOPPING.is_asked and loop.time() - began < LONGEST_S:
                await asyncio.wait({call}, timeout=LOOK_S)
            if call.done():
                tokens, outcome, error = call.result(), Outcome.COMPLETED, ""
            elif not STOPPING.is_asked:
                outcome, error = Outcome.FAILED, UPSTREAM_TIMEOUT.code or ""
        except GatewayError as failure:
            outcome, error = Outcome.FAILED, failure.code or "bad_request"
        finally:
            call.cancel()
            self._journal.note(
                ShadowMade(
                    shadow_id=new_id("shadow"),
                    organization_id=admission.grant.organization_id,
                    of_request=admission.request_id,
                    model=admission.model.id,
                    provider=target.provider,
                    upstream_model=target.upstream_model,
                    outcome=outcome,
                    error_code=error,
                    tokens=tokens,
                    duration_ms=int(1000 * (loop.time() - began)),
                )
            )

    async def _answer(self, admission: Admission, asked: ChatRequest, target: Target) -> TokenCounts:
        """What the copy used. Raises GatewayError."""
        model = admission.model
        request = upstream_request(asked, model, target, request_id=admission.request_id)
        provider = PROVIDERS[target.dialect]
        try:
            response = await self._transport.post(request, on_send=_nobody_is_told)
        except (UpstreamUnreachable, UpstreamBroken) as error:
            raise GatewayError(UPSTREAM_FAILED, "The upstream cannot be reached.") from error
        try:
            body = await response.read(MAX_ANSWER_BYTES if response.status == 200 else MAX_ERROR_BYTES)
            if response.status != 200:
                shown = self._transport.secrets_of(target, request)
                raise provider.failure(response.status, None, body, target=shown, model=model.id)
            usage = whole_answer(asked, target, body).get("usage")
        except (UpstreamBroken, ValueError) as error:
            raise GatewayError(UPSTREAM_FAILED, "The upstream gave no answer.") from error
        finally:
            response.close()
        return read_usage(usage, bound=admission.token_bound).tokens or TokenCounts()


def _may_see(target: Target, grant: KeyGrant, asked: ChatRequest) -> bool:
    """Whether the organization lets the operator send copies, and both it and the caller let the prompt go there."""
    rules = grant.policy.data if grant.policy is not None else None
    if rules is not None and (rules.forbids_copies or not rules.permits(target)):
        return False
    return "provider" not in asked.body or is_wanted(target, wishes_of(asked).preferences)


def _in_one_piece(asked: ChatRequest) -> ChatRequest:
    """The request without its stream, so that one answer tells all. The caller's own stays as it is, and lets its media
    go."""
    plain = copy.copy(asked)
    plain.stream = False
    plain.body = {name: value for name, value in asked.body.items() if name not in ("stream", "stream_options")}
    if isinstance(plain, MessagesRequest):
        plain.native = {name: value for name, value in plain.native.items() if name != "stream"}
    return plain


def _nobody_is_told() -> None:
    """A copy has no record to be marked as sent."""
