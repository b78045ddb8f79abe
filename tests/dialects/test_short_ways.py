"""Events that go on with the one before them are known by a pattern: they say what a parser makes of them."""

import re
import sys
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps.gateway.dialects.vendor_json import read_json
from apps.gateway.providers.bedrock_eventstream import MessageSplitter
from bench.streamed import KINDS, STREAMS, some_words
from bench.translated import CASES, Case, way
from tests.upstream import anthropic_shapes, bedrock_shapes, responses_shapes
from tests.upstream.eventstream import encoded

WORDS = (
    *some_words(10), b'" \\u00e9\\"\\n\\u2028"', b'""', b'"\\ud83d"', b'"\xff"', b'"\\x"', b'"\t"', b'"\xed\xa0\x80"',
    b"7", b"null", b'" two words"', b'"{\\"a\\":1}"',
)  # fmt: skip
"""Some are no text: half an emoji, no UTF-8, no such escape."""
NOTHING = b'data: {"choices":[]}\n\n'
OPEN, CLOSE = -1, -2
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(CLOSE, len(WORDS) - 1)), max_size=14)
"""What comes next: a piece of this kind, or what opens or closes it. Not only as a vendor would say it."""
TURNS = [(kind, word) for kind in (*KINDS, *reversed(KINDS)) for word in (OPEN, 0, *range(len(WORDS)), 0, CLOSE)]
SIGNED = {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}}
SEALED = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "c2VhbA=="}
CLOSED = {
    "anthropic": anthropic_shapes.sse_events(SIGNED, {"type": "content_block_stop", "index": 0}),
    "openai-responses": responses_shapes.sse_events(
        {"type": "response.output_item.done", "output_index": 0, "item": SEALED}
    ),
    "bedrock": [bedrock_shapes.delta(0, reasoningContent={"signature": "c2ln"}), bedrock_shapes.stop(0)],
}
PAIRS = sorted({(case.caller, case.upstream) for case in CASES})


def said(upstream: str, steps: list[tuple[str, int]]) -> list[bytes]:
    stream = STREAMS[upstream]
    told = [event for opening in stream.opening.values() for event in opening[:1]][:1]
    for kind, word in steps:
        if kind in stream.pieces:
            piece = stream.pieces[kind](list(WORDS[: word + 1]))[-1:]
            told += {OPEN: stream.opening[kind][1:], CLOSE: CLOSED.get(upstream, [])}.get(word, piece)
    return told


def quickly(case: tuple[str, str], told: list[bytes]) -> tuple[list[Any], Any]:
    """(The client's events, what is billed) of a stream of which each event is a read."""
    noted: list[Any] = []
    feed, chat = (made := way(*case, noted.append)).joined(), made.chat
    return shown(b"".join(map(feed, told))), (chat.output_count, chat.told, chat.skipped_events, len(noted))


def slowly(case: tuple[str, str], told: list[bytes]) -> tuple[list[Any], Any]:
    """The same, with nothing in a shape that anybody knows."""
    noted: list[Any] = []
    translate, chat, render = way(*case, noted.append)
    sent = b""
    for event in told:
        for piece in strange(case[1], event):
            block = piece if translate is None else translate(piece)
            block = chat.feed(block[:9]) + chat.feed(block[9:])
            if render is None:
                sent += block
            elif block:
                is_native = case in (("messages", "anthropic"), ("responses", "openai-responses"))
                sent += render(block if is_native else NOTHING + block)
    return shown(sent), (chat.output_count, chat.told, chat.skipped_events, len(noted))


def strange(upstream: str, event: bytes) -> list[bytes]:
    if upstream != "bedrock":
        return [event[:20], event[20:]]
    (message,) = MessageSplitter().feed(event)
    return [encoded(message.headers, message.payload.replace(b"{", b"{ ", 1))]


def shown(sent: bytes) -> list[Any]:
    """What the events say, which may be half an emoji, but for when, and for ids that are made up."""
    sent = re.sub(rb"call_[0-9a-f]{24,}", b"call_x", sent)
    told = [read_json(block.rpartition(b"data: ")[2]) for block in sent.split(b"\n\n") if block]
    for event in told:
        event.pop("created", None)
        event.get("response", {}).pop("created_at", None)
    return told


@pytest.mark.parametrize("case", PAIRS)
@settings(max_examples=20)
@example(steps=TURNS)
@example(steps=[("arguments", OPEN), ("arguments", 0), ("arguments", CLOSE)])
@given(steps=STEPS)
def test_the_short_way_says_what_the_long_way_says(case: tuple[str, str], steps: list[tuple[str, int]]) -> None:
    told = said(case[1], steps)
    assert quickly(case, told) == slowly(case, told)


