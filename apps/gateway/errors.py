"""Failures of the data path and their public form: one table for status, type and code. Pure.

GatewayError
    raised anywhere between the door and the first byte; becomes the answer
    after the first byte it becomes an event in the stream (`stream_event`)
"""

from typing import NamedTuple

import orjson


class ErrorKind(NamedTuple):
    """A row of the public error table (docs/errors.md)."""

    status: int
    type: str
    code: str | None
    retry: bool = False
    """Whether the same request can succeed later; otherwise clients are told not to try again."""


BAD_REQUEST = ErrorKind(400, "invalid_request_error", None)
CONTEXT_TOO_LONG = ErrorKind(400, "invalid_request_error", "context_length_exceeded")
CONTENT_FILTERED = ErrorKind(400, "invalid_request_error", "content_filter")
UNSUPPORTED_PARAMETER = ErrorKind(400, "invalid_request_error", "unsupported_parameter")
CONTENT_POLICY = ErrorKind(400, "invalid_request_error", "content_policy_violation")
UNSUPPORTED_MODALITY = ErrorKind(400, "invalid_request_error", "unsupported_modality")
STORAGE_FORBIDDEN = ErrorKind(400, "invalid_request_error", "storage_forbidden")
PREVIOUS_NOT_FOUND = ErrorKind(400, "invalid_request_error", "previous_response_not_found")
ITEM_IN_CONVERSATION = ErrorKind(400, "invalid_request_error", "item_already_in_conversation")
BAD_IDEMPOTENCY_KEY = ErrorKind(400, "invalid_request_error", "invalid_idempotency_key")
IDEMPOTENCY_OFF = ErrorKind(400, "invalid_request_error", "idempotency_not_supported")
INVALID_API_KEY = ErrorKind(401, "invalid_request_error", "invalid_api_key")
KEY_PAUSED = ErrorKind(403, "permission_error", "key_paused")
KEY_DISABLED = ErrorKind(403, "permission_error", "key_disabled")
LIVE_MODEL = ErrorKind(403, "permission_error", "live_model_with_sandbox_key")
PROVIDER_KEY_REFUSED = ErrorKind(403, "permission_error", "provider_key_refused")
DATA_POLICY = ErrorKind(403, "permission_error", "data_policy_violation")
NOT_FOUND = ErrorKind(404, "invalid_request_error", "not_found")
RESPONSE_NOT_FOUND = ErrorKind(404, "invalid_request_error", "response_not_found")
CONVERSATION_NOT_FOUND = ErrorKind(404, "invalid_request_error", "conversation_not_found")
ITEM_NOT_FOUND = ErrorKind(404, "invalid_request_error", "item_not_found")
GENERATION_NOT_FOUND = ErrorKind(404, "invalid_request_error", "generation_not_found")
MODEL_NOT_FOUND = ErrorKind(404, "invalid_request_error", "model_not_found")
NO_MATCHING_PROVIDER = ErrorKind(404, "invalid_request_error", "no_matching_provider")
METHOD_NOT_ALLOWED = ErrorKind(405, "invalid_request_error", "method_not_allowed")
REQUEST_TIMEOUT = ErrorKind(408, "invalid_request_error", "request_timeout")
IDEMPOTENCY_KEY_REUSED = ErrorKind(409, "idempotency_error", "idempotency_key_reused")
IDEMPOTENCY_IN_PROGRESS = ErrorKind(409, "idempotency_error", "idempotency_in_progress", retry=True)
IDEMPOTENCY_ANSWER_LOST = ErrorKind(409, "idempotency_error", "idempotency_answer_lost")
BODY_TOO_LARGE = ErrorKind(413, "invalid_request_error", "request_too_large")
UNSUPPORTED_ENCODING = ErrorKind(415, "invalid_request_error", "unsupported_content_encoding")
UNPRICED = ErrorKind(503, "service_unavailable_error", "model_not_priced")
MODEL_IN_MAINTENANCE = ErrorKind(503, "service_unavailable_error", "model_in_maintenance", retry=True)
MODERATION_UNAVAILABLE = ErrorKind(503, "service_unavailable_error", "moderation_unavailable", retry=True)
UPSTREAM_OVERLOADED = ErrorKind(503, "service_unavailable_error", "upstream_overloaded", retry=True)
UPSTREAM_FAILED = ErrorKind(502, "upstream_error", "upstream_failed", retry=True)
UPSTREAM_MISCONFIGURED = ErrorKind(502, "upstream_error", "upstream_misconfigured")
UPSTREAM_UNAUTHORIZED = ErrorKind(502, "upstream_error", "upstream_unauthorized")
UPSTREAM_TIMEOUT = ErrorKind(504, "timeout_error", "upstream_timeout", retry=True)
GATEWAY_OVERLOADED = ErrorKind(503, "service_unavailable_error", "gateway_overloaded", retry=True)
GATEWAY_STOPPING = ErrorKind(503, "service_unavailable_error", "gateway_stopping", retry=True)
RATE_LIMITED = ErrorKind(429, "rate_limit_error", "rate_limit_exceeded", retry=True)
TOO_MANY_WAITING = ErrorKind(429, "rate_limit_error", "too_many_requests_waiting", retry=True)
REQUEST_OVER_RATE = ErrorKind(429, "rate_limit_error", "request_larger_than_rate_limit")
IDEMPOTENCY_KEYS_EXHAUSTED = ErrorKind(429, "rate_limit_error", "idempotency_keys_exhausted")
BALANCE_EXHAUSTED = ErrorKind(429, "insufficient_quota", "credit_balance_exhausted")
KEY_BUDGET_SPENT = ErrorKind(429, "insufficient_quota", "key_spend_limit_exceeded")
PROJECT_BUDGET_SPENT = ErrorKind(429, "insufficient_quota", "project_spend_limit_exceeded")
ORGANIZATION_BUDGET_SPENT = ErrorKind(429, "insufficient_quota", "organization_spend_limit_exceeded")
STORE_AWAY = ErrorKind(503, "service_unavailable_error", "store_unavailable", retry=True)
SERVER_ERROR = ErrorKind(500, "server_error", "internal_error")

RETRY_AFTER_S = 1


class GatewayError(Exception):
    """A failure with its public form. The message is shown to the caller: nothing internal belongs in it."""

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int = 0,
        retry_after_ms: int = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code or kind.code
        self.retry_after_ms = retry_after_ms or 1000 * (retry_after_s or (RETRY_AFTER_S if kind.retry else 0))

    def body(self) -> bytes:
        """OpenAI's error object."""
        error = {"message": self.message, "type": self.kind.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})

    def stream_event(self) -> bytes:
        """The same object as the last event of a broken stream; no `[DONE]` follows it."""
        return b"data: " + self.body() + b"\n\n"

    def headers(self) -> dict[str, str]:
        """What tells clients whether and when to try again; a time says that it can help."""
        if self.retry_after_ms:
            return {"retry-after": str(-(-self.retry_after_ms // 1000)), "retry-after-ms": str(self.retry_after_ms)}
        return {"x-should-retry": "false"} if self.kind.status >= 500 or self.kind.status in (409, 429) else {}


def bad_field(param: str, message: str) -> GatewayError:
    """400 that names the field."""
    return GatewayError(BAD_REQUEST, message, param=param)
