"""OpenAI and everything that speaks its Chat Completions: vLLM, Ollama, Groq, DeepSeek, Mistral, xAI and more. Pure."""

import re
from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest, body_for_upstream, dropped_options
from apps.gateway.dialects.chat_repairs import repair_whole
from apps.gateway.dialects.embeddings import EmbeddingsRequest
from apps.gateway.dialects.vendor_json import read_json
from apps.gateway.dialects.vendor_runs import may_run
from apps.gateway.errors import BAD_REQUEST, GatewayError
from apps.gateway.providers.base import StreamTranslator, UpstreamRequest
from apps.gateway.providers.vendor_errors import (
    by_status,
    credential_refused,
    error_object,
    failure_within,
    is_refused_key,
    is_too_long,
    presentable,
    presentable_name,
    prompt_too_long,
    seconds,
)

_CUSTOM_TOOLS: Final = {"openai": "auto", "azure": "auto", "openai-responses": "yes"}
"""What holds where the provider's options say nothing of custom tools. All other dialects have none."""
_KNOWS_CUSTOM_TOOLS: Final = re.compile(r"gpt-([5-9]|\d\d)", re.IGNORECASE)


class OpenAI:
    """The `openai` dialect."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        runs = may_run(target) if chat.asks_vendor else ()
        return UpstreamRequest(
            url=f"{target.base_url}/chat/completions",
            headers=request_headers(target, request_id, stream=chat.stream),
            body=body_for_upstream(
                chat, model, target.upstream_model, output_limit_field=target.output_limit_field, vendor_runs=runs
            ),
            dropped=dropped_options(chat, target.upstream_model, vendor_runs=runs),
        )

    def embeddings_request(self, asked: EmbeddingsRequest, target: Target, *, request_id: str) -> UpstreamRequest:
        return UpstreamRequest(
            url=f"{target.base_url}/embeddings",
            headers=request_headers(target, request_id, stream=False),
            body=asked.for_upstream(target.upstream_model),
        )

    def whole_answer(self, body: bytes) -> dict[str, Any]:
        return self.read(read_json(body), body)

    def read(self, answer: Any, body: bytes) -> dict[str, Any]:
        """What was read of this body as an answer, as `whole_answer`."""
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not choices and (failure := failure_within(body)) is not None:
            raise failure
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
            raise ValueError("no chat completion")
        repair_whole(answer)
        return dict(answer)

    def translator(self) -> StreamTranslator | None:
        return None

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        error = error_object(body)
        if is_too_long(status, error):
            return prompt_too_long()
        if status in (400, 422):
            if is_refused_key(body):
                return credential_refused()
            message = presentable(error.get("message"), target=target, model=model)
            return GatewayError(
                BAD_REQUEST,
                message or "The upstream refused the request as invalid.",
                param=presentable_name(error.get("param"), target=target, model=model),
                code=presentable_name(error.get("code"), target=target, model=model),
            )
        return by_status(status, seconds(retry_after), body=body)


def takes_custom_tools(target: Target) -> bool:
    """Whether tools whose input is a text can be told to it. Who does not know them refuses the request for them: of
    those that speak Chat Completions only OpenAI's own, since GPT-5, are known to."""
    wish = target.options.get("custom_tools") or _CUSTOM_TOOLS.get(target.dialect, "no")
    if wish != "auto":
        return wish == "yes"
    is_openais = target.dialect == "azure" or target.base_url.startswith("https://api.openai.com/")
    return is_openais and _KNOWS_CUSTOM_TOOLS.search(target.upstream_model) is not None


def request_headers(target: Target, request_id: str, *, stream: bool) -> dict[str, str]:
    """All that is sent beside the body."""
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if stream else "application/json",
        "accept-encoding": "identity",
        "x-request-id": request_id,
    }
    if target.api_key:
        headers["authorization"] = f"Bearer {target.api_key}"
    return headers
