"""Azure OpenAI: OpenAI's Chat Completions at other addresses, with reports of a content filter in its answers. Pure.

Source: the REST reference of Azure OpenAI, and its pages on content filtering and content streaming."""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest, body_for_upstream, dropped_options
from apps.gateway.dialects.embeddings import EmbeddingsRequest
from apps.gateway.dialects.sse import event_data
from apps.gateway.dialects.vendor_json import FLAT_OBJECT, NUMBER, STRING, read_json, text_of, write_json
from apps.gateway.errors import UPSTREAM_MISCONFIGURED, GatewayError
from apps.gateway.providers.base import StreamTranslator, UpstreamRequest
from apps.gateway.providers.event_translation import FAILED, FILTERED, EventTranslator
from apps.gateway.providers.openai import OpenAI
from apps.gateway.providers.short_lived import Source
from apps.gateway.providers.vendor_errors import error_object, prompt_filtered

_REPORTS = ("content_filter_results", "content_filter_result", "content_filter_offsets", "content_filter_raw")
"""What the filter says within a choice. `content_filter_result` holds its own failures."""
_FILTER_CODES = ("content_filter", "ResponsibleAIPolicyViolation")
_OPERATORS_CODES = ("OperationNotSupported", "DeploymentNotFound", "unsupported_api_version")
"""Codes of 400 and 404 that no caller can do anything about."""
_HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier")

_WORD: Final = rb'"[!#-\[\]-~]*"'
_PIECE: Final = re.compile(
    rb'data: \{"choices":\[\{"content_filter_results":%b,"delta":\{"(?:content":|(?P<call>tool_calls":\[\{"function":'
    rb'\{"arguments":))(?!"")(?P<said>%b)(?(call)\},"index":(?P<place>%b)\}\])\},"finish_reason":null,"index":0,'
    rb'"logprobs":null\}\],(?P<before>"created":[1-9]\d{0,17},"id":%b,"model":%b,)(?P<obfuscation>"obfuscation":"\w*",)?'
    rb'(?P<after>"object":"chat.completion.chunk"(?:,"service_tier":%b)?(?:,"system_fingerprint":%b)?)'
    rb'(?:,"usage":null)?\}\n\n' % (FLAT_OBJECT, STRING, NUMBER, _WORD, _WORD, _WORD, _WORD)
)
"""An event with a piece of text or arguments, in the order in which Azure writes it."""
_TEXT: Final = b',"choices":[{"index":0,"delta":{"content":', b'},"logprobs":null,"finish_reason":null}]'
_ARGUMENTS: Final = (
    b',"choices":[{"index":0,"delta":{"tool_calls":[{"index":%b,"function":{"arguments":',
    b'}}]},"logprobs":null,"finish_reason":null}]',
)
"""Around a piece in the choices of our chunk."""


