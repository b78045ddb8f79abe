"""POST /chat/completions."""

from django.http.response import HttpResponseBase
from rest_framework.request import Request

from apps.gateway.answers import relay
from apps.gateway.dialects.chat import parse_chat
from apps.gateway.idempotency.guard import idempotent
from apps.gateway.server.http import EventStream
from apps.gateway.views.asking import AsksModel


class ChatCompletions(AsksModel):
    """OpenAI's Chat Completions on every model of the catalog."""

    @idempotent
    async def post(self, request: Request) -> HttpResponseBase:
        chat = parse_chat(request._request.body)
        exchange = await self.open_exchange(chat)
        if chat.stream:
            return self.naming_dropped(EventStream(relay.stream(exchange), exchange), exchange)
        return self.naming_dropped(await self.whole(exchange), exchange)
