"""What upstreams of each dialect answer, feature by feature: the rows of the last table of docs/conformance.md.

The shapes are those of the modules beside the tests of each dialect, which name their sources."""

from typing import Any, Final, NamedTuple

import orjson

from tests.conformance.said import OPENAI_USAGE
from tests.upstream import anthropic_shapes, bedrock_shapes, gemini_shapes, responses_shapes
from tests.upstream.eventstream import exception
from tests.upstream.scripted import UPSTREAM_MODEL, sse


class Script(NamedTuple):
    """One answer of an upstream."""

    pieces: list[bytes]
    status: int = 200
    cut: bool = False


class Answers(NamedTuple):
    """All answers of one dialect. `rich` has thoughts, text, a call with arguments and one without."""

    rich: tuple[Script, Script]
    """In one piece, and as a stream."""
    cut_short: Script
    filtered: Script
    torn: Script
    failing: Script
    """It has begun, and then says that it failed."""
    too_long: Script
    prompt_filtered: Script | None
    overloaded: Script
    unauthorized: Script


def _json(told: object, status: int = 200) -> Script:
    return Script([told if isinstance(told, bytes) else orjson.dumps(told)], status)


def _completion(finish: str, **said: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Well", **said}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return {
        "id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": UPSTREAM_MODEL, "choices": [choice],
        "usage": OPENAI_USAGE,
    }  # fmt: skip


def _chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": UPSTREAM_MODEL}
    return {**head, "choices": [choice]}


