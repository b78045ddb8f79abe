"""Anthropic's Messages API, and what else speaks it. Pure.

Sources: the Messages API reference and the page on errors in Anthropic's documentation."""

import re
from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.large_content import written
from apps.gateway.errors import BAD_REQUEST, UPSTREAM_UNAUTHORIZED, GatewayError
from apps.gateway.providers.anthropic_answer import AnthropicStream, whole_answer
from apps.gateway.providers.anthropic_request import messages_request
from apps.gateway.providers.base import StreamTranslator, UpstreamRequest
from apps.gateway.providers.vendor_errors import by_status, error_object, presentable, prompt_too_long, seconds

DEFAULT_VERSION: Final = "2023-06-01"
_TOO_LONG = re.compile(r"prompt is too long|exceed(s|ed)? (the )?(model'?s? )?context (limit|window)", re.IGNORECASE)
_OUT_OF_MONEY = re.compile(r"credit balance is too low|reached your specified (api )?usage limits", re.IGNORECASE)
"""Refusals of the operator's account that come as invalid requests."""
_FIELD = re.compile(
    r"(messages|system|tools|tool_choice|temperature|top_p|max_tokens|thinking|stop_sequences)\b[^ ]*: "
)


class Anthropic:
    """The `anthropic` dialect."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        headers = request_headers(target, stream=chat.stream)
        request, lost = messages_request(chat, model, target)
        return UpstreamRequest(
            url=f"{target.base_url}/messages",
            headers=headers,
            body=written(request, size=chat.body_bytes),
            dropped=lost,
        )

    def whole_answer(self, body: bytes) -> dict[str, Any]:
        return whole_answer(body)

    def translator(self) -> StreamTranslator | None:
        return AnthropicStream()

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        error = error_object(body)
        told = error["message"] if isinstance(error.get("message"), str) else ""
        if status == 402 or error.get("type") == "billing_error" or (status == 400 and _OUT_OF_MONEY.search(told)):
            message = "The upstream refused our account; the operator has to look."
            return GatewayError(UPSTREAM_UNAUTHORIZED, message)
        if status not in (400, 422):
            return by_status(status, seconds(retry_after), body=body)
        if _TOO_LONG.search(told):
            return prompt_too_long()
        field = _FIELD.match(told)
        message = presentable(told, target=target, model=model) or "The upstream refused the request as invalid."
        return GatewayError(BAD_REQUEST, message, param=field[1] if field else None)


def request_headers(target: Target, *, stream: bool, betas: tuple[str, ...] = ()) -> dict[str, str]:
    """All that is sent beside the body. `betas` are the caller's, beside those of the operator."""
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if stream else "application/json",
        "accept-encoding": "identity",
        "anthropic-version": target.options.get("version") or DEFAULT_VERSION,
    }
    if target.api_key:
        headers["x-api-key"] = target.api_key
    operators = [name.strip() for name in (target.options.get("beta") or "").split(",")]
    if named := [name for name in dict.fromkeys((*operators, *betas)) if name]:
        headers["anthropic-beta"] = ",".join(named)
    return headers
