"""Pieces of answers as all vendors say them, as content blocks of the Messages API: any split, one answer."""

from typing import Any

import orjson
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from apps.gateway.dialects.messages.answer import MessagesStream, whole_message
from apps.gateway.dialects.messages.blocks import Blocks, folded
from apps.gateway.dialects.messages.conversation import chat_messages

ID = "0123456789abcdef0123456789abcdef"
SIGNED = {
    "type": "reasoning.text",
    "text": "Hm. Well.",
    "signature": "sig",
    "format": "anthropic-claude-v1",
    "index": 0,
}
SEALED = {"type": "reasoning.encrypted", "data": "xyz", "format": "anthropic-claude-v1", "index": 1}
FOREIGN = {"type": "reasoning.encrypted", "data": "abc", "format": "openai-responses-v1", "index": 0}
EXTRA = {"google": {"thought_signature": "c2ln"}}
USAGE = {"input_tokens": 3, "output_tokens": 4}
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def blocks(*, shows_thoughts: bool = True, stops: tuple[str, ...] = ()) -> Blocks:
    return Blocks(ID, shows_thoughts=shows_thoughts, stops=stops)


def content_of(*deltas: dict[str, Any], shows_thoughts: bool = True) -> list[dict[str, Any]]:
    """The content that these pieces make, after their events were looked at."""
    made = blocks(shows_thoughts=shows_thoughts)
    events = [event for delta in deltas for event in made.add({}, delta)] + made.end()
    open_index = None
    for event in events:
        EVENT.validate_python(event, strict=True)
        if event["type"] == "content_block_start":
            assert open_index is None
            open_index = event["index"]
        assert event["index"] == open_index
        if event["type"] == "content_block_stop":
            open_index = None
    assert open_index is None
    starts = [event["index"] for event in events if event["type"] == "content_block_start"]
    assert starts == list(range(len(starts)))
    return folded(events)


def call(index: int | None, arguments: str = "", **more: Any) -> dict[str, Any]:
    """A delta with a piece of one call."""
    piece: dict[str, Any] = {"function": {"arguments": arguments}}
    if "name" in more:
        piece["function"]["name"] = more.pop("name")
    return {"tool_calls": [piece | more | ({} if index is None else {"index": index})]}