_CALLS: Final = [
    {"id": "t_1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}},
    {"id": "t_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
]
_USAGE_CHUNK: Final = {**_chunk(), "choices": [], "usage": OPENAI_USAGE}
_BEGUN: Final = [_chunk(role="assistant", content=""), _chunk(content="Well")]


def _openai(filtered_prompt: object) -> Answers:
    error = {"message": "no", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
    calls = [_chunk(tool_calls=[{"index": index, **call}]) for index, call in enumerate(_CALLS)]
    return Answers(
        rich=(
            _json(_completion("tool_calls", reasoning_content="Let me think.", tool_calls=_CALLS)),
            Script(
                sse(
                    _chunk(role="assistant", content=""),
                    _chunk(reasoning_content="Let me think."),
                    _chunk(content="Well"),
                    *calls,
                    _chunk("tool_calls"),
                    _USAGE_CHUNK,
                    "[DONE]",
                )
            ),
        ),
        cut_short=_json(_completion("length")),
        filtered=_json(_completion("content_filter")),
        torn=Script(sse(*_BEGUN), cut=True),
        failing=Script(sse(*_BEGUN, {"error": {"message": "no", "type": "server_error", "code": None}})),
        too_long=_json({"error": error}, 400),
        prompt_filtered=_json(filtered_prompt, 400) if filtered_prompt else None,
        overloaded=_json({"error": {"message": "slow down"}}, 429),
        unauthorized=_json({"error": {"message": "no"}}, 401),
    )


def _anthropic() -> Answers:
    shapes = anthropic_shapes
    usage = {**shapes.USAGE, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}
    usage["cache_creation"] = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1}
    content = (shapes.THOUGHT, shapes.text("Well"), shapes.CALL, shapes.BARE_CALL)
    failed = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    begun = shapes.streamed(shapes.text("Well"))

    def refusal(kind: str, told: str, status: int) -> Script:
        return _json({"type": "error", "error": {"type": kind, "message": told}}, status)

    return Answers(
        rich=(
            _json(shapes.message(*content, stop_reason="tool_use", usage=usage)),
            Script(shapes.streamed(*content, stop_reason="tool_use", opened=usage)),
        ),
        cut_short=_json(shapes.message(shapes.text("Well"), stop_reason="max_tokens")),
        filtered=_json(shapes.message(shapes.text("Well"), stop_reason="refusal")),
        torn=Script(begun[:-3], cut=True),
        failing=Script([*begun[:-3], *shapes.sse_events(failed)]),
        too_long=refusal("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", 400),
        prompt_filtered=None,
        overloaded=refusal("overloaded_error", "Overloaded", 529),
        unauthorized=refusal("authentication_error", "no", 401),
    )


def _responses() -> Answers:
    shapes = responses_shapes
    content = (shapes.THOUGHT, shapes.text("Well"), shapes.CALL, shapes.BARE_CALL)
    begun = shapes.streamed(shapes.text("Well"))[:6]
    failed = shapes.response(status="failed", usage=None, error={"code": "server_error", "message": "no"})

    def refusal(told: dict[str, Any], status: int) -> Script:
        return _json({"error": {"message": "no", "type": "invalid_request_error", "param": None, **told}}, status)

    return Answers(
        rich=(_json(shapes.response(*content)), Script(shapes.streamed(*content))),
        cut_short=_json(shapes.incomplete("max_output_tokens", shapes.text("Well"))),
        filtered=_json(shapes.incomplete("content_filter", shapes.text("Well"))),
        torn=Script(begun, cut=True),
        failing=Script([*begun, *shapes.sse_events({"type": "response.failed", "response": failed})]),
        too_long=refusal({"param": "input", "code": "context_length_exceeded"}, 400),
        prompt_filtered=None,
        overloaded=refusal({"code": "rate_limit_exceeded"}, 429),
        unauthorized=refusal({"code": "invalid_api_key"}, 401),
    )


def _gemini() -> Answers:
    shapes = gemini_shapes

    def refusal(code: int, status: str, told: str) -> Script:
        return _json({"error": {"code": code, "message": told, "status": status}}, code)

    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    return Answers(
        rich=(_json(shapes.WHOLE), Script(list(shapes.STREAM))),
        cut_short=_json(shapes.response({"text": "Well"}, finish="MAX_TOKENS", usage=shapes.USAGE)),
        filtered=_json(shapes.response({"text": "Well"}, finish="SAFETY", usage=shapes.USAGE)),
        torn=Script(list(shapes.STREAM[:3]), cut=True),
        failing=Script([*shapes.STREAM[:3], *sse(shapes.response(finish="MALFORMED_FUNCTION_CALL"))]),
        too_long=refusal(
            400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."
        ),
        prompt_filtered=_json(blocked),
        overloaded=refusal(429, "RESOURCE_EXHAUSTED", "slow down"),
        unauthorized=refusal(403, "PERMISSION_DENIED", "no"),
    )


def _bedrock() -> Answers:
    shapes = bedrock_shapes

    def ended(reason: str) -> Script:
        said = {"message": {"role": "assistant", "content": [{"text": "Well"}]}}
        return _json({"output": said, "stopReason": reason, "usage": shapes.USAGE})

    begun = list(shapes.STREAM[:8])
    return Answers(
        rich=(_json(shapes.WHOLE), Script(list(shapes.STREAM))),
        cut_short=ended("max_tokens"),
        filtered=ended("guardrail_intervened"),
        torn=Script(begun, cut=True),
        failing=Script([*begun, exception("modelStreamErrorException", "no")]),
        too_long=_json({"message": "Input is too long for requested model."}, 400),
        prompt_filtered=None,
        overloaded=_json({"message": "Too many requests, please wait before trying again."}, 429),
        unauthorized=_json({"message": "The security token included in the request is invalid."}, 403),
    )


_AZURE_FILTER: Final = {
    "error": {"message": "filtered", "code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
}
ANSWERS: Final = {
    "openai": _openai({"error": {"message": "no", "type": "invalid_request_error", "code": "content_filter"}}),
    "openai-responses": _responses(),
    "azure": _openai(_AZURE_FILTER),
    "anthropic": _anthropic(),
    "gemini": _gemini(),
    "bedrock": _bedrock(),
}
"""Dialect -> what its upstreams answer."""
PLAIN: Final = {
    "openai": _json(_completion("stop")),
    "openai-responses": _json(responses_shapes.response(responses_shapes.text("Well"))),
    "azure": _json(_completion("stop")),
    "anthropic": _json(anthropic_shapes.message(anthropic_shapes.text("Well"))),
    "gemini": _json(gemini_shapes.response({"text": "Well"}, finish="STOP", usage=gemini_shapes.USAGE)),
    "bedrock": _json(
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "Well"}]}},
            "stopReason": "end_turn",
            "usage": bedrock_shapes.USAGE,
        }
    ),
}
"""Dialect -> a short answer in one piece."""
