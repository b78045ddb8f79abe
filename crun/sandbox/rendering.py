"""Answers as bytes: the SSE events of a stream, from pre-rendered halves, and the JSON of a whole one."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from crun.sandbox.answers import Answer, Usage, count_words
from crun.sandbox.steps import Act, Step

FINGERPRINT = "fp_sandbox"
DONE = b"data: [DONE]\n\n"
# What a chunk that is not the usage chunk says about usage when usage was asked for.
NULL_USAGE = b',"usage":null}'

# Which usage objects a stream ends with (a whole answer takes the last); no object: the field is left out.
Report = Callable[[Usage], Sequence[Any]]
STREAM_ERROR = {
    "message": "The sandbox failed in the middle of its answer.",
    "type": "server_error",
    "code": None,
}
_LATE = b'data: {"choices":[{"index":0,"delta":{"content":"late"},"finish_reason":null}]}\n\n'


def usage_object(usage: Usage) -> dict[str, Any]:
    """`usage` in OpenAI's shape."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def true_report(usage: Usage) -> Sequence[Any]:
    """The report of a vendor that tells the truth, once."""
    return (usage_object(usage),)


def _message(answer: Answer) -> dict[str, Any]:
    if answer.tool is None:
        return {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    function = {"name": answer.tool, "arguments": answer.text}
    call = {"id": new_id("call_"), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [call]}


def new_id(prefix: str) -> str:
    """An id that no other answer has."""
    return prefix + secrets.token_hex(12)


def spoken_tokens(usage: Usage) -> int:
    """The completion tokens that can be seen in an answer."""
    return usage.completion_tokens - usage.reasoning_tokens


class ChatWriter:
    """Writes one answer as Chat Completions. All but the changing middle of an event is rendered once, here."""

    late = (_LATE, DONE)

    def __init__(self, model: str, created: int, *, includes_usage: bool, service_tier: str = "default") -> None:
        self._fields = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "service_tier": service_tier,
            "system_fingerprint": FINGERPRINT,
        }
        self._start = b"data: " + orjson.dumps(self._fields)[:-1]
        self._end = (NULL_USAGE if includes_usage else b"}") + b"\n\n"
        self._includes_usage = includes_usage

    def usage(self, told: Any) -> Any:
        """A report as this dialect tells it."""
        return told

    def failure(self, sent: int) -> bytes:
        """The event that tells of an error, after `sent` others."""
        return b"data: " + orjson.dumps({"error": STREAM_ERROR}) + b"\n\n"

    def whole(self, answer: Answer, report: Report) -> Step:
        """The body of an answer that is not streamed, as one step with all its tokens."""
        choices = [
            {"index": index, "message": _message(answer), "logprobs": None, "finish_reason": answer.finish_reason}
            for index in range(answer.choices)
        ]
        document = {**self._fields, "object": "chat.completion", "choices": choices}
        reported = report(answer.usage)
        if reported:
            document["usage"] = reported[-1]
        said = bool(reported) and reported[-1] is not None
        return Step(orjson.dumps(document), tokens=spoken_tokens(answer.usage), carries_usage=said)

    def steps(self, answer: Answer, report: Report, *, delay_s: float, chunk_delay_s: float) -> Iterator[Step]:
        """Role chunks, then the pieces round the choices, finish chunks, usage when asked for, `[DONE]`."""
        indexes = range(answer.choices)
        opening = {"role": "assistant", "content": "" if answer.tool is None else None, "refusal": None}
        for index in indexes:
            yield Step(self._chunk(index, opening), pause_s=delay_s if index == 0 else 0.0)
        if answer.tool is not None:
            for index in indexes:
                yield Step(self._chunk(index, _call_opening(answer.tool)), Act.CHUNK, 1, chunk_delay_s)
        halves = [self._piece_halves(index, is_tool=answer.tool is not None) for index in indexes]
        for piece in answer.pieces:
            text, tokens = orjson.dumps(piece), count_words(piece)
            for before, after in halves:
                yield Step(before + text + after, Act.CHUNK, tokens, chunk_delay_s)
        for index in indexes:
            yield Step(self._chunk(index, {}, answer.finish_reason))
        if self._includes_usage:
            for reported in report(answer.usage):
                yield Step(self._usage(reported), carries_usage=reported is not None)
        yield Step(DONE, Act.END)

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._start + b',"choices":[' + orjson.dumps(choice) + b"]" + self._end

    def _usage(self, reported: Any) -> bytes:
        return self._start + b',"choices":[],"usage":' + orjson.dumps(reported) + b"}\n\n"

    def _piece_halves(self, index: int, *, is_tool: bool) -> tuple[bytes, bytes]:
        """What stands before and after the JSON string of a piece."""
        opening, closing = b'{"content":', b"}"
        if is_tool:
            opening, closing = b'{"tool_calls":[{"index":0,"function":{"arguments":', b"}}]}"
        before = self._start + b',"choices":[{"index":%d,"delta":' % index + opening
        return before, closing + b',"logprobs":null,"finish_reason":null}]' + self._end


def _call_opening(name: str) -> dict[str, Any]:
    call = {
        "index": 0,
        "id": new_id("call_"),
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }
    return {"tool_calls": [call]}
