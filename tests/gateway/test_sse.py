"""Cutting a stream at event borders: the reads never matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.dialects.sse import MAX_EVENT_BYTES, EventSplitter, event_data, events

payloads = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=20).map(str.encode)


@given(st.lists(payloads, min_size=1, max_size=8), st.data(), st.sampled_from([b"\n", b"\r\n"]))
def test_any_split_of_the_bytes_gives_the_same_events(parts: list[bytes], data: st.DataObject, line: bytes) -> None:
    stream = b"".join(b"data: " + part + line * 2 for part in parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    splitter = EventSplitter()
    got = [event for piece in pieces for event in events(splitter.feed(piece))]
    assert got == [b"data: " + part for part in parts]
    assert splitter.rest() == b""


def test_an_event_without_its_last_empty_line_is_the_rest() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n\ndata: b") == b"data: a\n\n"
    assert splitter.rest() == b"data: b"


def test_an_endless_event_is_cut_off() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n\n" + b"x" * (MAX_EVENT_BYTES + 1)) == b"data: a\n\n"
    assert splitter.is_overfull
    assert splitter.rest() == b""


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (b"data: x", b"x"),
        (b"data:x", b"x"),
        (b": comment", b""),
        (b"event: ping", b""),
        (b"event: m\ndata: x", b"x"),
        (b"data: a\ndata: b", b"a b"),
        (b"", b""),
    ],
)
def test_the_data_of_an_event(event: bytes, payload: bytes) -> None:
    assert event_data(event) == payload
