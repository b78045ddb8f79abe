"""Google's Gemini API, native: generateContent and streamGenerateContent. Pure."""

import math
import re
from typing import Any, Final
from urllib.parse import quote

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.large_content import written
from apps.gateway.errors import BAD_REQUEST, UPSTREAM_MISCONFIGURED, GatewayError
from apps.gateway.providers import gemini_answer, gemini_request
from apps.gateway.providers.base import StreamTranslator, UpstreamRequest
from apps.gateway.providers.vendor_errors import (
    MAX_RETRY_AFTER_S,
    by_status,
    error_object,
    presentable,
    prompt_too_long,
    seconds,
)

_TOO_LONG: Final = re.compile(r"token count .*exceeds the maximum", re.IGNORECASE)
_DELAY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)s")
_PRESENTABLE_STATUS: Final = 400
_REFUSED_KEY: Final = 401


class Gemini:
    """The `gemini` dialect. The key stands in a header, never in the address, which proxies write to their logs."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        method = "streamGenerateContent?alt=sse" if chat.stream else "generateContent"
        version = target.options["api_version"]
        name = target.upstream_model if "/" in target.upstream_model else f"models/{target.upstream_model}"
        return UpstreamRequest(
            url=f"{target.base_url.removesuffix(f'/{version}')}/{version}/{quote(name)}:{method}",
            headers={
                "content-type": "application/json",
                "accept": "text/event-stream" if chat.stream else "application/json",
                "accept-encoding": "identity",
                "x-goog-api-key": target.api_key,
            },
            body=written(gemini_request.request_body(chat, model, target), size=chat.body_bytes),
            dropped=gemini_request.losses(chat, model, target),
        )

    def whole_answer(self, body: bytes) -> dict[str, Any]:
        return gemini_answer.whole_answer(body)

    def translator(self) -> StreamTranslator | None:
        return gemini_answer.GeminiStream()

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        """Errors are `google.rpc.Status`. A wrong key is a 400 there, told by its reason."""
        error = error_object(body)
        if status != _PRESENTABLE_STATUS:
            return by_status(status, seconds(retry_after) or _retry_delay_s(error), body=body)
        if "API_KEY" in _reason(error):
            return by_status(_REFUSED_KEY)
        if error.get("status") == "FAILED_PRECONDITION":
            message = "The upstream does not serve this account; the operator has to look."
            return GatewayError(UPSTREAM_MISCONFIGURED, message)
        if _TOO_LONG.search(str(error.get("message"))):
            return prompt_too_long()
        message = presentable(error.get("message"), target=target, model=model)
        return GatewayError(BAD_REQUEST, message or "The upstream refused the request as invalid.")


def _details(error: dict[str, Any], kind: str) -> dict[str, Any]:
    """The detail of a kind, such as RetryInfo; {} without one."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type")).endswith(f"google.rpc.{kind}"):
            return detail
    return {}


def _reason(error: dict[str, Any]) -> str:
    return str(_details(error, "ErrorInfo").get("reason", ""))


def _retry_delay_s(error: dict[str, Any]) -> int:
    found = _DELAY.fullmatch(str(_details(error, "RetryInfo").get("retryDelay")))
    return min(math.ceil(float(found.group(1))), MAX_RETRY_AFTER_S) if found else 0
