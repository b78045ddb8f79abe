"""POST /chat/completions."""

from apps.gateway.answers import relay
from apps.gateway.dialects.chat import parse_chat
from apps.gateway.idempotency.guard import idempotent
from apps.gateway.server.answer import EventStream, Response
from apps.gateway.server.lean_request import LeanRequest
from apps.gateway.views.asking import AsksModel


class ChatCompletions(AsksModel):
    """OpenAI's Chat Completions on every model of the catalog."""

    @idempotent
    async def post(self, request: LeanRequest) -> Response:
        chat = parse_chat(request.take_body())
        exchange = await self.open_exchange(chat)
        if chat.stream:
            return self.naming_dropped(EventStream(relay.stream(exchange), exchange), exchange)
        return self.naming_dropped(await self.whole(exchange), exchange)
