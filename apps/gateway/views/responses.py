"""POST /responses."""

from typing import Final

from apps.gateway.answers import responses as responses_answer
from apps.gateway.dialects.responses.request import ResponsesRequest, read_responses, responses_request
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import GatewayError
from apps.gateway.idempotency.guard import idempotent
from apps.gateway.server.answer import EventStream, Response
from apps.gateway.server.lean_request import LeanRequest
from apps.gateway.stored.recalling import recall
from apps.gateway.stored.storing import Storing
from apps.gateway.views.asking import AsksModel

_FIELDS: Final = {
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}
"""Fields of the chat that was made of a request -> its own. Places in messages are no places in its input."""


class Responses(AsksModel):
    """OpenAI's Responses on every model of the catalog that chats."""

    error_event = b"event: error\ndata: "

    @idempotent
    async def post(self, request: LeanRequest) -> Response:
        body = request.take_body()
        size, told = len(body), read_responses(body)
        del body
        recalled = await recall(told, self.grant, self.runtime.stored, size=size)
        asked = responses_request(told, size=size, earlier=recalled.earlier)
        asked.is_stored, asked.pinned, asked.sealed_by = recalled.is_stored, recalled.pinned, recalled.sealed_by
        asked.is_kept = recalled.is_stored or recalled.before is not None
        exchange = await self._exchange(asked)
        if asked.is_kept:
            storing = Storing(self.runtime.stored, asked, recalled)
            response = await self._stored(exchange, storing, is_stream=asked.stream)
        elif asked.stream:
            response = EventStream(responses_answer.stream(exchange), exchange)
        else:
            response = await self.whole(exchange, responses_answer.give_response)
        return self.naming_dropped(response, exchange)

    async def _stored(self, exchange: Exchange, storing: Storing, *, is_stream: bool) -> Response:
        if is_stream:
            return EventStream(responses_answer.stream(exchange, storing.keep), exchange)
        whole = responses_answer.WholeAnswer(storing.keep)
        response = await self.whole(exchange, whole.give)
        response.content = await whole.stored(response.content)
        return response

    async def _exchange(self, asked: ResponsesRequest) -> Exchange:
        try:
            return await self.open_exchange(asked)
        except GatewayError as error:
            named = error.param or ""
            error.param = "input" if named.startswith("messages") else _FIELDS.get(named, error.param)
            raise
