"""Errors as Anthropic's clients know them, with what OpenAI's clients look for beside it. Pure."""

from typing import Final

import orjson

from apps.gateway.errors import GatewayError

_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OVERLOADED: Final = 529


def anthropic_error(error: GatewayError, request_id: str) -> tuple[int, bytes]:
    """Status and body: `{type, error: {type, message, param, code}, request_id}`."""
    status = error.kind.status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    content = {"type": kind, "message": error.message, "param": error.param, "code": error.code}
    body = orjson.dumps({"type": "error", "error": content, "request_id": request_id})
    return _OVERLOADED if status == 503 else status, body
