"""POST /chat/completions."""

from django.http.response import HttpResponseBase
from rest_framework.request import Request

from apps.core.crash_points import crash_point
from apps.core.money import format_usd
from apps.gateway import dispatch, relay
from apps.gateway.admission import admit, reserve
from apps.gateway.chat import parse_chat
from apps.gateway.http import AsyncAPIView, EventStream, JsonBytes
from apps.gateway.refusals import limit_headers


class ChatCompletions(AsyncAPIView):
    """OpenAI's Chat Completions on every model of the catalog."""

    async def post(self, request: Request) -> HttpResponseBase:
        runtime = self.runtime
        chat = parse_chat(request._request.body)
        admission = admit(self.grant, chat, runtime.snapshot, book=runtime.book, request_id=self.request_id)
        crash_point("P1")
        admission, allowance = await reserve(runtime.reservations, admission)
        crash_point("P2")
        self.limit_headers = {**limit_headers(allowance), "x-crun-generation-id": self.request_id}
        exchange = await dispatch.open_exchange(
            runtime.transport, runtime.journal, admission, reservations=runtime.reservations
        )
        if chat.stream:
            response: HttpResponseBase = EventStream(relay.stream(exchange), exchange)
        else:
            body, closed = await relay.whole(exchange)
            response = JsonBytes(body, headers={"x-crun-cost": format_usd(closed.cost_nanos)})
        return response
