"""A text that arrives in pieces: however it is cut, what is found is the same, and only so much of it waits."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.policies.compiled import Guards
from apps.policies.rules import Guardrail
from apps.policies.scanning import HOLD_BACK, Blocked, Findings
from tests.policies.rules import keywords, pattern, personal, streamed, whole

RULES = (
    personal(region="US"),
    keywords("secret", "project x", "密码", action="redact"),
    pattern(r"\bsk-[a-z0-9]{4,40}\b", action="redact"),
    pattern(r"^begin|end$", action="redact"),
)
_WORDS = st.sampled_from([
    "ann@example.com", "4111 1111 1111 1111", "DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "+49 30 901820",
    "(415) 555-2671", "536-22-1234", "192.0.2.1", "2001:db8::ff00:42:8329", "secret", "Project X",
    "密码", "sk-abcd1234", "begin", "end", " ", "\n", ".", "ü", "😀", "x", "12", "4", "-", "@",
    "word " * 30, "z" * 70, "1 2 3 4 5 6 ",
])  # fmt: skip
TEXTS = st.lists(_WORDS, max_size=40).map("".join).map(lambda text: text + " and more" * 60)
"""Long enough for several steps, with what is to be found in the first of them."""


@st.composite
def cut_texts(draw: Any) -> list[str]:
    """A text in pieces, cut anywhere."""
    text = draw(TEXTS)
    borders = sorted(draw(st.sets(st.integers(0, len(text)), max_size=60)))
    return [text[start:stop] for start, stop in zip([0, *borders], [*borders, len(text)], strict=True)]


@settings(max_examples=300, deadline=None)
@given(cut_texts())
def test_any_cut_gives_what_the_whole_text_gives(pieces: list[str]) -> None:
    assert streamed(pieces, *RULES) == whole("".join(pieces), *RULES)


@pytest.mark.parametrize("before", range(40, 70))
def test_what_lies_across_the_border_of_a_step_is_found(before: int) -> None:
    text = "." * before + "ann@example.com" + " and more" * 60
    assert streamed([text], *RULES) == "." * before + "[EMAIL_1]" + " and more" * 60


@settings(max_examples=100, deadline=None)
@given(cut_texts(), st.sampled_from([r"[a-z0-9 ]+", r"(?s)s.*t", r"\w+@\w+", r"[^\n]{3,}"]))
def test_what_has_no_longest_match_does_not_depend_on_the_cuts_either(pieces: list[str], text: str) -> None:
    rule = pattern(text, action="redact")
    assert streamed(pieces, rule) == streamed(["".join(pieces)], rule)


@settings(max_examples=100, deadline=None)
@given(cut_texts())
def test_a_block_does_not_depend_on_the_cuts_and_lets_no_more_through(pieces: list[str]) -> None:
    """What stands in one piece with the end of what is forbidden goes with it, so large pieces let less through."""
    rule = keywords("secret")
    out, is_blocked = _until_blocked(pieces, rule)
    most, is_blocked_by_letters = _until_blocked(list("".join(pieces)), rule)
    assert is_blocked == is_blocked_by_letters and most.startswith(out)


def _until_blocked(pieces: list[str], rule: Guardrail) -> tuple[str, bool]:
    """What came out, and whether it was blocked."""
    scan, out = Guards([rule]).stream(Findings()), ""
    try:
        for piece in pieces:
            out += scan.feed(piece)
        return out + scan.end(), False
    except Blocked:
        return out, True


def test_no_more_waits_than_is_said() -> None:
    scan, given_, out = Guards(RULES).stream(Findings()), 0, 0
    for _ in range(500):
        given_ += len("some words ")
        out += len(scan.feed("some words "))
        assert given_ - out <= HOLD_BACK
    assert out > 0
    assert out + len(scan.end()) == given_


def test_small_pieces_let_the_same_through_before_a_block() -> None:
    text = "fine words " * 60 + "then the secret and more"
    outs = {
        _until_blocked([text[i : i + size] for i in range(0, len(text), size)], keywords("secret"))
        for size in (1, 2, 7, 50)
    }
    ((out, is_blocked),) = outs
    assert is_blocked and text.startswith(out) and 0 < len(out) <= text.index("secret")


def test_a_log_rule_changes_nothing_and_is_noted_once() -> None:
    rule = keywords("secret", mode="log")
    findings = Findings()
    scan = Guards([rule]).stream(findings)
    assert scan.feed("secret " * 200) + scan.end() == "secret " * 200
    assert [effect for _, effect in findings.verdicts.values()] == ["logged"]


@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_placeholders_are_numbered_as_in_the_whole_text(size: int) -> None:
    text = "a@b.example, c@d.example " + "and so on " * 50 + "a@b.example"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert streamed(pieces, *RULES).startswith("[EMAIL_1], [EMAIL_2] and") and streamed(pieces, *RULES).endswith(
        "[EMAIL_1]"
    )
