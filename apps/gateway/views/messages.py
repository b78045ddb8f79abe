"""POST /messages and /messages/count_tokens, in Anthropic's dialect."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from apps.billing.admission import Allowance
from apps.gateway.admission.free_requests import take_request
from apps.gateway.admission.offers import offered
from apps.gateway.admission.refusals import LimitReached, anthropic_limit_headers
from apps.gateway.answers import messages as messages_answer
from apps.gateway.answers.token_count import COUNTS
from apps.gateway.dialects.anthropic_envelope import anthropic_error
from apps.gateway.dialects.large_body import LARGE_BYTES
from apps.gateway.dialects.messages.request import MessagesRequest, betas_of, parse_messages
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import GatewayError
from apps.gateway.idempotency.guard import idempotent
from apps.gateway.server.answer import Answer, EventStream, JsonBytes, Response
from apps.gateway.server.http import json_response
from apps.gateway.server.lean_request import LeanRequest
from apps.gateway.views.asking import AsksModel

COUNT_HEADER: Final = "x-crun-token-count"
"""Whether a count is the upstream's own."""


class AnthropicView(AsksModel):
    """What the endpoints of this dialect have in common: errors and headers as Anthropic's clients know them."""

    error_event = b"event: error\ndata: "

    async def dispatch(self, request: LeanRequest, **kwargs: Any) -> Response:  # type: ignore[override]  # awaited here
        response = await super().dispatch(request, **kwargs)
        response.headers["request-id"] = self.request_id
        return response

    def error_response(self, error: GatewayError) -> Answer:
        status, body = anthropic_error(error, self.request_id)
        headers = super().error_response(error).headers
        if isinstance(error, LimitReached):
            headers |= _limits(error.allowance)
        return JsonBytes(body, status=status, headers=headers)

    async def asked(self, request: LeanRequest, *, is_counting: bool = False) -> MessagesRequest:
        """The checked request. Raises GatewayError."""
        betas = betas_of(request.META.get("HTTP_ANTHROPIC_BETA", ""))
        body = request.take_body()
        if (
            len(body) > LARGE_BYTES
        ):  # as it came it was just given back, and its media are copied next: each takes a while
            await asyncio.sleep(0)
        return parse_messages(body, betas, is_counting=is_counting)

    def _note_allowance(self, allowance: Allowance) -> None:
        super()._note_allowance(allowance)
        self.limit_headers = {**self.limit_headers, **_limits(allowance)}


class Messages(AnthropicView):
    """Anthropic's Messages on every model of the catalog that chats."""

    @idempotent
    async def post(self, request: LeanRequest) -> Response:
        asked = await self.asked(request)
        exchange = await self._exchange(asked)
        if asked.stream:
            response: Response = EventStream(messages_answer.stream(exchange), exchange)
        else:
            response = await self.whole(exchange, messages_answer.give_message)
        return self.naming_dropped(response, exchange)

    async def _exchange(self, asked: MessagesRequest) -> Exchange:
        try:
            return await self.open_exchange(asked)
        except GatewayError as error:
            if (error.param or "").startswith("messages["):
                error.param = "messages"  # its place is one in the chat that was made of the request
            raise


class CountTokens(AnthropicView):
    """How many tokens a request has. Free: nothing is held, and there is no record, but it is one request of the key's
    minute and day. Only for who has credit left an upstream is asked."""

    async def post(self, request: LeanRequest) -> Answer:
        asked = await self.asked(request, is_counting=True)
        runtime = self.runtime
        model = offered(runtime.snapshot, asked.model, grant=self.grant)
        asked.check_model(model)
        allowance = await take_request(runtime.reservations, self.grant, model, request_id=self.request_id)
        self._note_allowance(allowance)
        count = await COUNTS.of(
            asked,
            model,
            grant=self.grant,
            transport=runtime.transport,
            upstreams=runtime.upstreams,
            may_ask=allowance.left_nanos is None or allowance.left_nanos > 0,
        )
        response = json_response({"input_tokens": count.tokens})
        response.headers[COUNT_HEADER] = "exact" if count.is_exact else "estimated"
        return response


def _limits(allowance: Allowance) -> dict[str, str]:
    return anthropic_limit_headers(allowance, datetime.now(UTC))
