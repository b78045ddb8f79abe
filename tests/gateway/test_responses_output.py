"""Pieces of answers as output items of the Responses API: any split, one answer, and back into the next request."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from apps.gateway.dialects.responses.answer import (
    ResponsesStream,
    begun_response,
    ended,
    output_of,
    responses_usage,
    whole_output,
)
from apps.gateway.dialects.responses.items import Conversation
from apps.gateway.dialects.responses.request import ResponsesRequest, parse_responses
from apps.usage.contracts import TokenCounts
from tests.gateway.test_messages_blocks import EXTRA, FOREIGN, SIGNED, call, messages, pieces_of, wire

REQUEST = "req_0123456789abcdef0123456789abcdef"
USAGE = responses_usage(TokenCounts(input=3, output=4))
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WHOLE: TypeAdapter[Any] = TypeAdapter(Response)


def asked(**fields: Any) -> ResponsesRequest:
    return parse_responses(orjson.dumps({"model": "m", "input": "x", **fields}))


SHOWN = asked(reasoning={"effort": "low", "summary": "auto"}, include=["reasoning.encrypted_content"])


def stream(request: ResponsesRequest) -> ResponsesStream:
    begun = begun_response(request, request_id=REQUEST, model="m") | {"created_at": 1}
    return ResponsesStream(begun, output_of(request, REQUEST), usage=lambda: USAGE, service_tier=lambda: "")


def events_of(said: bytes) -> list[Any]:
    """The events, after each was looked at."""
    events = [orjson.loads(block.partition(b"\ndata: ")[2]) for block in said.split(b"\n\n") if block]
    for number, event in enumerate(events):
        EVENT.validate_python(event, strict=True)
        assert event["sequence_number"] == number
    return events


def items_of(*deltas: dict[str, Any], request: ResponsesRequest = SHOWN, reason: str = "stop") -> list[Any]:
    """The items that a stream of these pieces ends with."""
    items: list[Any] = events_of(stream(request).feed(wire(list(deltas), reason)))[-1]["response"]["output"]
    return items


def folded(events: list[Any]) -> list[dict[str, Any]]:
    """What the events say piece by piece, as items."""
    items: list[dict[str, Any]] = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
        elif kind in ("content_part.added", "reasoning_summary_part.added"):
            parts = items[event["output_index"]]["content" if kind[0] == "c" else "summary"]
            assert event.get("content_index", event.get("summary_index")) == len(parts)
            parts.append(event["part"])
        elif kind == "output_text.delta":
            items[event["output_index"]]["content"][event["content_index"]]["text"] += event["delta"]
        elif kind == "reasoning_summary_text.delta":
            items[event["output_index"]]["summary"][0]["text"] += event["delta"]
        elif kind == "function_call_arguments.delta":
            items[event["output_index"]]["arguments"] += event["delta"]
        elif kind == "output_item.done":
            done, open_item = event["item"], items[event["output_index"]]
            sealed = {name: done[name] for name in ("status", "encrypted_content") if name in done}
            assert open_item | sealed == done
            items[event["output_index"]] = done
    return items


def test_a_thought_then_text_then_a_call() -> None:
    reasoning, said, made = items_of(
        {"reasoning_content": "Hm."}, {"reasoning_content": " Well."}, {"reasoning_details": [SIGNED]},
        {"content": "I "}, {"content": "look."}, call(0, id="call_1", name="weather"), call(0, '{"town":"Ulm"}'),
    )  # fmt: skip
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hm. Well."}]
    assert said["content"] == [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]
    assert (made["type"], made["call_id"], made["arguments"]) == ("function_call", "call_1", '{"town":"Ulm"}')
    assert len({item["id"] for item in (reasoning, said, made)}) == 3


def test_thoughts_are_told_to_who_asks_only_and_never_as_text() -> None:
    deltas = ({"reasoning_content": "Hm."}, {"reasoning_details": [SIGNED]}, {"content": "x"})
    reasoning, said = items_of(*deltas, request=asked())
    assert reasoning == {"type": "reasoning", "id": reasoning["id"], "summary": []}
    assert said["content"][0]["text"] == "x"


def test_a_refusal_is_a_part_of_its_own() -> None:
    (item,) = items_of({"content": "Well."}, {"refusal": "I "}, {"refusal": "will not."})
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]
    assert item["content"][1]["refusal"] == "I will not."


def test_a_call_without_arguments_has_an_empty_object() -> None:
    (item,) = items_of(call(0, id="x", name="now"))
    assert item["arguments"] == "{}"


def test_what_is_cut_off_is_incomplete() -> None:
    (item,) = items_of(call(0, '{"town":"U', id="x", name="weather"), reason="length")
    assert (item["status"], item["arguments"]) == ("incomplete", '{"town":"U')
    events = events_of(stream(SHOWN).feed(wire([{"content": "x"}], "content_filter")))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}


def test_log_probabilities() -> None:
    token = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": [{"token": "x", "logprob": -0.5}]}
    output = output_of(SHOWN, REQUEST)
    output.add({"logprobs": {"content": [token]}}, {"content": "x"})
    output.end()
    top = {"token": "x", "logprob": -0.5, "bytes": [120]}
    assert output.items[0]["content"][0]["logprobs"] == [token | {"top_logprobs": [top]}]


def back(items: list[Any]) -> list[dict[str, Any]]:
    """The messages that these items are in the next request."""
    conversation = Conversation([])
    for item in items:
        conversation.add(item, "input[0]")
    return conversation.end()


def test_what_vendors_want_back_goes_there_and_back() -> None:
    for detail in (SIGNED, FOREIGN):
        items = items_of({"reasoning_content": "Hm. Well."}, {"reasoning_details": [detail]},
                         call(0, "{}", id="x", name="f", extra_content=EXTRA))  # fmt: skip
        (message,) = back(items)
        assert message["reasoning_details"] == [detail]
        assert message["tool_calls"][0]["extra_content"] == EXTRA
    (message,) = back(items_of({"reasoning_content": "Hm."}, {"content": "x"}))
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "x")


def test_input_items() -> None:
    lost: list[str] = []
    conversation = Conversation(lost)
    items: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
            {"type": "input_file", "file_url": "https://x/y.pdf"}]},
        {"type": "message", "role": "assistant", "id": "m", "status": "completed",
         "content": [{"type": "output_text", "text": "a", "annotations": []}, {"type": "refusal", "refusal": "no"}]},
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "***"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "done"}]},
        {"type": "web_search_call", "id": "w", "status": "completed"},
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "gAAAA"},
        {"role": "assistant", "content": "b"},
    ]  # fmt: skip
    for index, item in enumerate(items):
        conversation.add(item, f"input[{index}]")
    assert conversation.end() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
            {"type": "file", "file": {"file_data": "https://x/y.pdf", "filename": "document.pdf"}}]},
        {"role": "assistant", "content": "a", "refusal": "no", "tool_calls": [
            {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "***"}}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "done"}]},
        {"role": "assistant", "content": "b", "reasoning_details": [
            {"type": "reasoning.encrypted", "data": "gAAAA", "format": "openai-responses", "index": 0}]},
    ]  # fmt: skip
    assert lost == ["input.web_search_call", "input.reasoning.encrypted_content"]


@given(messages(), st.integers(1, 5), st.sampled_from(["stop", "length", "tool_calls"]))
def test_a_stream_put_together_is_the_whole_answer(message: dict[str, Any], size: int, reason: str) -> None:
    output = output_of(SHOWN, REQUEST)
    whole_output({"choices": [{"index": 0, "message": message, "finish_reason": reason}]}, output)
    begun = begun_response(SHOWN, request_id=REQUEST, model="m") | {"created_at": 1}
    whole = ended(begun, output, USAGE, service_tier="")
    WHOLE.validate_python(whole, strict=True)
    events = events_of(stream(SHOWN).feed(wire(pieces_of(message, size), reason)))
    final = events[-1]["response"]
    assert final["output"] == folded(events) == whole["output"]
    assert (final["status"], final["output_text"]) == (whole["status"], message["content"])
    assert events[-1]["type"] == f"response.{whole['status']}"


@given(messages(), st.integers(1, 5))
def test_the_next_turn_brings_back_what_was_said(message: dict[str, Any], size: int) -> None:
    made = back(items_of(*pieces_of(message, size)))
    said = made[0] if made else {"content": ""}
    assert len(made) <= 1 and (said["content"] or "") == message["content"]
    assert [(each["id"], orjson.loads(each["function"]["arguments"])) for each in said.get("tool_calls", ())] == [
        (each["id"], orjson.loads(each["function"]["arguments"])) for each in message.get("tool_calls", ())
    ]
    if "reasoning_details" in message:
        assert said["reasoning_details"] == message["reasoning_details"]
    else:
        assert said.get("reasoning_content", "") == message.get("reasoning_content", "")


def test_what_is_said_after_a_call_is_an_item_of_its_own() -> None:
    said = [call(0, '{"a":1}', name="f", id="call_1"), {"content": "So"}, call(1, name="g", id="call_2")]
    items = items_of(*said, {"reasoning": "Hm"}, {"content": "end"})
    assert [item["type"] for item in items] == ["function_call", "message", "function_call", "reasoning", "message"]
    assert [item["arguments"] for item in items if item["type"] == "function_call"] == ['{"a":1}', "{}"]


def test_what_is_said_amid_a_call_waits_until_that_is_whole() -> None:
    said = [call(0, '{"a":', name="f", id="call_1"), {"content": "S"}, {"content": "o"}]
    for rest, arguments in ([call(0, "1}"), {"content": "", **call(0, " ")}], '{"a":1}'), ([], '{"a":'):
        called, message = items_of(*said, *rest)
        assert (called["arguments"], message["content"][0]["text"]) == (arguments, "So")
