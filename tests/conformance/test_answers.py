"""Whatever an upstream of any dialect answers, to a client of any dialect: properties that each pair keeps."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.dialects.order import in_order, joined
from apps.gateway.providers import PROVIDERS
from apps.gateway.response_cache.assembly import StreamAssembly, as_stream
from tests.conformance.said import UPSTREAMS, VIEWS, Answer, Part, events_of, relayed, seen

TEXTS = st.text(alphabet=st.sampled_from('ab \n"\\{}é😀\u2028'), min_size=1, max_size=9)
ARGUMENTS = st.dictionaries(TEXTS, TEXTS | st.integers(-9, 9) | st.none(), max_size=2)
PARTS = (
    TEXTS.map(lambda text: Part("thought", text))
    | TEXTS.map(lambda text: Part("text", text))
    | st.tuples(st.sampled_from(["f", "g"]), ARGUMENTS).map(lambda call: Part("call", *call))
)
"""In any order: text after a call, a thought after text, two thoughts in a row."""
ANSWERS = st.lists(PARTS, min_size=1, max_size=5).map(
    lambda parts: tuple(part._replace(call_id=f"c{place}", signature="c2ln") for place, part in enumerate(parts))
)
REASONS = st.sampled_from(["stop", "length"])
EXAMPLES = settings(max_examples=25)
"""Each of them for all callers."""
ENDED = ("openai", "openai-responses", "anthropic", "bedrock")
"""Their streams have an event that ends them. Google's end with their connection."""
dialects = pytest.mark.parametrize("dialect", [dialect for dialect in UPSTREAMS if dialect != "azure"])
"""Azure's answers are OpenAI's."""


def finish(answer: Answer, reason: str) -> str:
    return "tool_calls" if reason == "stop" and any(part.kind == "call" for part in answer) else reason


@dialects
@EXAMPLES
@given(answer=ANSWERS, reason=REASONS, cut=st.integers(1, 9))
def test_a_stream_put_together_is_the_whole_answer(dialect: str, answer: Answer, reason: str, cut: int) -> None:
    whole, stream = UPSTREAMS[dialect]
    told = whole(answer, finish(answer, reason))
    blocks = relayed(dialect, [stream(answer, finish(answer, reason), cut)])
    for caller, view in VIEWS.items():
        expected = view.whole(PROVIDERS[dialect].whole_answer(told))
        assert view.folded(events_of(seen(caller, blocks))) == expected, caller


@dialects
@EXAMPLES
@given(answer=ANSWERS, cut=st.integers(1, 9), cuts=st.lists(st.integers(0, 4_000), max_size=8))
def test_any_split_of_the_bytes_gives_the_same_events_and_none_after_the_last(
    dialect: str, answer: Answer, cut: int, cuts: list[int]
) -> None:
    told = UPSTREAMS[dialect][1](answer, finish(answer, "stop"), cut)
    late = UPSTREAMS[dialect][1]((Part("text", "too late"),), "stop", cut) if dialect in ENDED else b""
    too_much = told + late
    borders = sorted({0, len(too_much), *(border % len(too_much) for border in cuts)})
    pieces = [too_much[start:end] for start, end in pairwise(borders)]
    blocks, others = relayed(dialect, [told]), relayed(dialect, pieces)
    for caller, view in VIEWS.items():
        events = without_moments(events_of(seen(caller, blocks)))
        assert without_moments(events_of(seen(caller, others))) == events, caller
        assert [view.is_last(event) for event in events] == [False] * (len(events) - 1) + [True], caller


@dialects
@EXAMPLES
@given(answer=ANSWERS, cut=st.integers(1, 9), share=st.floats(0, 0.99))
def test_a_stream_that_breaks_anywhere_never_looks_whole(dialect: str, answer: Answer, cut: int, share: float) -> None:
    told = UPSTREAMS[dialect][1](answer, finish(answer, "stop"), cut)
    blocks = relayed(dialect, [told[: int(share * finished(dialect, told))]])
    for caller, view in VIEWS.items():
        *events, last = events_of(seen(caller, blocks))
        assert (last.get("response") or last)["error"], caller
        assert last.get("type") in (None, "error", "response.failed")
        assert not any(map(view.is_last, events)), caller


@dialects
@EXAMPLES
@given(answer=ANSWERS, cut=st.integers(1, 9))
def test_what_the_response_cache_keeps_of_a_stream_says_the_same(dialect: str, answer: Answer, cut: int) -> None:
    blocks = relayed(dialect, [UPSTREAMS[dialect][1](answer, finish(answer, "stop"), cut)])
    assembly = StreamAssembly()
    for block in blocks:
        assembly.add(block)
    kept = assembly.answer(1)
    assert kept is not None
    again = relayed("openai", [as_stream({**kept, "usage": {}})])
    for caller, view in VIEWS.items():
        told = view.folded(events_of(seen(caller, blocks)))
        assert view.whole(kept) == view.folded(events_of(seen(caller, again))) == told, caller


def test_an_order_that_is_not_true_of_its_message_says_nothing() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = joined([{"tool_calls": [call]}, {"content": "So"}])
    assert message["order"] == [{"tool_calls": 1}, {"content": 2}]
    assert [piece["content"] for piece in in_order(message)] == [None, "So"]
    more = [{"tool_calls": 1}, {"content": 2}, {"refusal": 1}]
    for changed in (
        {"content": "[REDACTED]"}, {"tool_calls": []}, {"reasoning_content": "Hm"}, {"order": "ab"}, {"order": more},
        {"order": [{"tool_calls": 1, "content": 2}]}, {"order": [{"tool_calls": 1}, {"content": True}]}, {"order": [7]},
        {"order": [{"tool_calls": 1}, {"content": 3}, {"content": -1}]},
    ):  # fmt: skip
        assert list(in_order(message | changed)) == [message | changed]
    assert "order" not in joined(
        [{"reasoning_content": "Hm"}, {"content": "So"}, {"content": "!"}, {"tool_calls": [call]}]
    )


def finished(dialect: str, told: bytes) -> int:
    """Where the answer is whole: before the event that says why it ends."""
    marks = {
        "openai": b'"finish_reason":"', "openai-responses": b"event: response.", "anthropic": b"message_stop",
        "gemini": b'"finishReason"',
    }  # fmt: skip
    return told.rindex(marks[dialect]) if dialect in marks else told.rindex(b"messageStop") - 100


def without_moments(events: list[Any]) -> list[Any]:
    """Without the times at which they were made."""
    for event in events:
        for holder in (event, event.get("response") if isinstance(event, dict) else None):
            if isinstance(holder, dict):
                for name in ("created", "created_at", "completed_at"):
                    holder.pop(name, None)
    return events
