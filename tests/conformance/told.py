"""What a client of each dialect understands of an answer: its shape is checked against the SDK's types, strictly."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import orjson
from anthropic.types import Message, RawMessageStreamEvent
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from apps.gateway.dialects.messages.blocks import folded as folded_blocks
from tests.upstream.scripted import folded as folded_chat


class Told(NamedTuple):
    """An answer, whichever dialect it came in."""

    text: str = ""
    thought: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    reason: str = ""
    """`stop`, `length`, `tool_calls`, `content_filter`, or `error`."""
    tokens: tuple[int, int] = (0, 0)
    """All input and all output."""
    cost: float = 0.0


SHAPES: Final[dict[str, tuple[Any, Any]]] = {
    "chat": (ChatCompletion, ChatCompletionChunk),
    "completions": (Completion, Completion),
    "messages": (Message, RawMessageStreamEvent),
    "responses": (Response, ResponseStreamEvent),
}
"""Dialect of callers -> type of an answer, and of an event of a stream."""


@cache
def _shape(caller: str, *, is_event: bool) -> TypeAdapter[Any]:
    return TypeAdapter(SHAPES[caller][is_event])


def told_whole(caller: str, body: bytes) -> Told:
    """An answer in one piece. Raises ValidationError for what the SDK would not take."""
    answer = orjson.loads(body)
    _shape(caller, is_event=False).validate_python(answer, strict=True)
    return _READ[caller](answer)


def told_streamed(caller: str, body: bytes) -> Told:
    """The same as a stream, which may end with an error: that is the last event, and nothing looks like an end."""
    events = [block.rpartition(b"data: ")[2] for block in body.split(b"\n\n") if block]
    read = [event.decode() if event == b"[DONE]" else orjson.loads(event) for event in events]
    last = read[-1]
    is_error = isinstance(last, dict) and ("error" in last or last.get("type") == "response.failed")
    for event in read:
        if event != "[DONE]" and not (isinstance(event, dict) and ("error" in event or event.get("type") == "ping")):
            shown = _with_reason(event) if caller == "completions" else event
            _shape(caller, is_event=True).validate_python(shown, strict=True)
    said = _FOLDED[caller](read[:-1] if is_error and caller != "responses" else read, is_error)
    if not is_error:
        return _READ[caller](said)
    return Told(text=said, reason="error")


def _with_reason(chunk: Any) -> Any:
    """Only the last chunk has a reason, which the SDK's type demands of all."""
    return {
        **chunk,
        "choices": [{**each, "finish_reason": each["finish_reason"] or "stop"} for each in chunk["choices"]],
    }


def _fold_chat(events: list[Any], is_error: bool) -> Any:
    assert is_error or events[-1] == "[DONE]"
    choices = folded_chat(events)
    if is_error:
        return (choices[0]["message"]["content"] if choices else "") or ""
    assert events[-2]["choices"] == [] and "usage" not in events[-3]
    return {"choices": list(choices.values()), "usage": events[-2]["usage"]}


def _fold_completions(events: list[Any], is_error: bool) -> Any:
    assert is_error or events[-1] == "[DONE]"
    choices = [choice for event in events if isinstance(event, dict) for choice in event["choices"]]
    text = "".join(choice["text"] for choice in choices)
    if is_error:
        return text
    return {"choices": [{**choices[-1], "text": text}], "usage": events[-2]["usage"]}


def _fold_messages(events: list[Any], is_error: bool) -> Any:
    content = folded_blocks([event for event in events if "index" in event])
    if is_error:
        return "".join(block["text"] for block in content if block["type"] == "text")
    assert events[0]["type"] == "message_start" and events[-1] == {"type": "message_stop"}
    return {"content": content, **events[-2]["delta"], "usage": events[-2]["usage"]}


def _fold_responses(events: list[Any], is_error: bool) -> Any:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    if is_error:
        assert events[-1]["response"]["error"]["message"]
        return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    return events[-1]["response"]


def _chat(answer: Any) -> Told:
    (choice,) = answer["choices"]
    message, calls = choice["message"], choice["message"].get("tool_calls") or ()
    return Told(
        message.get("content") or "", message.get("reasoning") or message.get("reasoning_content") or "",
        tuple((call["function"]["name"], orjson.loads(call["function"]["arguments"])) for call in calls),
        choice["finish_reason"], *_openai_usage(answer["usage"]),
    )  # fmt: skip


def _completions(answer: Any) -> Told:
    (choice,) = answer["choices"]
    return Told(choice["text"], "", (), choice["finish_reason"], *_openai_usage(answer["usage"]))


def _openai_usage(usage: Any) -> tuple[tuple[int, int], float]:
    return (usage["prompt_tokens"], usage["completion_tokens"]), usage["cost"]


_MESSAGES_REASONS: Final = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "refusal": "content_filter",
}  # fmt: skip


def _messages(answer: Any) -> Told:
    content, usage = answer["content"], answer["usage"]
    read = sum(usage[name] for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"))
    return Told(
        "".join(block["text"] for block in content if block["type"] == "text"),
        "".join(block["thinking"] for block in content if block["type"] == "thinking"),
        tuple((block["name"], block["input"]) for block in content if block["type"] == "tool_use"),
        _MESSAGES_REASONS[answer["stop_reason"]], (read, usage["output_tokens"]), usage["cost"],
    )  # fmt: skip


def _responses(answer: Any) -> Told:
    items, usage = answer["output"], answer["usage"]
    calls = tuple((item["name"], orjson.loads(item["arguments"])) for item in items if item["type"] == "function_call")
    cut = {"max_output_tokens": "length", "content_filter": "content_filter"}
    details = answer["incomplete_details"]
    reason = cut[details["reason"]] if details else "tool_calls" if calls else "stop"
    assert answer["status"] == ("incomplete" if details else "completed")
    thought = "".join(part["text"] for item in items if item["type"] == "reasoning" for part in item["summary"])
    tokens = (usage["input_tokens"], usage["output_tokens"])
    return Told(answer["output_text"], thought, calls, reason, tokens, usage["cost"])


_READ: Final[dict[str, Callable[[Any], Told]]] = {
    "chat": _chat, "completions": _completions, "messages": _messages, "responses": _responses,
}  # fmt: skip
_FOLDED: Final[dict[str, Callable[[list[Any], bool], Any]]] = {
    "chat": _fold_chat, "completions": _fold_completions, "messages": _fold_messages, "responses": _fold_responses,
}  # fmt: skip
