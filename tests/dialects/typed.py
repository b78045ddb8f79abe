"""Whether what we answered is what the official SDKs' own types say, strictly: no field missing, none of another type
or unknown to them but those that are documented as ours, and events in the order that clients rely on.

`tests.gateway.conftest.Bench.call` has every answer looked at here."""

import base64
import re
from array import array
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import orjson
from anthropic.types import ErrorResponse, Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter

from tests.dialects.orders import chat_order, messages_order, responses_order

_API: Final = "/api/v1"
_LARGE: Final = 1 << 20
"""Bytes. What is longer says nothing new, and takes long to be looked at."""
_HALF_AN_EMOJI: Final = re.compile(rb"(?i)\\ud[89ab]..(?!\\ud[c-f])")
"""Vendors cut there, and no strict reader takes it."""
_WHOLE: Final[dict[str, Any]] = {
    "/chat/completions": ChatCompletion,
    "/completions": Completion,
    "/embeddings": CreateEmbeddingResponse,
    "/messages": Message,
    "/messages/count_tokens": MessageTokensCount,
    "/responses": Response,
}
_EVENT: Final[dict[str, Any]] = {
    "/chat/completions": ChatCompletionChunk,
    "/completions": Completion,
    "/messages": RawMessageStreamEvent,
    "/responses": ResponseStreamEvent,
}
_ORDER: Final = {
    "/chat/completions": chat_order,
    "/completions": chat_order,
    "/messages": messages_order,
    "/responses": responses_order,
}
_OURS: Final = frozenset({
    *(f"{usage}.{name}" for usage in ("CompletionUsage", "Usage", "MessageDeltaUsage", "ResponseUsage")
      for name in ("cost", "is_byok", "cost_details")),
    *(f"{said}.{name}" for said in ("ChatCompletionMessage", "ChoiceDelta")
      for name in ("reasoning_content", "reasoning", "reasoning_details")),
    *(f"{call}.extra_content" for call in ("ChatCompletionMessageFunctionToolCall", "ChoiceDeltaToolCall")),
    "Choice.stop_reason", "Response.output_text", "Response.store", "ResponseCustomToolCall.status",
    "ResponseFunctionCallArgumentsDoneEvent.name",
})  # fmt: skip
"""What docs/api.md names beside the published fields. Those of Responses are OpenAI's own: its SDK has no field for
them, or had one in an earlier version."""

_WITHOUT_A_TYPE: Final = ("request_too_large", "conflict_error")
"""Kinds of errors that Anthropic documents, and its SDK has a class of exceptions for, but no type."""
_OF_ERRORS: Final = re.compile(r"\w+ErrorObject\.(param|code|details)")
"""What OpenAI's clients look for in errors stands in those of Anthropic's dialect too."""


def is_published(path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Raises AssertionError naming what is not as published."""
    endpoint = path.removeprefix(_API)
    if endpoint == "/models" and status == 200:
        _models(orjson.loads(body))
    if not body or endpoint not in _WHOLE or len(body) > _LARGE or _HALF_AN_EMOJI.search(body):
        return
    if headers.get("content-type", "").startswith("text/event-stream"):
        _stream(endpoint, body)
    elif status >= 400:
        _error(endpoint, orjson.loads(body))
    else:
        matches(_WHOLE[endpoint], _as_the_sdk_reads(orjson.loads(body)))


def _as_the_sdk_reads(told: Any) -> Any:
    """Vectors as numbers: the SDK asks for base64, and reads it before its own types see it."""
    if told.get("object") != "list" or not any(isinstance(each["embedding"], str) for each in told["data"]):
        return told
    vectors = [array("f", base64.b64decode(each["embedding"])).tolist() for each in told["data"]]
    return {**told, "data": [each | {"embedding": vector} for each, vector in zip(told["data"], vectors, strict=True)]}


def _without_null_reasons(event: Any) -> Any:
    """A piece of a text completion, which at OpenAI has a reason of null until its end: its SDK has one type for pieces
    and whole answers, without a null."""
    choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in event["choices"]]
    return {**event, "choices": choices}


def matches(shape: Any, told: Any) -> None:
    """Whether `told` is of this type, without anything being bent to it, and has nothing else but what is ours."""
    found = _adapter(shape).validate_python(told, strict=True)
    unknown = sorted({field for field in _unknown(found) if field not in _OURS and not _OF_ERRORS.fullmatch(field)})
    assert not unknown, f"fields that nobody published: {unknown} in {told}"


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _unknown(found: Any) -> Iterator[str]:
    """The fields that the types do not have, with the type they were found in."""
    if isinstance(found, BaseModel):
        yield from (f"{type(found).__name__}.{name}" for name in found.model_extra or ())
        for name in type(found).model_fields:
            yield from _unknown(getattr(found, name))
    elif isinstance(found, list):
        for each in found:
            yield from _unknown(each)


def _error(endpoint: str, told: Any) -> None:
    if endpoint.startswith("/messages"):
        kind = told["error"]["type"]
        shown = "invalid_request_error" if kind in _WITHOUT_A_TYPE else kind
        matches(ErrorResponse, {**told, "error": {**told["error"], "type": shown}})
    else:
        assert list(told) == ["error"], told
        matches(ErrorObject, told["error"])


def _stream(endpoint: str, body: bytes) -> None:
    events = list(events_of(endpoint, body))
    for event in events:
        kind = event.get("type") if isinstance(event, dict) else None
        if event == "[DONE]" or kind == "ping":
            continue
        if isinstance(event, dict) and "error" in event and kind in (None, "error"):
            _error(endpoint, event)
        else:
            matches(_EVENT[endpoint], _without_null_reasons(event) if endpoint == "/completions" else event)
    _ORDER[endpoint](events)


def events_of(endpoint: str, body: bytes) -> Iterator[Any]:
    """The events of a whole stream, each named twice the same where the dialect names them; comments are none."""
    blocks = body.split(b"\n\n")
    assert blocks.pop() == b"", f"the stream does not end with an event: {body[-200:]!r}"
    for block in blocks:
        if block.startswith(b":"):
            continue
        name, data = block.split(b"\n") if endpoint in ("/messages", "/responses") else (b"", block)
        assert data.startswith(b"data: "), block
        event = "[DONE]" if data == b"data: [DONE]" else orjson.loads(data[6:])
        assert not name or name == b"event: " + event["type"].encode(), block
        yield event


def _models(told: Any) -> None:
    """A list of models; OpenAI's has all fields of OpenRouter's beside its own."""
    if "has_more" not in told:
        _adapter(list[Model]).validate_python(told["data"], strict=True)
        return
    assert set(told) == {"data", "has_more", "first_id", "last_id"}
    for each in told["data"]:
        validated = _adapter(ModelInfo).validate_json(orjson.dumps(each), strict=True)
        assert not list(_unknown(validated)), each
