"""Answers of any upstream in the form of the Responses API, whole and as a stream. Pure.

Source: `Response` and `ResponseStreamEvent` in the reference of OpenAI's Responses API.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from apps.gateway.dialects.chat_pieces import PlainPieces
from apps.gateway.dialects.put_together import Event, Frame
from apps.gateway.dialects.responses.output import Output
from apps.gateway.dialects.responses.request import ResponsesRequest
from apps.gateway.dialects.responses.tools import strictness
from apps.gateway.dialects.sse import event_data, events
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.usage.contracts import TokenCounts

Usage = Callable[[], dict[str, Any]]
_DONE: Final = b"[DONE]"
_CODES: Final = {
    "rate_limit_error": "rate_limit_exceeded",
    "insufficient_quota": "rate_limit_exceeded",
    "service_unavailable_error": "rate_limit_exceeded",
    "invalid_request_error": "invalid_prompt",
}
"""Types of our errors -> the codes that an answer which failed can have; all others are `server_error`."""


def response_id(request_id: str) -> str:
    """The id of an answer: the request's, in the form that clients of Responses know."""
    return f"resp_{request_id.partition('_')[2]}"


def output_of(asked: ResponsesRequest, request_id: str) -> Output:
    """What makes the items of the answer to this request."""
    return Output(
        request_id.partition("_")[2],
        shows_thoughts=asked.shows_thoughts,
        wants_encrypted=asked.wants_encrypted,
        custom_tools=asked.custom_tools,
        is_stored=asked.is_kept,
        members=asked.members,
    )


def responses_usage(tokens: TokenCounts) -> dict[str, Any]:
    """The buckets as OpenAI's `ResponseUsage`."""
    return {
        "input_tokens": tokens.all_input,
        "input_tokens_details": {
            "cached_tokens": tokens.cache_read,
            "cache_write_tokens": tokens.cache_write + tokens.cache_write_1h,
        },
        "output_tokens": tokens.all_output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.all_input + tokens.all_output,
    }


def begun_response(asked: ResponsesRequest, *, request_id: str, model: str) -> dict[str, Any]:
    """The answer before anything came: its settings are those of the request."""
    told = asked.told
    reasoning, text = told.get("reasoning") or {}, told.get("text") or {}
    return {
        "id": response_id(request_id),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": told.get("instructions"),
        "max_output_tokens": told.get("max_output_tokens"),
        "metadata": told.get("metadata") or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": told.get("parallel_tool_calls") is not False,
        "previous_response_id": told.get("previous_response_id"),
        "prompt_cache_key": told.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": told.get("safety_identifier"),
        "service_tier": "default",
        "store": asked.is_stored,
        "temperature": told.get("temperature"),
        "text": {"format": _format(text.get("format"))} | _if_given("verbosity", text.get("verbosity")),
        "tool_choice": told.get("tool_choice") or "auto",
        "tools": [_tool(tool) for tool in told.get("tools") or ()],
        "top_logprobs": told.get("top_logprobs") or 0,
        "top_p": told.get("top_p"),
        "truncation": "disabled",
        "usage": None,
        "user": told.get("user"),
        **_conversation(told.get("conversation")),
    }


def not_kept(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer that could not be stored, nor added to its conversation."""
    return {**answer, "store": False, **({"conversation": None} if "conversation" in answer else {})}


def ended(begun: dict[str, Any], output: Output, usage: dict[str, Any], *, service_tier: str) -> dict[str, Any]:
    """The answer when it is over."""
    reason = output.incomplete
    return {
        **begun,
        "status": "incomplete" if reason else "completed",
        "completed_at": None if reason else int(time.time()),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output.items,
        "output_text": output.text,
        "service_tier": service_tier or "default",
        "usage": usage,
    }


def failed_response(begun: dict[str, Any], error: dict[str, Any], output: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer that broke off by one of our errors, with the items that were done."""
    code = _CODES.get(str(error.get("type")), "server_error")
    told = {"code": code, "message": error.get("message"), "type": error.get("code")}
    return {**begun, "status": "failed", "error": told, "output": output}


def _format(wanted: Any) -> dict[str, Any]:
    if not isinstance(wanted, dict):
        return {"type": "text"}
    return {"name": "answer", **wanted} if wanted.get("type") == "json_schema" else wanted


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as it was given, with the fields that OpenAI always tells."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, **tool, "parameters": tool.get("parameters"), "strict": strictness(tool)}


def _conversation(named: Any) -> dict[str, Any]:
    return {} if named is None else {"conversation": {"id": named["id"] if isinstance(named, dict) else named}}


def _if_given(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


class ResponsesStream:
    """Our own stream of Chat Completions as one of Responses. It ends with `response.completed`, `.incomplete` or
    `.failed`, and nothing follows."""

    def __init__(self, begun: dict[str, Any], output: Output, *, usage: Usage, service_tier: Callable[[], str]) -> None:
        """`usage` and `service_tier` tell what the record has, once the answer is whole."""
        self._begun = begun
        self._output = output
        self._usage = usage
        self._service_tier = service_tier
        self._number = 0
        self._plain = PlainPieces()
        self._is_begun = False
        self._is_over = False
        self.answer: dict[str, Any] | None = None
        """The whole answer, when it is over; one that failed too."""
        self.last = b""
        """The event that told it."""

    def feed(self, block: bytes) -> bytes:
        """The events that stand for these whole ones; b"" where nothing is to be said."""
        plain = self._plain
        if not self._is_over and plain.read(block) and (frame := self._output.go_on(plain)) is not None:
            return self._go_on(frame, plain.literals)
        return b"".join([self._event(event) for event in events(block)])

    def _event(self, event: bytes) -> bytes:
        payload = event_data(event)
        if self._is_over or not payload:
            return b""
        begun = b"" if self._is_begun else self._begin()
        if payload == _DONE:
            return begun + self._end()
        chunk = read_json(payload)
        if "error" in chunk:
            return begun + self._fail(chunk["error"])
        told = [
            made
            for choice in chunk.get("choices") or ()
            for made in self._output.add(choice, choice.get("delta") or {})
        ]
        return begun + b"".join(map(self._written, told))

    def _go_on(self, frame: Frame, literals: list[bytes]) -> bytes:
        (before, after), told = frame, b""
        for literal in literals:
            told += before + literal + after + b"%d}\n\n" % self._number
            self._number += 1
        return told

    def _begin(self) -> bytes:
        self._is_begun = True
        kinds = ("response.created", "response.in_progress")
        return b"".join([self._written({"type": kind, "response": self._begun}) for kind in kinds])

    def _end(self) -> bytes:
        self._is_over = True
        told = b"".join(map(self._written, self._output.end()))
        self.answer = ended(self._begun, self._output, self._usage(), service_tier=self._service_tier())
        return told + self._tell_end(self.answer)

    def not_stored(self) -> bytes:
        """The last event in place of `last`, for an answer that could not be stored."""
        self._number -= 1
        return self._tell_end(not_kept(self.answer or self._begun))

    def _tell_end(self, answer: dict[str, Any]) -> bytes:
        self.answer = answer
        self.last = self._written({"type": f"response.{answer['status']}", "response": answer})
        return self.last

    def _fail(self, error: dict[str, Any]) -> bytes:
        self._is_over = True
        return self._tell_end(failed_response(self._begun, error, self._output.items))

    def _written(self, event: Event) -> bytes:
        kind, number = event["type"], self._number
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), write_json({**event, "sequence_number": number}))


def whole_output(answer: dict[str, Any], output: Output) -> None:
    """Let the items be those of a chat completion."""
    output.add_whole(answer["choices"][0])
    output.end()
