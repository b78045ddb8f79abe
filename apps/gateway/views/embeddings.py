"""POST /embeddings."""

from apps.gateway.answers.embeddings import close_left, give_embeddings
from apps.gateway.dialects.embeddings import parse_embeddings
from apps.gateway.idempotency.guard import idempotent
from apps.gateway.server.answer import Response
from apps.gateway.server.lean_request import LeanRequest
from apps.gateway.views.asking import AsksModel


class Embeddings(AsksModel):
    """OpenAI's embeddings on every model of the catalog that gives some."""

    @idempotent
    async def post(self, request: LeanRequest) -> Response:
        exchange = await self.open_exchange(parse_embeddings(request.take_body()))
        response = await self.whole(exchange, give_embeddings, left=close_left)
        return self.naming_dropped(response, exchange)
