"""What rules find in a text, and what they leave alone."""

import time

import pytest

from apps.core.errors import InvalidInput
from apps.policies.compiled import compiled, forbids
from apps.policies.expressions import MAX_KEYWORDS, MAX_PATTERN, MAX_PROGRAM
from apps.policies.scanning import MAX_CHECKS, Blocked
from tests.policies.rules import keywords, models, pattern, personal, whole

REDACT = {"action": "redact"}


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("email", "write to ann.lee+x@mail.example.co.uk.", "write to [EMAIL_1]."),
        ("email", "<a@example.com> and b@example.com, a@example.com", "<[EMAIL_1]> and [EMAIL_2], [EMAIL_1]"),
        ("email", "@handle and a @ b and me@localhost", "@handle and a @ b and me@localhost"),
        ("email", "grüße@bücher.example 你好ann@example.com", "[EMAIL_1] 你好[EMAIL_2]"),
        ("phone", "call +49 30 901820 or 0049 30 901820 now", "call [PHONE_1] or [PHONE_2] now"),
        ("phone", "call (415) 555-2671 or 415.555.2671", "call [PHONE_1] or [PHONE_2]"),
        ("phone", "version 1.2.3.4.5, 12345, 2024-05-01 10:00", "version 1.2.3.4.5, 12345, 2024-05-01 10:00"),
        ("card", "pay 4111 1111 1111 1111 12/26", "pay [CARD_1] 12/26"),
        ("card", "5500-0000-0000-0004 and 340000000000009", "[CARD_1] and [CARD_2]"),
        ("card", "4111 1111 1111 1112 and 41111111111111111111", "4111 1111 1111 1112 and 41111111111111111111"),
        ("card", "order 12 4111111111111111", "order 12 [CARD_1]"),
        ("iban", "to DE89 3704 0044 0532 0130 00 AND more", "to [IBAN_1] AND more"),
        ("iban", "gb82west12345698765432; DE00 3704 0044 0532 0130 00", "[IBAN_1]; DE00 3704 0044 0532 0130 00"),
        ("ssn", "ssn 536-22-1234, 536 22 1235", "ssn [SSN_1], [SSN_2]"),
        ("ssn", "000-22-1234 and 536-22-12345", "000-22-1234 and 536-22-12345"),
        ("ip", "from 192.0.2.1 and 2001:db8::ff00:42:8329.", "from [IP_1] and [IP_2]."),
        ("ip", "256.1.1.1 1.2.3.4.5 std::vector ::1 12:30:45", "256.1.1.1 1.2.3.4.5 std::vector ::1 12:30:45"),
    ],
)  # fmt: skip
def test_personal_data(kind: str, text: str, expected: str) -> None:
    assert whole(text, personal(kind, region="US" if kind == "phone" and "415" in text else "")) == expected


def test_only_chosen_kinds_are_redacted() -> None:
    text = "ann@example.com 4111 1111 1111 1111"
    assert whole(text, personal("card")) == "ann@example.com [CARD_1]"


def test_what_two_rules_find_in_the_same_place_has_one_placeholder() -> None:
    rules = pattern(r"key \w+ 4111", **REDACT), personal("card")
    assert whole("my key abc 4111 1111 1111 1111!", *rules) == "my [REDACTED_1]!"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The secret is out, SECRET!", "The [REDACTED_1] is out, [REDACTED_2]!"),
        ("secretly insecret secret_ secret2", "secretly insecret secret_ secret2"),
        ("project x, Project X's, project xy", "[REDACTED_1], [REDACTED_2]'s, project xy"),
        ("Größe GRÖßE größer", "[REDACTED_1] [REDACTED_2] größer"),
        ("我的密码是 和secret了", "我的[REDACTED_1]是 和[REDACTED_2]了"),
        ("a b bc", "[REDACTED_1] bc"),
        ("a bc", "[REDACTED_1] bc"),
    ],
)
def test_keywords_are_whole_words_in_any_case(text: str, expected: str) -> None:
    words = ("secret", "project x", "größe", "密码", "a b", "a")
    assert whole(text, keywords(*words, **REDACT)) == expected


def test_a_rule_that_blocks_names_itself_and_not_what_it_found() -> None:
    with pytest.raises(Blocked) as blocked:
        whole("the canary sings", keywords("canary", name="No birds"))
    assert str(blocked.value) == "No birds"


def test_borders_and_anchors_see_the_text_around_them() -> None:
    assert whole("x" * 20_000 + " sk-abc", pattern(r"^sk-\w+", **REDACT)).endswith(" sk-abc")
    assert whole("sk-abc" + " x" * 20_000, pattern(r"^sk-\w+", **REDACT)).startswith("[REDACTED_1] x")
    assert whole("x" * 8_191 + "sk-abc", pattern(r"\bsk-\w+", **REDACT)).endswith("xsk-abc")
    assert whole("end " * 5_000 + "end", pattern(r"end$", **REDACT)).count("[REDACTED_1]") == 1


def test_half_a_character_hides_nothing() -> None:
    assert whole("\ud800 ann@example.com \udfff", personal("email")) == "\ud800 [EMAIL_1] \udfff"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(abc", "missing ) at character 1"),
        ("abc[z-a]", "invalid character class range at character 5 (“z-a”)"),
        ("x(?<=a)b", "invalid perl operator at character 2 (“(?<=”)"),
        (r"(a)\1", "invalid escape sequence at character 4"),
        ("a{1001}", "invalid repetition size at character 2"),
        ("a*", "also matches an empty text"),
        ("", "is empty"),
        ("a" * (MAX_PATTERN + 1), f"{MAX_PATTERN} characters at most"),
        (r"(?:abc){900}", "too large"),
        (r"\pL{400}", "too large"),
    ],
)
def test_an_expression_that_cannot_be_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        compiled(pattern(text))
    assert said in refused.value.message


@pytest.mark.parametrize("words", [(), (" ",), ("x" * 101,), ("x",) * (MAX_KEYWORDS + 1), ("x" * 99,) * 50])
def test_keywords_that_cannot_be_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        compiled(keywords(*words))


@pytest.mark.parametrize("text", [r"(a+)+$", r"(x+x+)+y", r"(.*)(.*)(.*)[^b]{50}c", r"[a-q][^u-z]{120}x"])
def test_catastrophic_expressions_take_time_in_proportion(text: str) -> None:
    (found,) = compiled(pattern(text))
    assert found.finder.program <= MAX_PROGRAM
    began = time.process_time()
    whole("aab" * 100_000 + "!", pattern(text, mode="log"))
    assert time.process_time() - began < 20  # with backtracking it would not end in years


def test_beyond_so_many_candidates_what_looks_right_counts() -> None:
    wrong = "4111 1111 1111 1112; "
    assert whole(wrong * 10, personal("card")) == wrong * 10
    assert "[CARD_1]" in whole(wrong * (MAX_CHECKS + 10), personal("card"))


@pytest.mark.parametrize(
    ("allowed", "denied", "forbidden"),
    [
        ((), ("a/one",), ["a/one"]),
        (("a/*",), (), ["b/one"]),
        (("a/*",), ("a/two",), ["a/two", "b/one"]),
        (("a/one",), (), ["a/two", "b/one"]),
        ((), ("*",), ["a/one", "a/two", "b/one"]),
    ],
)
def test_models_by_name_and_prefix(allowed: tuple[str, ...], denied: tuple[str, ...], forbidden: list[str]) -> None:
    rule = models(allowed=allowed, denied=denied)
    assert [name for name in ("a/one", "a/two", "b/one") if forbids(rule, name)] == forbidden
