"""Anthropic's streams, event by event: however their bytes are cut, they say what the whole answer says."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.dialects.chat_stream import ChatStream
from apps.gateway.dialects.sse import MAX_EVENT_BYTES
from apps.gateway.errors import UPSTREAM_OVERLOADED
from apps.gateway.providers.anthropic import Anthropic
from tests.upstream.anthropic_shapes import (
    BARE_CALL,
    CALL,
    SEALED,
    THOUGHT,
    USAGE,
    events,
    message,
    sse_events,
    streamed,
    text,
)
from tests.upstream.scripted import folded

said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
blocks = st.lists(
    said.map(text)
    | st.builds(lambda thought, signature: THOUGHT | {"thinking": thought, "signature": signature}, said, said)
    | st.just(SEALED)
    | st.builds(
        lambda arguments: CALL | {"input": arguments},
        st.dictionaries(said, said | st.integers(-(2**53), 2**53), max_size=3),
    )
    | st.just(BARE_CALL),
    max_size=5,
)
reasons = st.sampled_from(["end_turn", "max_tokens", "tool_use", "stop_sequence", "refusal", "pause_turn"])


def translated(*pieces: bytes) -> bytes:
    """What the translator makes of these reads."""
    translator = Anthropic().translator()
    assert translator is not None
    return b"".join([*map(translator.feed, pieces), translator.end()])


def chunks_of(stream: bytes) -> list[Any]:
    """Its events, without the moment at which they were made."""
    found = [event[6:] for event in stream.split(b"\n\n") if event]
    parsed = [event.decode() if event in (b"[DONE]", b"?") else orjson.loads(event) for event in found]
    return [{**event, "created": 0} if isinstance(event, dict) else event for event in parsed]


@given(content=blocks, stop_reason=reasons, cut=st.integers(1, 9), cuts=st.lists(st.integers(0, 4_000), max_size=12))
def test_any_cut_of_the_bytes_gives_the_same_events(
    content: list[Any], stop_reason: str, cut: int, cuts: list[int]
) -> None:
    whole = b"".join(streamed(*content, stop_reason=stop_reason, cut=cut))
    borders = [0, *sorted(border % len(whole) for border in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(borders)]
    assert chunks_of(translated(*pieces)) == chunks_of(translated(whole))
    assert chunks_of(translated(whole.replace(b"\n", b"\r\n"))) == chunks_of(translated(whole))


@given(content=blocks, stop_reason=reasons, cut=st.integers(1, 9))
def test_a_stream_put_together_equals_the_whole_answer(content: list[Any], stop_reason: str, cut: int) -> None:
    whole = Anthropic().whole_answer(message(*content, stop_reason=stop_reason))["choices"][0]
    whole["message"].pop("order", None)  # that of a stream is the order of its events
    chunks = chunks_of(translated(*streamed(*content, stop_reason=stop_reason, cut=cut)))
    assert chunks[-1] == "[DONE]"
    (choice,) = folded(chunks[:-1]).values()
    assert (choice["message"]["content"] or None) == (whole["message"]["content"] or None)
    assert {**choice["message"], "content": None} == {**whole["message"], "content": None}
    assert choice["finish_reason"] == whole["finish_reason"]
    assert [chunk["usage"] for chunk in chunks[:-1] if "usage" in chunk] == [USAGE]


@given(content=blocks, ends=st.integers(0, 200))
def test_a_stream_that_is_cut_at_any_event_is_never_done_nor_finished(content: list[Any], ends: int) -> None:
    whole = streamed(*content)
    torn = whole[: min(ends, len(whole) - 1)]
    watched = _watched(translated(*torn))
    assert not watched.is_done
    assert not watched.is_finished
    watched.end()
    assert watched.failure is not None


def _watched(stream: bytes) -> ChatStream:
    watched = ChatStream(completion_id="chatcmpl-1", model="m", choices=1, token_bound=10**6)
    watched.feed(stream)
    return watched


def test_the_last_event_needs_no_empty_line_behind_it() -> None:
    whole = b"".join(streamed(text("Hello")))
    assert chunks_of(translated(whole.rstrip(b"\n"))) == chunks_of(translated(whole))
    torn = translated(whole.rstrip(b"\n")[:-3])
    assert b"[DONE]" not in torn
    assert b'"finish_reason":"' not in torn


def test_the_first_characters_of_a_block_are_not_lost() -> None:
    start = [
        {"type": "content_block_start", "index": 0, "content_block": THOUGHT | {"thinking": "Two ", "signature": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "and two"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "ab"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "cd"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": text("Fo")},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ur."}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": CALL},
        {"type": "content_block_stop", "index": 2},
        {"type": "content_block_start", "index": 3, "content_block": BARE_CALL},
    ]  # the last one is not even closed
    opening, *_, delta, stop = events(stop_reason="tool_use")
    (choice,) = folded(chunks_of(translated(*sse_events(opening, *start, delta, stop)))[:-1]).values()
    assert choice["message"]["content"] == "Four."
    assert choice["message"]["reasoning_content"] == "Two and two"
    (detail,) = choice["message"]["reasoning_details"]
    assert (detail["text"], detail["signature"]) == ("Two and two", "abcd")
    calls = [call["function"] for call in choice["message"]["tool_calls"]]
    assert [orjson.loads(call["arguments"]) for call in calls] == [CALL["input"], {}]


def test_a_call_that_was_cut_by_the_bound_is_left_as_it_came() -> None:
    said = [event for event in events(CALL, stop_reason="max_tokens", cut=4) if event["type"] != "content_block_stop"]
    del said[5:-2]
    chunks = chunks_of(translated(*sse_events(*said)))
    (choice,) = folded(chunks[:-1]).values()
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"town":'
    assert (choice["finish_reason"], chunks[-1]) == ("length", "[DONE]")


def test_text_of_a_block_that_was_never_opened_is_not_lost() -> None:
    opening, *_, delta, stop = events()
    lone = {"type": "content_block_delta", "index": 4, "delta": {"type": "text_delta", "text": "Here"}}
    (choice,) = folded(chunks_of(translated(*sse_events(opening, lone, delta, stop)))[:-1]).values()
    assert choice["message"]["content"] == "Here"


def test_nothing_follows_the_end_or_an_error() -> None:
    whole = streamed(text("Hello"))
    assert chunks_of(translated(*whole, *whole)) == chunks_of(translated(*whole))
    error = sse_events({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    watched = _watched(translated(*whole[:4], *error, *whole))
    assert watched.failure is not None
    assert watched.failure.kind is UPSTREAM_OVERLOADED
    assert not watched.is_done


def test_an_end_without_a_reason_is_none() -> None:
    opening, *_, stop = events(text("Hello"))
    watched = _watched(translated(*sse_events(opening, stop)))
    assert watched.failure is not None


@pytest.mark.parametrize("field", ["message", "content_block", "delta", "usage", "index", "error"])
@pytest.mark.parametrize("value", [None, 7, "text", [], {}])
def test_events_of_a_wrong_shape_break_nothing(field: str, value: Any) -> None:
    for event in [*events(THOUGHT, CALL, text("Hi")), {"type": "error", "error": {}}]:
        translated(*streamed(text("Hello"))[:3], *sse_events({**event, field: value}))


def test_an_event_that_is_too_large_ends_the_stream() -> None:
    watched = _watched(translated(*streamed(text("Hi"))[:2], b"data: " + b"x" * (MAX_EVENT_BYTES + 1)))
    assert watched.failure is not None
