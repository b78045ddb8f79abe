"""Who asks: the API key in `Authorization: Bearer` or `X-API-KEY`."""

from collections.abc import Mapping
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from apps.gateway.errors import BAD_REQUEST, INVALID_API_KEY, KEY_PAUSED, GatewayError
from apps.keys.contracts import KeyGrant

_MISSING = "No API key was given. Send it as `Authorization: Bearer YOUR_KEY` or in the X-API-KEY header."
_PAUSED = (
    "This API key is paused because it was spending too fast. An owner or developer of the organization can resume it"
    " on the portal's page of API keys."
)
_INVALID = "The API key is not valid: it is malformed, unknown, revoked or expired."


class KeyAuthentication(BaseAuthentication):
    """Names the scheme for the API document; the gateway's views await the look-up themselves."""

    def authenticate(self, request: Request) -> None:
        """Nothing synchronous happens here."""

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"

    @staticmethod
    def accept(grant: KeyGrant | None) -> KeyGrant:
        """The grant of the caller. Raises GatewayError: 401 when there is none, 403 when the key is paused."""
        if grant is None:
            raise GatewayError(INVALID_API_KEY, _INVALID)
        if grant.paused_at is not None:
            raise GatewayError(KEY_PAUSED, _PAUSED)
        return grant


def presented_key(meta: Mapping[str, Any]) -> str:
    """The key in the request's headers (WSGI names). Raises GatewayError: 401 for none, 400 for two different ones."""
    written: str = meta.get("HTTP_AUTHORIZATION", "")
    only = written[7:].strip() if "," not in written and "HTTP_X_API_KEY" not in meta else ""
    if only and written[:7].lower() == "bearer ":  # as nearly all come
        return only
    authorizations = _values(meta, "HTTP_AUTHORIZATION")
    keys = {value.partition(" ")[2].strip() for value in authorizations if value[:7].lower() == "bearer "}
    keys |= _values(meta, "HTTP_X_API_KEY")
    keys.discard("")
    if len(keys) > 1:
        raise GatewayError(BAD_REQUEST, "Two different API keys were given; send one.")
    if not keys:
        raise GatewayError(INVALID_API_KEY, _INVALID if authorizations else _MISSING)
    return keys.pop()


def _values(meta: Mapping[str, Any], name: str) -> set[str]:
    """The values of a header that may have come more than once; they were joined with commas, which no key has."""
    return {value.strip() for value in str(meta.get(name, "")).split(",")} - {""}