def tool(call_id: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def test_a_thought_then_text_then_a_call() -> None:
    content = content_of(
        {"role": "assistant", "content": ""}, {"reasoning_content": "Hm."}, {"reasoning_content": " Well."},
        {"reasoning_details": [SIGNED]}, {"reasoning_details": [SEALED]}, {"content": "I "}, {"content": "look."},
        call(0, id="call_1", name="weather"), call(0, '{"town":'), call(0, '"Ulm"}'),
    )  # fmt: skip
    assert content == [
        {"type": "thinking", "thinking": "Hm. Well.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "I look.", "citations": []},
        tool("call_1", "weather", {"town": "Ulm"}),
    ]


def test_a_signed_thought_is_told_even_to_who_did_not_ask_and_an_unsigned_one_is_not() -> None:
    said = ({"reasoning_content": "Hm. Well."}, {"reasoning_details": [SIGNED]}, {"content": "x"})
    assert [block["type"] for block in content_of(*said, shows_thoughts=False)] == ["thinking", "text"]
    assert [block["type"] for block in content_of(said[0], said[2], shows_thoughts=False)] == ["text"]
    assert content_of(said[0], said[2])[0] == {"type": "thinking", "thinking": "Hm. Well.", "signature": ""}


def test_calls_whose_pieces_are_mixed_come_one_after_the_other() -> None:
    content = content_of(
        call(0, '{"a"', id="x", name="f"), call(1, '{"b":', id="y", name="g"), call(0, ":1}"), call(1, "2}"),
    )  # fmt: skip
    assert content == [tool("x", "f", {"a": 1}), tool("y", "g", {"b": 2})]


def test_calls_without_index_with_one_index_for_all_with_their_id_in_every_piece_and_without_ids() -> None:
    wanted = [tool("x", "f", {"a": 1}), tool("y", "g", {"b": 2})]
    assert content_of(call(None, '{"a":1}', id="x", name="f"), call(None, '{"b":2}', id="y", name="g")) == wanted
    assert content_of(call(0, '{"a":1}', id="x", name="f"), call(0, '{"b":2}', id="y", name="g")) == wanted
    repeated = [call(0, piece, id="x", name="f") for piece in ('{"a"', ":1}")]
    assert content_of(*repeated, call(1, '{"b":2}', id="y", name="g")) == wanted
    (bare,) = content_of(call(0, "{}", name="f"))
    assert bare["id"] == f"toolu_{ID}0"


def test_a_call_without_arguments_does_not_vanish() -> None:
    for said in ("", "{}"):
        assert content_of({"content": "x"}, call(0, said, id="x", name="now"))[1] == tool("x", "now", {})


def test_arguments_that_are_no_object_are_told_under_anthropics_name_for_them() -> None:
    assert content_of(call(0, '{"town":"U', id="x", name="f"))[0]["input"] == {"INVALID_JSON": '{"town":"U'}
    assert content_of(call(0, "[1]", id="x", name="f"))[0]["input"] == {"INVALID_JSON": "[1]"}


def test_content_in_mistrals_form() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    content = content_of({"content": [thinking, {"type": "text", "text": "Yes."}]})
    assert [(block["type"], block.get("thinking") or block.get("text")) for block in content] == [
        ("thinking", "Hm."), ("text", "Yes."),
    ]  # fmt: skip


def test_what_other_vendors_want_back_goes_there_and_back() -> None:
    content = content_of(
        {"reasoning_content": "Hm."}, {"reasoning_details": [FOREIGN]},
        call(0, "{}", id="x", name="f", extra_content=EXTRA), shows_thoughts=False,
    )  # fmt: skip
    assert [block["type"] for block in content] == ["thinking", "tool_use"]
    (message,) = chat_messages(None, [{"role": "assistant", "content": content}], [])
    assert message["reasoning_details"] == [FOREIGN]
    assert message["tool_calls"][0]["extra_content"] == EXTRA


def test_what_was_signed_goes_there_and_back() -> None:
    content = content_of({"reasoning_details": [SIGNED, SEALED]}, {"content": "x"})
    (message,) = chat_messages(None, [{"role": "assistant", "content": content}], [])
    assert [{**entry, "index": index} for index, entry in enumerate(message["reasoning_details"])] == [SIGNED, SEALED]
    assert message["content"] == "x"


def test_reasons_to_stop() -> None:
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
    for theirs, ours in reasons.items():
        made = blocks()
        made.add({"finish_reason": theirs}, {"content": "x"})
        assert made.stop == {"stop_reason": ours, "stop_sequence": None}
    made = blocks(stops=("END",))
    made.add({"finish_reason": "stop", "stop_reason": "END"}, {})
    assert made.stop == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    made = blocks()
    made.add({"finish_reason": "stop"}, call(0, "{}", id="x", name="f"))
    assert made.stop["stop_reason"] == "tool_use"


TEXTS = st.text(alphabet=st.sampled_from('ab \n"\\{}é😀\u2028'), max_size=12)
ARGUMENTS = st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(-9, 9), st.none()), max_size=3)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A message of the assistant, as a whole answer has it."""
    calls = [
        {"index": place, "id": f"c{place}", "type": "function",
         "function": {"name": "f", "arguments": orjson.dumps(arguments).decode()}}
        for place, arguments in enumerate(draw(st.lists(ARGUMENTS, max_size=3)))
    ]  # fmt: skip
    message: dict[str, Any] = {"content": draw(TEXTS)}
    if thought := draw(TEXTS):
        message["reasoning_content"] = thought
        if draw(st.booleans()):
            message["reasoning_details"] = [{**SIGNED, "text": thought}]
    return message | ({"tool_calls": calls} if calls else {})


def pieces_of(message: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """The same as deltas of a stream."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content"):
        said = message.get(name) or ""
        deltas += [{name: said[start : start + size]} for start in range(0, len(said), size)]
        if name == "reasoning_content" and "reasoning_details" in message:
            deltas.append({"reasoning_details": message["reasoning_details"]})
    for made in message.get("tool_calls", ()):
        arguments = made["function"]["arguments"]
        deltas.append({"tool_calls": [{**made, "function": {"name": "f", "arguments": ""}}]})
        for start in range(0, len(arguments), size):
            function = {"arguments": arguments[start : start + size]}
            deltas.append({"tool_calls": [{"index": made["index"], "function": function}]})
    return deltas


