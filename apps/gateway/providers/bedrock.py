"""AWS Bedrock, native: Converse and ConverseStream, signed or with a bearer key."""

import re
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.large_content import written
from apps.gateway.dialects.vendor_json import read_json
from apps.gateway.errors import BAD_REQUEST, UPSTREAM_FAILED, UPSTREAM_MISCONFIGURED, GatewayError
from apps.gateway.providers.base import StreamTranslator, UpstreamRequest
from apps.gateway.providers.bedrock_answer import BedrockStream, whole_answer
from apps.gateway.providers.bedrock_request import converse_request
from apps.gateway.providers.bedrock_signing import signed_headers
from apps.gateway.providers.short_lived import Source
from apps.gateway.providers.vendor_errors import by_status, presentable, prompt_too_long, seconds

_TOO_LONG: Final = re.compile(r"input is too long|prompt is too long|context (window|length)", re.IGNORECASE)
_MISCONFIGURED: Final = re.compile(
    r"model identifier is invalid|on-demand throughput|inference profile|model is not supported|operation not allowed"
    r"|legacy|end of its life",
    re.IGNORECASE,
)
"""Refusals as invalid that no caller can do anything about."""
_MODEL_FAILED: Final = (408, 424)
"""ModelTimeoutException and ModelErrorException: the model behind the service, not the request."""


class Bedrock:
    """The `bedrock` dialect. A route's upstream model is a model id or the id or ARN of an inference profile."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        request, lost = converse_request(chat, model, target)
        body = written(request, size=chat.body_bytes)
        operation = "converse-stream" if chat.stream else "converse"
        url = f"{target.base_url}/model/{quote(target.upstream_model, safe='')}/{operation}"
        headers = {
            "accept": "application/vnd.amazon.eventstream" if chat.stream else "application/json",
            "accept-encoding": "identity",
        }
        if target.options["auth"] == "bearer":
            headers |= {"content-type": "application/json", "authorization": f"Bearer {target.api_key}"}
            return UpstreamRequest(url=url, headers=headers, body=body, dropped=lost)
        sign = partial(signed_headers, url, region=target.options["region"])
        return UpstreamRequest(
            url=url, headers=headers, body=body, dropped=lost, sign=sign, credential=_credential(target)
        )

    def whole_answer(self, body: bytes) -> dict[str, Any]:
        return whole_answer(body)

    def translator(self) -> StreamTranslator | None:
        return BedrockStream()

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        if status in _MODEL_FAILED:
            return GatewayError(UPSTREAM_FAILED, "The upstream's model failed to answer.")
        if status != BAD_REQUEST.status:
            return by_status(status, seconds(retry_after), body=body)
        told = _told(body)
        if _TOO_LONG.search(told):
            return prompt_too_long()
        if _MISCONFIGURED.search(told):
            message = "The upstream does not serve this model so; the operator has to look."
            return GatewayError(UPSTREAM_MISCONFIGURED, message)
        message = presentable(told, target=target, model=model)
        return GatewayError(BAD_REQUEST, message or "The upstream refused the request as invalid.")


def _credential(target: Target) -> str | Source:
    """A role is the operator's: an organization's own key is what it brought."""
    if target.options["auth"] != "role" or target.credential_id:
        return target.api_key
    return Source("aws", target.api_key, target.options["region"], target.options["role_arn"])


def _told(body: bytes) -> str:
    """The sentence of an error, which stands at the top."""
    try:
        answer = read_json(body)
    except ValueError:
        return ""
    return str(answer.get("message") or answer.get("Message") or "") if isinstance(answer, dict) else ""
