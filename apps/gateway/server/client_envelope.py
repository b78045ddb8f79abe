"""Endpoints under /client/: CRUN's own envelope `{code, message, data}`, for answers and errors alike."""

from typing import Any, Final

import orjson

from apps.gateway.errors import INVALID_API_KEY, KEY_DISABLED, NOT_FOUND, GatewayError
from apps.gateway.server.answer import Answer, JsonBytes, Response
from apps.gateway.server.authentication import KeyAuthentication, presented_key
from apps.gateway.server.http import AsyncAPIView, json_response
from apps.gateway.server.lean_request import LeanRequest

SUCCESS: Final = 200


def client_success(content: dict[str, Any]) -> Answer:
    """A good answer."""
    return json_response({"code": SUCCESS, "message": "success", "data": content})


class ClientView(AsyncAPIView):
    """A view whose errors have the envelope too: `code` is the HTTP status, `data` is null.

    A key that was revoked or has expired is told so (403); one that nobody knows is not a key (401)."""

    async def authenticate(self, request: LeanRequest) -> None:
        grant = await self.runtime.keys.find_any(presented_key(request.META))
        if grant is None:
            raise GatewayError(INVALID_API_KEY, "The API key is not valid: it is malformed or unknown.")
        if not self.runtime.keys.is_usable(grant):
            raise GatewayError(KEY_DISABLED, "The API key is disabled: it was revoked or has expired.")
        self.grant = KeyAuthentication.accept(grant)

    def error_response(self, error: GatewayError) -> Answer:
        body = orjson.dumps({"code": error.kind.status, "message": error.message, "data": None})
        return JsonBytes(body, status=error.kind.status, headers=error.headers())


class ClientNotFound(ClientView):
    """Any other path under /client/."""

    async def _answer(self, method: str) -> Response:
        raise GatewayError(NOT_FOUND, f"There is no endpoint at {self.request.path}.")
