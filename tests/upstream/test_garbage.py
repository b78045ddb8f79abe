"""Answers with anything anywhere: translators and readers raise nothing but what they declare, and write only JSON."""

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import process_time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.dialects.chat_stream import ChatStream, output_of
from apps.gateway.dialects.completions import text_completion
from apps.gateway.dialects.messages.answer import whole_message
from apps.gateway.dialects.messages.blocks import Blocks
from apps.gateway.dialects.messages.native import native_message
from apps.gateway.dialects.published import PUBLIC_FIELDS
from apps.gateway.dialects.responses.answer import begun_response, ended, whole_output
from apps.gateway.dialects.responses.answer import output_of as output_items
from apps.gateway.dialects.responses.native import Names, native_response
from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.errors import GatewayError
from apps.gateway.metering.token_usage import read_usage, to_openai
from apps.gateway.providers import PROVIDERS
from apps.gateway.providers.bedrock_eventstream import MessageSplitter
from tests.upstream import anthropic_shapes, bedrock_shapes, gemini_shapes, responses_shapes
from tests.upstream.eventstream import message
from tests.upstream.scripted import sse

CHUNK = {
    "id": "x", "object": "chat.completion.chunk", "created": 17, "model": "m", "system_fingerprint": "f",
    "choices": [
        {
            "index": 0, "finish_reason": None, "logprobs": None, "content_filter_results": {},
            "delta": {
                "role": "assistant", "content": "Grüße",
                "tool_calls": [{"index": 0, "id": "a", "function": {"name": "n", "arguments": ""}}],
            },
        }
    ],
}  # fmt: skip
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
LAST = {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
SAID = {"role": "assistant", "content": "Grüße", "tool_calls": [{"id": "a", "function": {"name": "n"}}]}
WHOLE = {"id": "x", "choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}], "usage": USAGE}
BLOCKS = [anthropic_shapes.THOUGHT, anthropic_shapes.text("Grüße"), anthropic_shapes.CALL, anthropic_shapes.BARE_CALL]
LOGPROBS = {"chosenCandidates": [{"token": "G", "logProbability": -1.0}], "topCandidates": [{"candidates": [{}]}]}
GEMINI = gemini_shapes.response({"text": "x"}, finish="STOP", usage=gemini_shapes.USAGE)
GEMINI["candidates"][0]["logprobsResult"] = LOGPROBS
BEDROCK = [
    (each.headers[":event-type"], orjson.loads(each.payload))
    for each in MessageSplitter().feed(b"".join(bedrock_shapes.STREAM))
]
RESPONSE = responses_shapes.response(
    responses_shapes.THOUGHT, responses_shapes.text("Grüße"), responses_shapes.CALL, responses_shapes.CUSTOM_CALL
)
STREAMS: dict[str, list[Any]] = {
    "openai": [CHUNK, CHUNK, LAST],
    "azure": [CHUNK, CHUNK, LAST],
    "anthropic": anthropic_shapes.events(*BLOCKS, stop_reason="tool_use"),
    "gemini": [*(orjson.loads(event[6:]) for event in gemini_shapes.STREAM[:-1]), GEMINI],
    "bedrock": [told for _, told in BEDROCK],
    "openai-responses": responses_shapes.events(end=RESPONSE),
}
ANSWERS: dict[str, Any] = {
    "openai": WHOLE,
    "azure": WHOLE,
    "anthropic": orjson.loads(anthropic_shapes.message(*BLOCKS, stop_reason="tool_use")),
    "gemini": {**gemini_shapes.WHOLE, "candidates": [*gemini_shapes.WHOLE["candidates"], *GEMINI["candidates"]]},
    "bedrock": bedrock_shapes.WHOLE,
    "openai-responses": RESPONSE,
}
DEEP = "@deep@"
HALF = "@half@"
HUGE = "@huge@"
RAW = {b'"@deep@"': b"[" * 960 + b"]" * 960, b'"@half@"': b'"\\ud83d"', b'"@huge@"': b"9" * 400, b'"@nan@"': b"NaN"}
junk = st.sampled_from(
    [DEEP, HALF, HUGE, "@nan@", None, True, 0, -1, 1.5, 2**63, "", "x", "\0", [], {}, [[]], [{}], [None], {"": {}}, [1]]
) | st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=3)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, name))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = put(value[path[0]], path[1:], new)
    return copied


def spoilt(draw: Callable[[Any], Any], value: Any) -> Any:
    """The value with junk in one to three of its places."""
    for _ in range(draw(st.integers(1, 3))):
        value = put(value, draw(st.sampled_from(list(places(value)))), draw(junk))
    return value


def raw(value: Any) -> bytes:
    written = write_json(value)
    for word, meant in RAW.items():
        written = written.replace(word, meant)
    return written


def spoilt_stream(draw: Callable[[Any], Any], dialect: str) -> list[bytes]:
    events = STREAMS[dialect]
    number = draw(st.integers(0, len(events) - 1))
    said = [raw(event) for event in events]
    said[number] = raw(spoilt(draw, events[number]))
    order = draw(st.permutations(range(len(said)))) if draw(st.booleans()) else range(len(said))
    if dialect == "bedrock":
        return [framed(BEDROCK[place][0], said[place]) for place in order]
    return [b"data: " + said[place] + b"\n\n" for place in order]


