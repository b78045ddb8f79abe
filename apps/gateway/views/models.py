"""GET /models and /models/{id}, in OpenAI's shape with OpenRouter's fields, or in Anthropic's; and /endpoints."""

import time
from typing import Any, Final

import orjson
from django.conf import settings

from apps.gateway.admission.offers import models_for, shown
from apps.gateway.dialects.anthropic_envelope import anthropic_error
from apps.gateway.errors import GatewayError
from apps.gateway.listing.endpoints import present_endpoints
from apps.gateway.listing.models import (
    Listings,
    anthropic_page,
    etag_of,
    is_known,
    present,
    present_as_anthropic,
)
from apps.gateway.server.answer import Answer, JsonBytes, Response
from apps.gateway.server.http import AsyncAPIView, json_response
from apps.gateway.server.lean_request import LeanRequest

_VARIES: Final = "authorization, x-api-key, anthropic-version"


class ModelsView(AsyncAPIView):
    """What both have in common: Anthropic's clients say so by `anthropic-version`, and nobody sends the same twice."""

    @property
    def is_anthropic(self) -> bool:
        """Whether the caller speaks Anthropic's dialect."""
        return "HTTP_ANTHROPIC_VERSION" in self.request.META

    async def dispatch(self, request: LeanRequest, **kwargs: Any) -> Response:  # type: ignore[override]  # awaited here
        response = await super().dispatch(request, **kwargs)
        if self.is_anthropic:
            response.headers["request-id"] = self.request_id
        return response

    def error_response(self, error: GatewayError) -> Answer:
        if self.is_anthropic:
            status, body = anthropic_error(error, self.request_id)
            return JsonBytes(body, status=status, headers=error.headers())
        return super().error_response(error)

    def fresh(self, content: bytes, etag: str) -> Answer:
        """The content, or 304 for a caller who has it."""
        headers = {"etag": etag, "cache-control": "private, no-cache", "vary": _VARIES}
        if is_known(etag, self.request.META.get("HTTP_IF_NONE_MATCH", "")):
            return Answer(status=304, headers=headers)
        return JsonBytes(content, headers=headers)


class Models(ModelsView):
    """The models that the key can call now."""

    listings = Listings()

    async def get(self, request: LeanRequest) -> Answer:
        runtime = self.runtime
        if self.is_anthropic:
            query = request.query
            content = orjson.dumps(anthropic_page(models_for(self.grant, runtime.snapshot), query))
            return self.fresh(content, etag_of(content))
        listing = self.listings.of(self.grant, runtime.snapshot, runtime.book, now=time.time())
        return self.fresh(listing.content, listing.etag)


class OfModel(ModelsView):
    """What the endpoints of one model have in common: where the key is shown no such model, there is nothing."""

    def check_place(self) -> None:
        shown(self.runtime.snapshot, self.kwargs["model_id"], grant=self.grant)


class ModelDetail(OfModel):
    """One model."""

    async def get(self, request: LeanRequest, model_id: str) -> Answer:
        runtime = self.runtime
        model = shown(runtime.snapshot, model_id, grant=self.grant)
        if self.is_anthropic:
            content = orjson.dumps(present_as_anthropic(model))
        else:
            content = orjson.dumps(present(model, self.grant, runtime.book, now=time.time()))
        return self.fresh(content, etag_of(content))


class ModelEndpoints(OfModel):
    """The routes of one model, and how they do."""

    async def get(self, request: LeanRequest, model_id: str) -> Answer:
        runtime = self.runtime
        content = present_endpoints(
            shown(runtime.snapshot, model_id, grant=self.grant),
            self.grant,
            runtime.book,
            upstreams=runtime.upstreams,
            now=time.time(),
            shows_providers=settings.SHOW_PROVIDERS,
        )
        return json_response(content)
