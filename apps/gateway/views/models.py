"""GET /models and /models/{id}, in OpenAI's shape with OpenRouter's fields, or in Anthropic's; and /endpoints."""

import time
from typing import Final

import orjson
from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request

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
from apps.gateway.server.http import AsyncAPIView, JsonBytes, json_response

_VARIES: Final = "authorization, x-api-key, anthropic-version"


class ModelsView(AsyncAPIView):
    """What both have in common: Anthropic's clients say so by `anthropic-version`, and nobody sends the same twice."""

    @property
    def is_anthropic(self) -> bool:
        """Whether the caller speaks Anthropic's dialect."""
        return "HTTP_ANTHROPIC_VERSION" in self.request._request.META

    def error_response(self, error: GatewayError) -> HttpResponse:
        if self.is_anthropic:
            status, body = anthropic_error(error, self.request_id)
            return JsonBytes(body, status=status, headers=error.headers())
        return super().error_response(error)

    def fresh(self, content: bytes, etag: str) -> HttpResponse:
        """The content, or 304 for a caller who has it."""
        headers = {"etag": etag, "cache-control": "private, no-cache", "vary": _VARIES}
        if is_known(etag, self.request._request.META.get("HTTP_IF_NONE_MATCH", "")):
            response = HttpResponse(status=304, headers=headers)
            del response.headers["content-type"]
            return response
        return JsonBytes(content, headers=headers)


class Models(ModelsView):
    """The models that the key can call now."""

    listings = Listings()

    async def get(self, request: Request) -> HttpResponse:
        runtime = self.runtime
        if self.is_anthropic:
            query = request._request.GET.dict()
            content = orjson.dumps(anthropic_page(models_for(self.grant, runtime.snapshot), query))
            return self.fresh(content, etag_of(content))
        listing = self.listings.of(self.grant, runtime.snapshot, runtime.book, now=time.time())
        return self.fresh(listing.content, listing.etag)


class ModelDetail(ModelsView):
    """One model."""

    async def get(self, request: Request, model_id: str) -> HttpResponse:
        runtime = self.runtime
        model = shown(runtime.snapshot, model_id, grant=self.grant)
        if self.is_anthropic:
            content = orjson.dumps(present_as_anthropic(model))
        else:
            content = orjson.dumps(present(model, self.grant, runtime.book, now=time.time()))
        return self.fresh(content, etag_of(content))


class ModelEndpoints(ModelsView):
    """The routes of one model, and how they do."""

    async def get(self, request: Request, model_id: str) -> HttpResponse:
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
