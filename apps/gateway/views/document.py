"""GET /openapi.json: the API document, for anybody."""

from pathlib import Path
from typing import Final

from apps.gateway import openapi
from apps.gateway.listing.models import etag_of, is_known
from apps.gateway.server.answer import Answer, JsonBytes
from apps.gateway.server.http import AsyncAPIView
from apps.gateway.server.lean_request import LeanRequest

_CONTENT: Final = Path(openapi.__file__).with_name("openapi.json").read_bytes()
_HEADERS: Final = {
    "etag": etag_of(_CONTENT),
    "cache-control": "public, max-age=300",
    "access-control-allow-origin": "*",
}


class ApiDocument(AsyncAPIView):
    """The bytes that were read when this process began."""

    async def authenticate(self, request: LeanRequest) -> None:
        """Nobody has to say who asks."""

    async def get(self, request: LeanRequest) -> Answer:
        if is_known(_HEADERS["etag"], request.META.get("HTTP_IF_NONE_MATCH", "")):
            return Answer(status=304, headers=_HEADERS)
        return JsonBytes(_CONTENT, headers=_HEADERS)
