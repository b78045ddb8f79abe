"""OpenAI's Responses API, and what else speaks it. Pure.

Sources: the Responses reference of OpenAI, and its page on error codes."""

from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.large_content import written
from apps.gateway.errors import GatewayError
from apps.gateway.providers.base import StreamTranslator, UpstreamRequest
from apps.gateway.providers.openai import OpenAI, request_headers
from apps.gateway.providers.openai_responses_answer import ResponsesAnswerStream, whole_answer
from apps.gateway.providers.openai_responses_request import responses_request

_FIELDS: Final = {
    "input": "messages",
    "instructions": "messages",
    "max_output_tokens": "max_tokens",
    "text.format": "response_format",
    "text.verbosity": "verbosity",
    "reasoning.effort": "reasoning_effort",
}
"""Fields of this dialect -> those of the chat that a request was made of. Views of other dialects name them anew."""


class OpenAIResponses:
    """The `openai-responses` dialect."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        request, lost = responses_request(chat, model, target)
        return UpstreamRequest(
            url=address(target),
            headers=request_headers(target, request_id, stream=chat.stream),
            body=written(request, size=chat.body_bytes),
            dropped=lost,
        )

    def whole_answer(self, body: bytes) -> dict[str, Any]:
        return whole_answer(body)

    def translator(self) -> StreamTranslator | None:
        return ResponsesAnswerStream()

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        """As OpenAI's others, but for the names of fields."""
        failure = _OPENAI.failure(status, retry_after, body, target=target, model=model)
        named = failure.param or ""
        theirs = next(
            (field for field in _FIELDS if named == field or named.startswith((f"{field}[", f"{field}."))), ""
        )
        if theirs:
            failure.param = _FIELDS[theirs]
        return failure


def address(target: Target) -> str:
    """Where requests go."""
    return f"{target.base_url}/responses"


_OPENAI: Final = OpenAI()
