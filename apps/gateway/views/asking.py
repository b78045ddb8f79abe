"""What all endpoints that ask a model have in common: from a checked request to an upstream that answers."""

from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings

from apps.billing.admission import Allowance
from apps.core.crash_points import crash_point
from apps.core.money import format_usd
from apps.gateway import dispatch
from apps.gateway.admission.decision import admit, reserve
from apps.gateway.admission.refusals import limit_headers
from apps.gateway.answers import relay
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.chat_fields import MAX_USER, clean_name
from apps.gateway.dialects.dropped_params import HEADER, header_value
from apps.gateway.dialects.large_body import LARGE_BYTES
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import CONTENT_POLICY, GatewayError
from apps.gateway.guardrails.asking import guard, record_refused
from apps.gateway.response_cache.replaying import replay
from apps.gateway.response_cache.turn import Turn
from apps.gateway.response_cache.wishes import HEADER as CACHE_HEADER
from apps.gateway.routing.fallback import Fallback
from apps.gateway.server.answer import Answer, JsonBytes, Response
from apps.gateway.server.http import AsyncAPIView
from apps.gateway.server.lean_request import LeanRequest

_SESSION_HEADER: Final = "HTTP_X_SESSION_ID"


class AsksModel(AsyncAPIView):
    """A view whose answer comes from a model, and is charged for."""

    error_event: bytes = b"data: "
    """What stands before the body of an error in a stream of this dialect."""
    cache_headers: Mapping[str, str] = {}
    """What the response cache says of the answer, where it was wanted."""
    exchange: Exchange | None = None
    """What was opened for this request."""

    async def authenticate(self, request: LeanRequest) -> None:
        """Find out who asks, and wait for the turn of its organization. Raises GatewayError, or Unavailable."""
        await super().authenticate(request)
        doorway, owner, size = self.runtime.doorway, self.grant.organization_id, len(request.body)
        if not doorway.lets_in(owner, size):
            await doorway.wait(owner, size)
        if size > LARGE_BYTES:
            await request.cut_body()

    def error_response(self, error: GatewayError) -> Answer:
        """The answer that an error becomes. Whatever was opened before a mistake of ours is given back for nothing."""
        if self.exchange is not None:
            self.exchange.fail(error)
        return super().error_response(error)

    async def open_exchange(self, asked: ModelRequest) -> Exchange:
        """Guard and admit the request, and call the upstreams, or take a kept answer where that is wanted.

        Raises GatewayError when nobody answers, or nobody may be asked, or this worker has too much to do."""
        if (shedding := self.runtime.shedding).level:
            shedding.check(asked.asked_tier, self.grant.priority, is_sandbox=self.grant.sandbox)
        if asked.stream and settings.HEARTBEAT_S and self.request.start_heartbeat is not None:
            self.request.heartbeat = self.request.start_heartbeat(self.error_event)
        if self.grant.policy is not None:
            return await self._open_guarded(asked)
        return await self._open(asked)

    async def _open_guarded(self, asked: ModelRequest) -> Exchange:
        """The same under the guardrails of the organization. What one of them refuses has a receipt, and is free."""
        try:
            await guard(asked, self.grant, self.runtime)
            exchange = await self._open(asked)
        except GatewayError as error:
            if error.kind is CONTENT_POLICY:
                record_refused(asked, self.grant, self.runtime, request_id=self.request_id)
            raise
        if asked.guarding is not None:
            asked.guarding.note_model(exchange.admission.model.id)
        return exchange

    async def _open(self, asked: ModelRequest) -> Exchange:
        crash_point("P1")
        meta = self.request.META
        if _SESSION_HEADER in meta:
            self._take_session(asked.body)
        if CACHE_HEADER in meta or asked.model in self.runtime.snapshot.cached_by_default:
            return await self._through_cache(asked, meta)
        return await self._ask_upstreams(asked)

    async def _through_cache(self, asked: ModelRequest, meta: Mapping[str, Any]) -> Exchange:
        turn = Turn(self.runtime, self.grant, asked, path=self.request.path, meta=meta)
        hit = await turn.find(self.request_id)
        self.cache_headers = turn.headers
        if hit is not None:
            exchange, allowance = await replay(self.runtime, hit)
            self.exchange = exchange
            self._note_allowance(allowance)
            return exchange
        exchange = await self._ask_upstreams(asked)
        exchange.keeping = turn.keeping
        return exchange

    async def _ask_upstreams(self, asked: ModelRequest) -> Exchange:
        runtime = self.runtime
        fallback = None
        policy = self.grant.policy
        is_limited = policy is not None and policy.data is not None
        if is_limited or "models" in asked.body or "provider" in asked.body:
            fallback = Fallback(runtime, self.grant, asked, request_id=self.request_id, note=self._note_allowance)
            admission = await fallback.first()
        else:
            admission = admit(
                self.grant,
                asked,
                runtime.snapshot,
                book=runtime.book,
                request_id=self.request_id,
                own_keys=runtime.own_keys,
            )
            admission, allowance = await reserve(runtime.reservations, admission)
            self._note_allowance(allowance)
        crash_point("P2")
        exchange = await dispatch.open_exchange(
            runtime.transport,
            runtime.journal,
            admission,
            reservations=runtime.reservations,
            upstreams=runtime.upstreams,
            fallback=fallback,
        )
        self.exchange = exchange
        if exchange.admission.model.shadows:
            runtime.shadows.begin(exchange.admission, exchange.target)
        if asked.body_bytes > LARGE_BYTES and isinstance(asked, ChatRequest):
            asked.let_go()  # 20 MB, perhaps, and a stream takes minutes
        return exchange

    async def whole(
        self, exchange: Exchange, give: relay.Give = relay.give_chat, *, left: relay.Left = relay.close_left
    ) -> JsonBytes:
        """The answer in one piece, with what it cost."""
        body, closed = await relay.whole(exchange, give, turn=self.runtime.doorway.turn, left=left)
        return JsonBytes(body, headers={"x-crun-cost": format_usd(closed.cost_nanos)})

    def naming_dropped(self, response: Response, exchange: Exchange) -> Response:
        """The response, with the fields that the upstream could not be told."""
        if exchange.dropped:
            response.headers[HEADER] = header_value(exchange.dropped)
        return response

    def _take_session(self, body: dict[str, Any]) -> None:
        """The header that OpenRouter's clients name their session in; the field of the body counts before it."""
        if body.get("session_id") is None:
            body["session_id"] = clean_name("session_id", self.request.META[_SESSION_HEADER], most=MAX_USER)

    def _note_allowance(self, allowance: Allowance) -> None:
        self.limit_headers = limit_headers(allowance)
        if self.cache_headers:
            self.limit_headers = {**self.limit_headers, **self.cache_headers}
