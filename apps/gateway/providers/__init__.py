"""Upstream providers: one file a dialect, and the transport they share."""

import msgspec

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.embeddings import EmbeddingsRequest
from apps.gateway.dialects.messages.request import MessagesRequest
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.errors import UNSUPPORTED_MODALITY, GatewayError
from apps.gateway.providers.anthropic import Anthropic
from apps.gateway.providers.anthropic_native import native_request
from apps.gateway.providers.azure import Azure
from apps.gateway.providers.base import EmbeddingsProvider, Provider, UpstreamRequest
from apps.gateway.providers.bedrock import Bedrock
from apps.gateway.providers.gemini import Gemini
from apps.gateway.providers.loss import check_loss
from apps.gateway.providers.openai import OpenAI

_OPENAI, _AZURE = OpenAI(), Azure()
PROVIDERS: dict[str, Provider] = {
    "openai": _OPENAI,
    "azure": _AZURE,
    "anthropic": Anthropic(),
    "gemini": Gemini(),
    "bedrock": Bedrock(),
}
"""Dialect -> provider. A new one is a file beside this one, its test, and a line here."""
NATIVE_OF_MESSAGES = "anthropic"
"""The dialect whose upstreams get requests of the Messages API as they came."""
EMBEDDERS: dict[str, EmbeddingsProvider] = {"openai": _OPENAI, "azure": _AZURE}
"""Dialect -> provider, for those that can be asked for embeddings."""


def passes_as_it_came(asked: ModelRequest, target: Target) -> bool:
    """Whether the target gets a request of the Messages API itself, and not the chat that was made of it. Guardrails
    have read and changed the chat."""
    return target.dialect == NATIVE_OF_MESSAGES and asked.guarding is None


def upstream_request(asked: ModelRequest, model: OfferedModel, target: Target, *, request_id: str) -> UpstreamRequest:
    """The request in the dialect of the target. Raises GatewayError (400) for what that cannot express and
    must not leave out."""
    if isinstance(asked, ChatRequest):
        if isinstance(asked, MessagesRequest) and passes_as_it_came(asked, target):
            request = native_request(asked, model, target)
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
