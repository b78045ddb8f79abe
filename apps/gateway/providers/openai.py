"""OpenAI and everything that speaks its Chat Completions: vLLM, Ollama, Groq, DeepSeek, Mistral, xAI and more. Pure."""

import re
from typing import Any

import orjson

from apps.catalog.contracts import OfferedModel, Target
from apps.core.logging import redact
from apps.gateway.chat import ChatRequest, body_for_upstream
from apps.gateway.errors import (
    BAD_REQUEST,
    BODY_TOO_LARGE,
    UPSTREAM_FAILED,
    UPSTREAM_MISCONFIGURED,
    UPSTREAM_OVERLOADED,
    UPSTREAM_UNAUTHORIZED,
    GatewayError,
)
from apps.gateway.providers.base import StreamTranslator, UpstreamRequest
from apps.gateway.vendor_json import read_json

MAX_MESSAGE_LENGTH = 1_000
MAX_RETRY_AFTER_S = 3_600
_URL = re.compile(r"https?://\S+")


class OpenAI:
    """The `openai` dialect."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if chat.stream else "application/json",
            "accept-encoding": "identity",
            "x-request-id": request_id,
        }
        if target.api_key:
            headers["authorization"] = f"Bearer {target.api_key}"
        return UpstreamRequest(
            url=f"{target.base_url}/chat/completions",
            headers=headers,
            body=body_for_upstream(chat, model, target.upstream_model, output_limit_field=target.output_limit_field),
        )

    def whole_answer(self, body: bytes) -> dict[str, Any]:
        answer = read_json(body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
            raise ValueError("no chat completion")
        return dict(answer)

    def translator(self) -> StreamTranslator | None:
        return None

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        if status in (400, 422):
            error = _error_object(body)
            message = _presentable(error.get("message"), target=target, model=model)
            param, code = error.get("param"), error.get("code")
            return GatewayError(
                BAD_REQUEST,
                message or "The upstream refused the request as invalid.",
                param=param if isinstance(param, str) else None,
                code=code if isinstance(code, str) else None,
            )
        if status == 413:
            return GatewayError(BODY_TOO_LARGE, "The request is too large for the upstream.")
        if status in (401, 403):
            return GatewayError(UPSTREAM_UNAUTHORIZED, "The upstream refused our credential; the operator has to look.")
        if status in (429, 503, 529):
            message = "The upstream is overloaded; try again later."
            return GatewayError(UPSTREAM_OVERLOADED, message, retry_after_s=_seconds(retry_after))
        if status < 500:
            message = "The upstream does not know this model or endpoint; the operator has to look."
            return GatewayError(UPSTREAM_MISCONFIGURED, message)
        return GatewayError(UPSTREAM_FAILED, "The upstream failed to answer.")


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _presentable(message: object, *, target: Target, model: str) -> str:
    """A vendor's sentence without its addresses, its name for the model, and anything like a credential."""
    if not isinstance(message, str):
        return ""
    message = _URL.sub("…", message.replace(target.upstream_model, model))
    if target.api_key:
        message = message.replace(target.api_key, "…")
    return redact(message)[:MAX_MESSAGE_LENGTH]


def _seconds(retry_after: str | None) -> int:
    if not retry_after or not re.fullmatch(r"[0-9]{1,9}", retry_after):
        return 0
    return min(int(retry_after), MAX_RETRY_AFTER_S)
