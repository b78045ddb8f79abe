"""POST /responses."""

from apps.gateway.answers import responses as responses_answer
from apps.gateway.dialects.responses.request import ResponsesRequest, parse_responses
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import GatewayError
from apps.gateway.idempotency.guard import idempotent
from apps.gateway.server.answer import EventStream, Response
from apps.gateway.server.lean_request import LeanRequest
from apps.gateway.views.asking import AsksModel


class Responses(AsksModel):
    """OpenAI's Responses on every model of the catalog that chats."""

    error_event = b"event: error\ndata: "

    @idempotent
    async def post(self, request: LeanRequest) -> Response:
        asked = parse_responses(request.take_body())
        exchange = await self._exchange(asked)
        if asked.stream:
            response: Response = EventStream(responses_answer.stream(exchange), exchange)
        else:
            response = await self.whole(exchange, responses_answer.give_response)
        return self.naming_dropped(response, exchange)

    async def _exchange(self, asked: ResponsesRequest) -> Exchange:
        try:
            return await self.open_exchange(asked)
        except GatewayError as error:
            if (error.param or "").startswith("messages"):
                error.param = "input"  # its place is one in the chat that was made of the request
            raise
