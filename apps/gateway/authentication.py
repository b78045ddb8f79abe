"""Who asks: the API key in `Authorization: Bearer` or `X-API-KEY`."""

from collections.abc import Mapping
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from apps.gateway.errors import BAD_REQUEST, INVALID_API_KEY, GatewayError
from apps.keys.contracts import KeyGrant

_MISSING = "No API key was given. Send it as `Authorization: Bearer YOUR_KEY` or in the X-API-KEY header."
_INVALID = "The API key is not valid: it is malformed, unknown, revoked or expired."


class KeyAuthentication(BaseAuthentication):
    """Names the scheme for the API document; the gateway's views await the look-up themselves."""

    def authenticate(self, request: Request) -> None:
        """Nothing synchronous happens here."""

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"

    @staticmethod
    def accept(grant: KeyGrant | None) -> KeyGrant:
        """The grant of the caller. Raises GatewayError (401) when there is none."""
        if grant is None:
            raise GatewayError(INVALID_API_KEY, _INVALID)
        return grant


def presented_key(meta: Mapping[str, Any]) -> str:
    """The key in the request's headers (WSGI names). Raises GatewayError: 401 for none, 400 for two different ones."""
    scheme, _, bearer = str(meta.get("HTTP_AUTHORIZATION", "")).partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    direct = str(meta.get("HTTP_X_API_KEY", "")).strip()
    if bearer and direct and bearer != direct:
        raise GatewayError(BAD_REQUEST, "Two different API keys were given, in Authorization and in X-API-KEY.")
    if not bearer and not direct:
        raise GatewayError(INVALID_API_KEY, _INVALID if scheme else _MISSING)
    return bearer or direct