def framed(kind: str, payload: bytes) -> bytes:
    return message(kind, orjson.Fragment(payload))


def relay(dialect: str, pieces: list[bytes]) -> tuple[bytes, ChatStream]:
    translator = PROVIDERS[dialect].translator()
    stream = ChatStream(completion_id="c", model="public", choices=1, token_bound=1_000)
    sent = [stream.feed(translator.feed(piece) if translator else piece) for piece in pieces]
    if translator is not None:
        sent.append(stream.feed(translator.end()))
    sent.append(stream.end())
    return b"".join(sent) + stream.closing_events({}), stream


@pytest.mark.parametrize("dialect", STREAMS)
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_stream_with_anything_anywhere_is_relayed_or_ends(dialect: str, data: st.DataObject) -> None:
    sent, stream = relay(dialect, spoilt_stream(data.draw, dialect))
    lines = [line for line in sent.split(b"\n") if line]
    assert lines.pop() == b"data: [DONE]" and all(line.startswith(b"data: ") for line in lines)
    assert all(isinstance(read_json(line[6:]), dict) for line in lines)
    told = stream.told.beside_output()
    assert len(told.raw) <= 2_048 and (told.tokens is None or to_openai(told.tokens))


@pytest.mark.parametrize("dialect", ANSWERS)
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_an_answer_with_anything_anywhere_is_one_or_refused(dialect: str, data: st.DataObject) -> None:
    with suppress(ValueError, GatewayError):
        answer = PROVIDERS[dialect].whole_answer(raw(spoilt(data.draw, ANSWERS[dialect])))
        for choice in answer["choices"]:
            assert write_json(output_of(choice["message"]) if isinstance(choice.get("message"), dict) else choice)
        assert read_usage(answer.get("usage"), bound=1_000).raw is not None
        assert read_json(write_json({name: answer.get(name) for name in PUBLIC_FIELDS}))


TOLD_BY_US = {"request_id": "req_1", "model": "public"}
ASKED = parse_responses(b'{"model": "public", "input": "x"}')
BEGUN = begun_response(ASKED, **TOLD_BY_US)
CLOSED: Any = {"usage": {}, "service_tier": ""}


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_billed_as_an_answer_is_told_in_every_dialect(data: st.DataObject) -> None:
    """Its record is closed by then: who gets an error instead would pay for it."""
    dialect = data.draw(st.sampled_from(list(ANSWERS)))
    told = raw(spoilt(data.draw, ANSWERS[dialect]))
    try:
        answer = PROVIDERS[dialect].whole_answer(told)
    except (ValueError, GatewayError):
        return
    output = output_items(ASKED, "req_1")
    if dialect == "openai-responses":
        assert write_json(native_response(read_json(told), BEGUN, Names("req_1"), **CLOSED))
    if dialect == "anthropic":
        assert write_json(native_message(read_json(told), **TOLD_BY_US))
    assert write_json(text_completion(copy.deepcopy(answer), echoed="", **TOLD_BY_US))
    assert write_json(whole_message(copy.deepcopy(answer), Blocks("1", shows_thoughts=True), **TOLD_BY_US))
    whole_output(answer, output)
    assert write_json(ended(BEGUN, output, **CLOSED))


def test_parts_that_are_none_are_no_text() -> None:
    content = [1.5, [], None, {"type": "output_text"}, {"type": "output_text", "text": []}]
    told = responses_shapes.response({**responses_shapes.text("x"), "content": content}, {"type": [], "content": [1]})
    assert native_response(told, BEGUN, Names("req_1"), **CLOSED)["output_text"] == ""
    assert PROVIDERS["openai-responses"].whole_answer(raw(told))["choices"][0]["message"]["content"] == ""


MANY = 100_000
TINY: dict[str, tuple[bytes, bytes]] = {
    "openai": (b"", sse({**CHUNK, "choices": [{"index": 0, "delta": {"content": "x"}}]})[0]),
    "azure": (b"", sse({**CHUNK, "choices": [{"index": 0, "delta": {"content": "x"}}]})[0]),
    "anthropic": (
        sse({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}})[0],
        sse({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x" * 20}})[
            0
        ],
    ),
    "gemini": (b"", sse(gemini_shapes.response({"text": "x"}))[0]),
    "bedrock": (b"", bedrock_shapes.delta(0, reasoningContent={"text": "x" * 20})),
}


@pytest.mark.parametrize("dialect", TINY)
def test_a_hundred_thousand_tiny_events_cost_no_more_each_than_a_few(dialect: str) -> None:
    head, event = TINY[dialect]
    took = []
    for count in (MANY // 10, MANY):
        started = process_time()
        relay(dialect, [head, *[event * 100] * (count // 100)])
        took.append(process_time() - started)
    assert took[1] < 25 * took[0]


def test_a_message_of_many_megabytes_is_collected_in_one_go() -> None:
    whole = message("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x" * (8 << 20)}})
    splitter = MessageSplitter()
    started = process_time()
    found = [each for start in range(0, len(whole), 512) for each in splitter.feed(whole[start : start + 512])]
    assert len(found) == 1 and process_time() - started < 2
