"""POST /completions."""

from apps.gateway.answers import completions as completions_answer
from apps.gateway.dialects.completions import parse_completions
from apps.gateway.errors import GatewayError
from apps.gateway.idempotency.guard import idempotent
from apps.gateway.server.answer import EventStream, Response
from apps.gateway.server.lean_request import LeanRequest
from apps.gateway.views.asking import AsksModel


class Completions(AsksModel):
    """OpenAI's legacy Completions on every model of the catalog that chats."""

    @idempotent
    async def post(self, request: LeanRequest) -> Response:
        asked = parse_completions(request.take_body())
        try:
            exchange = await self.open_exchange(asked)
        except GatewayError as error:
            if (error.param or "").startswith("messages"):
                error.param = "prompt"
            raise
        if asked.stream:
            response: Response = EventStream(completions_answer.stream(exchange), exchange)
        else:
            response = await self.whole(exchange, completions_answer.give_completion)
        return self.naming_dropped(response, exchange)