@pytest.mark.parametrize("case", [pair for pair in PAIRS if pair[1] == "openai-responses"])
@pytest.mark.parametrize("first", ["thoughts", "text"])
def test_a_new_part_of_a_thought_is_told_apart_from_the_one_before_it(case: tuple[str, str], first: str) -> None:
    """Also where the first part came in an item that had said something else."""
    thoughts = STREAMS["openai-responses"].pieces["thoughts"](some_words(3))
    part = STREAMS["openai-responses"].opening["thoughts"][-1]
    told = [*said("openai-responses", [(first, OPEN), (first, 0), (first, 1)]), *thoughts, part, *thoughts]
    events, billed = quickly(case, told)
    assert (events, billed) == slowly(case, told)
    if case[0] == "chat":
        assert thought_of(events).endswith(" word of a\n\n word of a")


def thought_of(events: list[Any]) -> str:
    return "".join(choice["delta"].get("reasoning_content", "") for event in events for choice in event["choices"])


@pytest.mark.parametrize("caller", ["messages", "responses"])
def test_a_call_that_waits_begins_with_the_piece_that_ends_the_one_before_it(caller: str) -> None:
    stream = STREAMS["openai"]
    begun, call = stream.opening["arguments"]
    first = call.replace(b'"arguments":""', b'"arguments":"{"')
    second = first.replace(b'"index":0,"id":"call_1"', b'"index":1,"id":"call_2"')
    told = [begun, first, second, *stream.pieces["arguments"]([b'" "', b'"}"'])]
    shown, billed = quickly((caller, "openai"), told)
    assert (shown, billed) == slowly((caller, "openai"), told)
    assert "call_2" in str(shown)


@pytest.mark.parametrize("case", PAIRS)
def test_reads_that_end_anywhere_and_heads_that_change_say_the_same(case: tuple[str, str]) -> None:
    stream = STREAMS[case[1]]
    kinds = list(stream.pieces)
    told = [event for kind in kinds for event in (*stream.opening[kind], *stream.pieces[kind](some_words(3)))]
    if case[1] != "bedrock":
        other = [event.replace(b"gpt-4.1-mini-2025-04-14", b"x") for event in stream.pieces[kinds[0]](some_words(2))]
        again = stream.pieces[kinds[0]](some_words(2))
        told += [*again, other[0], again[1], *other, *again]
    whole, expected = b"".join(told), slowly(case, told)
    for size in (7, 61, 397, 1009, len(whole)):
        assert quickly(case, [whole[at : at + size] for at in range(0, len(whole), size)]) == expected


def test_nothing_is_said_behind_the_end() -> None:
    made = way("chat", "openai")
    feed, pieces = made.joined(), STREAMS["openai"].pieces["text"](some_words(3))
    assert all(map(feed, [*STREAMS["openai"].opening["text"], *pieces]))
    counted = made.chat.output_count
    assert b"".join(map(feed, [b"data: [DONE]\n\n", *pieces])) == b""
    assert made.chat.output_count == counted


def test_arguments_that_went_on_stand_in_the_item_that_is_done() -> None:
    stream = STREAMS["anthropic"]
    said = [*stream.opening["arguments"], *stream.pieces["arguments"]([b'"{\\"a\\":"', b'"1"', b'"}"'])]
    ending = anthropic_shapes.sse_events(
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    )
    made = way("responses", "anthropic")
    assert made.render is not None
    sent = b"".join(map(made.joined(), [*said, *ending])) + made.render(made.chat.closing_events({}))
    last = shown(sent)[-1]
    assert (last["type"], last["response"]["output"][0]["arguments"]) == ("response.completed", '{"a":1}')


@pytest.mark.parametrize("case", CASES)
def test_what_goes_on_takes_the_short_way(case: Case) -> None:
    """A parser would see the events; it sees the first one of its kind."""
    stream, made = STREAMS[case.upstream], way(case.caller, case.upstream)
    feed = made.joined()
    for event in (*stream.opening[case.kind], *stream.pieces[case.kind](some_words(2))):
        feed(event)
    watched = sys.getprofile()
    called: set[str] = set()
    sys.setprofile(lambda frame, event, _: called.add(frame.f_code.co_name) if event == "call" else None)
    try:
        sent = [feed(event) for event in stream.pieces[case.kind](some_words(9))]
    finally:
        sys.setprofile(watched)
    assert all(sent) and called & {"read_json", "write_json"} == set()


def test_a_message_that_is_a_read_of_its_own_is_checked_too() -> None:
    whole = STREAMS["bedrock"].pieces["text"](some_words(1))[0]
    changed = bytearray(whole)
    changed[-20] ^= 1
    longer = bytearray(whole)
    longer[:4] = (len(whole) + 1).to_bytes(4)
    longer[-4:] = zlib.crc32(longer[:-4]).to_bytes(4)
    for damaged in (changed, longer):
        splitter = MessageSplitter()
        assert len(splitter.feed(whole)) == 1
        assert splitter.feed(bytes(damaged)) == [] and splitter.is_damaged