def wire(deltas: list[dict[str, Any]], reason: str) -> bytes:
    """Our own stream of Chat Completions."""
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append({"choices": [], "usage": {}})
    return b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def stream(shows_thoughts: bool) -> MessagesStream:
    return MessagesStream(
        blocks(shows_thoughts=shows_thoughts), request_id=f"req_{ID}", model="m", opening=USAGE, usage=lambda: USAGE
    )


def events_of(told: bytes) -> list[Any]:
    return [orjson.loads(event.partition(b"\ndata: ")[2]) for event in told.split(b"\n\n") if event]


@given(messages(), st.integers(1, 5), st.booleans(), st.sampled_from(["stop", "length", "tool_calls"]))
def test_a_stream_put_together_is_the_whole_answer(
    message: dict[str, Any], size: int, shows_thoughts: bool, reason: str
) -> None:
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    whole = whole_message(answer, blocks(shows_thoughts=shows_thoughts), request_id=f"req_{ID}", model="m")
    TypeAdapter(Message).validate_python({**whole, "usage": USAGE}, strict=True)
    events = events_of(stream(shows_thoughts).feed(wire(pieces_of(message, size), reason)))
    assert folded([event for event in events if "index" in event]) == whole["content"]
    assert events[-2]["delta"] == {name: whole[name] for name in ("stop_reason", "stop_sequence")}
    assert events[-1] == {"type": "message_stop"}


@given(messages(), st.integers(1, 5))
def test_the_next_turn_brings_back_what_was_said(message: dict[str, Any], size: int) -> None:
    content = content_of(*pieces_of(message, size))
    (back,) = chat_messages(None, [{"role": "assistant", "content": content}], [])
    assert (back["content"] or "") == message["content"]
    assert [(each["id"], orjson.loads(each["function"]["arguments"])) for each in back.get("tool_calls", ())] == [
        (each["id"], orjson.loads(each["function"]["arguments"])) for each in message.get("tool_calls", ())
    ]
    if "reasoning_details" in message:
        assert back["reasoning_details"][0]["text"] == message["reasoning_content"]
    else:
        assert back.get("reasoning_content", "") == message.get("reasoning_content", "")


def test_what_is_said_after_a_call_is_a_block_of_its_own() -> None:
    said = [call(0, '{"a":1}', name="f", id="toolu_1"), {"content": "So"}, call(1, "{}", name="g", id="toolu_2")]
    content = content_of(*said, {"reasoning": "Hm"}, {"content": "end"})
    assert [block["type"] for block in content] == ["tool_use", "text", "tool_use", "thinking", "text"]
    assert [block["input"] for block in content if block["type"] == "tool_use"] == [{"a": 1}, {}]


def test_what_is_said_amid_a_call_waits_until_that_is_whole() -> None:
    said = [call(0, '{"a":', name="f", id="toolu_1"), {"content": "S"}, {"content": "o"}]
    for rest, arguments in (
        ([call(0, "1}"), {"content": None, **call(0, " ")}], {"a": 1}),
        ([], {"INVALID_JSON": '{"a":'}),
    ):
        tool, text = content_of(*said, *rest)
        assert (tool["input"], text["text"]) == (arguments, "So")
