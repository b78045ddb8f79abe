"""Errors as Anthropic's clients know them, with what OpenAI's clients look for beside it. Pure.

Source: the page on errors in Anthropic's documentation, and `thread_unsupported_request` in the types of its SDK."""

from typing import Any, Final

import orjson

from apps.gateway.errors import GatewayError

THREADS_UNSUPPORTED: Final = "thread_unsupported_request"
"""A code that Anthropic's SDK looks for: it sends the whole conversation then."""
_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_TYPE_OF_EVENT: Final = {
    "insufficient_quota": "billing_error",
    "rate_limit_error": "rate_limit_error",
    "invalid_request_error": "invalid_request_error",
    "service_unavailable_error": "overloaded_error",
    "timeout_error": "timeout_error",
}
_STATUSES: Final = {503: 529}
_NO_MONEY: Final = "insufficient_quota"


def anthropic_error(error: GatewayError, request_id: str) -> tuple[int, bytes]:
    """Status and body: `{type, error: {type, message, param, code}, request_id}`."""
    status = 402 if error.kind.type == _NO_MONEY else error.kind.status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    content: dict[str, Any] = {"type": kind, "message": error.message, "param": error.param, "code": error.code}
    if error.code == THREADS_UNSUPPORTED:
        content["details"] = {"error_code": error.code}
    return _STATUSES.get(status, status), _envelope(content, request_id)


def stream_error(error: dict[str, Any], request_id: str) -> bytes:
    """The last event of a stream that is not whole, of the `error` that our own streams tell."""
    content = {**error, "type": _TYPE_OF_EVENT.get(str(error.get("type")), "api_error")}
    return b"event: error\ndata: " + _envelope(content, request_id) + b"\n\n"


def _envelope(content: dict[str, Any], request_id: str) -> bytes:
    return orjson.dumps({"type": "error", "error": content, "request_id": request_id})
