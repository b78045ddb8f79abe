"""POST /chat/completions."""

from django.http.response import HttpResponseBase
from rest_framework.request import Request

from apps.billing.admission import Allowance
from apps.core.crash_points import crash_point
from apps.core.money import format_usd
from apps.gateway import dispatch, relay
from apps.gateway.admission import admit, reserve
from apps.gateway.chat import parse_chat
from apps.gateway.dropped_params import HEADER, header_value
from apps.gateway.fallback import Fallback
from apps.gateway.http import AsyncAPIView, EventStream, JsonBytes
from apps.gateway.idempotency import idempotent
from apps.gateway.refusals import limit_headers


class ChatCompletions(AsyncAPIView):
    """OpenAI's Chat Completions on every model of the catalog."""

    @idempotent
    async def post(self, request: Request) -> HttpResponseBase:
        runtime = self.runtime
        chat = parse_chat(request._request.body)
        crash_point("P1")
        fallback = None
        if "models" in chat.body or "provider" in chat.body:
            fallback = Fallback(runtime, self.grant, chat, request_id=self.request_id, note=self._note_allowance)
            admission = await fallback.first()
        else:
            admission = admit(self.grant, chat, runtime.snapshot, book=runtime.book, request_id=self.request_id)
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
        if chat.stream:
            response: HttpResponseBase = EventStream(relay.stream(exchange), exchange)
        else:
            body, closed = await relay.whole(exchange)
            response = JsonBytes(body, headers={"x-crun-cost": format_usd(closed.cost_nanos)})
        if exchange.dropped:
            response.headers[HEADER] = header_value(exchange.dropped)
        return response

    def _note_allowance(self, allowance: Allowance) -> None:
        self.limit_headers = limit_headers(allowance)
