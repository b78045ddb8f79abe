"""GET /openapi.json: the API document, for anybody."""

from pathlib import Path
from typing import Final

from django.http import HttpResponse
from rest_framework.request import Request

from apps.gateway import openapi
from apps.gateway.listing.models import etag_of, is_known
from apps.gateway.server.http import AsyncAPIView, JsonBytes

_CONTENT: Final = Path(openapi.__file__).with_name("openapi.json").read_bytes()
_HEADERS: Final = {
    "etag": etag_of(_CONTENT),
    "cache-control": "public, max-age=300",
    "access-control-allow-origin": "*",
}


class ApiDocument(AsyncAPIView):
    """The bytes that were read when this process began."""

    async def authenticate(self, request: Request) -> None:
        """Nobody has to say who asks."""

    async def get(self, request: Request) -> HttpResponse:
        if is_known(_HEADERS["etag"], request._request.META.get("HTTP_IF_NONE_MATCH", "")):
            response = HttpResponse(status=304, headers=_HEADERS)
            del response.headers["content-type"]
            return response
        return JsonBytes(_CONTENT, headers=_HEADERS)