class Azure(OpenAI):
    """The `azure` dialect. A route's upstream model is the name of a deployment."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        return UpstreamRequest(
            url=_address(target, "chat/completions"),
            headers=_headers(target, request_id, stream=chat.stream),
            sign=_sign(target),
            credential=_source(target),
            body=body_for_upstream(chat, model, target.upstream_model, output_limit_field=target.output_limit_field),
            dropped=dropped_options(chat, target.upstream_model),
        )

    def embeddings_request(self, asked: EmbeddingsRequest, target: Target, *, request_id: str) -> UpstreamRequest:
        return UpstreamRequest(
            url=_address(target, "embeddings"),
            headers=_headers(target, request_id, stream=False),
            sign=_sign(target),
            credential=_source(target),
            body=asked.for_upstream(target.upstream_model),
        )

    def whole_answer(self, body: bytes) -> dict[str, Any]:
        answer = super().whole_answer(body)
        answer["choices"] = [_without_reports(choice) for choice in answer["choices"]]
        return answer

    def translator(self) -> StreamTranslator | None:
        return AzureStream()

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        if status in (400, 422):
            error = error_object(body)
            if _is_filtered(error):
                return prompt_filtered()
            if error.get("code") in _OPERATORS_CODES:
                message = "The upstream cannot serve this model so; the operator has to look."
                return GatewayError(UPSTREAM_MISCONFIGURED, message)
        return super().failure(status, retry_after, body, target=target, model=model)


class AzureStream(EventTranslator):
    """Takes the filter's reports out of a stream. A chunk that was nothing else is gone.

    The fields of a chunk are put in OpenAI's order: the relay knows the heads of its chunks by their bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._told = b"", b""
        """What the last piece's event said beside its piece."""
        self._around = self._frame = b"", b""
        """Around the piece of the last such event, and of our chunk of it."""
        self._head = b""
        """What our chunk of such an event begins with."""

    def _known_piece(self, received: bytes, at: int) -> tuple[bytes, int] | None:
        start, end = self._around
        if start and at == 0 and received.startswith(start) and received.endswith(end):
            literal = received[len(start) : len(received) - len(end)]
            if text_of(literal):
                return self._frame[0] + literal + self._frame[1], len(received)
        event = _PIECE.match(received, at)
        if event is None:
            return None
        _, said, place, before, obfuscation, after = event.groups()
        if text_of(said) is None:
            return None
        if (before, after) != self._told:
            self._take_head(before, after)
        tail = b"%b}\n\n" % (b"" if obfuscation is None else b"," + obfuscation[:-1])
        first, last = _TEXT if place is None else (_ARGUMENTS[0] % place, _ARGUMENTS[1])
        self._frame = self._head + first, last + tail
        self._around = received[at : event.start("said")], received[event.end("said") : event.end()]
        return self._frame[0] + said + self._frame[1], event.end()

    def _take_head(self, before: bytes, after: bytes) -> None:
        told = read_json(b"{%b%b}" % (before, after))
        self._told = before, after
        self._head = b"data: " + write_json({name: told[name] for name in _HEAD if name in told})[:-1]

    def _event(self, event: bytes) -> bytes:
        payload = event_data(event)
        try:
            chunk = read_json(payload)
        except ValueError:
            return event + b"\n\n"  # [DONE], and garbage that is counted further on
        if isinstance(chunk, dict) and chunk.get("error"):
            return FILTERED if _is_filtered(chunk["error"]) else FAILED
        if not isinstance(chunk, dict) or not isinstance(chunk.get("choices"), list):
            return b"data: " + payload + b"\n\n"
        choices = [_without_reports(choice) for choice in chunk["choices"] if isinstance(choice, dict)]
        choices = [choice for choice in choices if choice.get("delta") or choice.get("finish_reason")]
        usage = chunk.get("usage")
        if not choices and usage is None:
            return b""
        clean = {name: chunk[name] for name in _HEAD if name in chunk} | {"choices": choices}
        if usage is not None:
            clean["usage"] = usage
        if "obfuscation" in chunk:
            clean["obfuscation"] = chunk["obfuscation"]
        return b"data: " + write_json(clean) + b"\n\n"


def _is_filtered(error: object) -> bool:
    """Whether an error object is the filter's. Its code stands at the top, in `innererror`, or in both."""
    if not isinstance(error, dict):
        return False
    inner = error.get("innererror")
    return error.get("code") in _FILTER_CODES or (isinstance(inner, dict) and inner.get("code") in _FILTER_CODES)


def _headers(target: Target, request_id: str, *, stream: bool) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if stream else "application/json",
        "accept-encoding": "identity",
        "x-request-id": request_id,
    }
    if target.options["auth"] == "entra":
        headers["authorization"] = f"Bearer {target.api_key}"
    elif target.options["auth"] == "api-key":
        headers["api-key"] = target.api_key
    return headers


def _sign(target: Target) -> Callable[[str, str], dict[str, str]] | None:
    return _with_token if target.options["auth"] == "entra-client" else None


def _with_token(body_sha256: str, token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _source(target: Target) -> str | Source:
    return Source("entra", target.api_key, target.options["cloud"]) if target.options["auth"] == "entra-client" else ""


def _address(target: Target, endpoint: str) -> str:
    """Since `v1` the deployment is named in the body alone, as OpenAI's model is."""
    version = target.options["api_version"]
    resource = target.base_url.removesuffix("/openai/v1").removesuffix("/openai")
    if version == "v1":
        return f"{resource}/openai/v1/{endpoint}"
    deployment = quote(target.upstream_model, safe="")
    return f"{resource}/openai/deployments/{deployment}/{endpoint}?api-version={quote(version, safe='')}"


def _without_reports(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice as OpenAI has it, its index first. A filtered message may lack its content."""
    kept = {name: value for name, value in choice.items() if name not in _REPORTS}
    if isinstance(kept.get("message"), dict):
        kept["message"].setdefault("content", None)
    ordered = {name: kept[name] for name in ("index", "delta", "logprobs", "finish_reason") if name in kept}
    return ordered | kept
