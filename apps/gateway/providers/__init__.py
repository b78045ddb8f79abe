"""Upstream providers: one file a dialect, and the transport they share."""

from typing import Any

import msgspec

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.completions import CompletionsRequest, served_as
from apps.gateway.dialects.embeddings import EmbeddingsRequest
from apps.gateway.dialects.messages.request import MessagesRequest
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.dialects.responses import vendor_tools
from apps.gateway.dialects.responses.request import ResponsesRequest
from apps.gateway.errors import UNSUPPORTED_MODALITY, GatewayError
from apps.gateway.providers import anthropic_native, openai_responses_native, text_completions
from apps.gateway.providers.anthropic import Anthropic
from apps.gateway.providers.azure import Azure
from apps.gateway.providers.base import EmbeddingsProvider, Provider, StreamTranslator, UpstreamRequest
from apps.gateway.providers.bedrock import Bedrock
from apps.gateway.providers.gemini import Gemini
from apps.gateway.providers.loss import check_loss
from apps.gateway.providers.openai import OpenAI, takes_custom_tools
from apps.gateway.providers.openai_responses import OpenAIResponses

_OPENAI, _AZURE = OpenAI(), Azure()
PROVIDERS: dict[str, Provider] = {
    "openai": _OPENAI,
    "openai-responses": OpenAIResponses(),
    "azure": _AZURE,
    "anthropic": Anthropic(),
    "gemini": Gemini(),
    "bedrock": Bedrock(),
}
"""Dialect -> provider. A new one is a file beside this one, its test, and a line here."""
NATIVE_OF_MESSAGES = "anthropic"
"""The dialect whose upstreams get requests of the Messages API as they came."""
_NATIVE = {MessagesRequest.endpoint: NATIVE_OF_MESSAGES, ResponsesRequest.endpoint: vendor_tools.DIALECT}
"""Endpoint -> the dialect of upstreams that get its requests as they came."""
EMBEDDERS: dict[str, EmbeddingsProvider] = {"openai": _OPENAI, "azure": _AZURE}
"""Dialect -> provider, for those that can be asked for embeddings."""


def passes_as_it_came(asked: ModelRequest, target: Target) -> bool:
    """Whether the target gets a request of the Messages or Responses API itself, and not the chat that was made of it.
    Guardrails have read and changed the chat."""
    return target.dialect == _NATIVE.get(asked.endpoint) and asked.guarding is None


def upstream_request(asked: ModelRequest, model: OfferedModel, target: Target, *, request_id: str) -> UpstreamRequest:
    """The request in the dialect of the target. Raises GatewayError (400) for what that cannot express and
    must not leave out."""
    if isinstance(asked, ChatRequest):
        if isinstance(asked, MessagesRequest) and passes_as_it_came(asked, target):
            request = anthropic_native.native_request(asked, model, target)
        elif isinstance(asked, ResponsesRequest):
            request = _of_responses(asked, model, target, request_id=request_id)
        elif asked.endpoint == CompletionsRequest.endpoint and isinstance(asked, CompletionsRequest):
            request = _of_completions(asked, model, target, request_id=request_id)
        else:
            request = PROVIDERS[target.dialect].chat_request(asked, model, target, request_id=request_id)
            if asked.lost:
                request = msgspec.structs.replace(request, dropped=(*asked.lost, *request.dropped))
        if request.dropped:
            check_loss(request.dropped, model)
        return request
    embedder = EMBEDDERS.get(target.dialect)
    if embedder is None or not isinstance(asked, EmbeddingsRequest):
        message = f"The provider that serves the model {model.id} cannot be asked for embeddings."
        raise GatewayError(UNSUPPORTED_MODALITY, message, param="model")
    return embedder.embeddings_request(asked, target, request_id=request_id)


def _of_responses(asked: ResponsesRequest, model: OfferedModel, target: Target, *, request_id: str) -> UpstreamRequest:
    if passes_as_it_came(asked, target):
        return openai_responses_native.native_request(asked, model, target, request_id=request_id)
    takes_custom = takes_custom_tools(target)
    lost = asked.lost_at(takes_custom=takes_custom, takes_sealed=target.dialect == vendor_tools.DIALECT)
    if asked.custom_tools and not takes_custom:
        asked = asked.with_functions_only()
    request = PROVIDERS[target.dialect].chat_request(asked, model, target, request_id=request_id)
    return msgspec.structs.replace(request, dropped=(*lost, *request.dropped)) if lost else request


def _of_completions(
    asked: CompletionsRequest, model: OfferedModel, target: Target, *, request_id: str
) -> UpstreamRequest:
    if served_as(target):
        return text_completions.completions_request(asked, model, target, request_id=request_id)
    asked.check_native()
    return PROVIDERS[target.dialect].chat_request(asked, model, target, request_id=request_id)


def whole_answer(asked: ModelRequest, target: Target, body: bytes) -> dict[str, Any]:
    """What the target answered, as `Provider.whole_answer`. Raises ValueError when it is no answer."""
    if asked.endpoint == CompletionsRequest.endpoint and isinstance(asked, CompletionsRequest) and served_as(target):
        return text_completions.whole_answer(body, asked)
    return PROVIDERS[target.dialect].whole_answer(body)


def translator_of(asked: CompletionsRequest, target: Target) -> StreamTranslator | None:
    """For a stream of text completions; None where the target's dialect decides."""
    return text_completions.TextCompletionsStream(asked) if served_as(target) else None
