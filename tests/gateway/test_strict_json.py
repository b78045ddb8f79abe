"""JSON at the door: what is refused, with its place, and that what passes means the same to every reader."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.dialects.strict_json import (
    MAX_CONTAINERS,
    MAX_INTEGER,
    MAX_KEYS,
    MAX_PIECES,
    MAX_VALUES,
    read_object,
)
from apps.gateway.errors import GatewayError

CHAT = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"Say: \\"a\\":1"}]}'
LARGE = 300 << 10
"""Above this size bodies are not compared with what we write, and media are skipped."""


def refusal(raw: bytes) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        read_object(raw)
    return caught.value


def nested(levels: int) -> bytes:
    """A body with so many levels, the object itself counted."""
    return b'{"extra":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b'"x"', b"NaN", b"null", b"\xff", b'{"a":"\xed\xa0\x80"}', b'{"a":1}x', b"{'a':1}",
        b'{"a":1,}', b'{"a":"\x01"}', b"\xef\xbb\xbf{}", b'{"a":+1}', b'{"a":.5}', b'{"a":01}', b"// hi\n{}",
        '{"a":1}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_400(raw: bytes) -> None:
    assert refusal(raw).kind.status == 400


@pytest.mark.parametrize(
    ("raw", "place", "word"),
    [
        (b'{"a":NaN}', "a", "NaN"),
        (b'{"a":[1,{"b":-Infinity}]}', "a[1].b", "infinite"),
        (b'{"a":{"b":1e400}}', "a.b", "infinite"),
        (b'{"messages":[{"content":"\\ud800"}]}', "messages[0].content", "surrogate"),
        (b'{"a":"\\udc00\\ud83d"}', "a", "surrogate"),
        (b'{"a":9007199254740993}', "a", "2^53"),
        (b'{"a":-9007199254740993}', "a", "2^53"),
        (b'{"tools":[{"function":{"parameters":{"maximum":9223372036854775807}}}]}',
         "tools[0].function.parameters.maximum", "2^53"),
        (b'{"a":[0,18446744073709551616]}', "a[1]", "2^53"),
        (b'{"a":[0,18446744073709551617]}', "a[1]", "2^53"),
        (b'{"a":-9223372036854775809}', "a", "2^53"),
        (b'{"a":1' + b"0" * 200 + b"}", "a", "2^53"),
        (b'{"a":1,"b":[' + b"[" * 63 + b"]" * 63 + b"]}", "b", "nested"),
        (b'{"a":{' + b",".join(b'"k%d":1' % n for n in range(MAX_KEYS + 1)) + b"}}", "a", "keys"),
        (b"{" + b",".join(b'"k%d":1' % n for n in range(MAX_KEYS + 1)) + b"}", None, "keys"),
        (nested(2_000), None, "nested"),
    ],
)  # fmt: skip
def test_what_readers_could_take_differently_is_400_by_its_place(raw: bytes, place: str | None, word: str) -> None:
    for written in (raw, raw.replace(b":", b" : ")):
        error = refusal(written)
        assert (error.kind.status, error.param) == (400, place)
        assert word in error.message


def listed(value: bytes, times: int, *, beside: bytes = b"") -> bytes:
    return b'{"a":[' + b",".join([value] * times) + b"]" + beside + b"}"


@pytest.mark.parametrize(
    ("value", "most"),
    [(b'"x"', MAX_VALUES - 1), (b"null", MAX_VALUES - 1), (b"1.5", MAX_VALUES - 1), (b"{}", MAX_CONTAINERS - 2),
     (b"[]", MAX_CONTAINERS - 2), (b"123456", 290_000)],
)  # fmt: skip
def test_so_many_values_pass_and_no_more(value: bytes, most: int) -> None:
    assert len(read_object(listed(value, most))["a"]) == most
    if value != b"123456":  # of token ids the text may have no more than these
        error = refusal(listed(value, most + 1))
        assert (error.kind.status, "values" in error.message) == (400, True)


@pytest.mark.parametrize(
    "raw",
    [
        listed(b"1", MAX_PIECES + 2),
        listed(b'{"":[]}', 200_000),
        listed(b'["",[[]]]', 100_000),
        listed(b'""', 600_000),
        listed(b"[" * 60 + b"]" * 60, 5_000),
        listed(b"1", MAX_VALUES, beside=b',"b":[1,""' + b",1" * MAX_VALUES + b"]"),
        listed(b"[" * 1_200 + b"]" * 1_200, 49),
        listed(b'"\\"[{,\\\\"', 5, beside=b',"b":[' + b"{}," * 50_000 + b"{}]"),
    ],
    ids=range(8),
)
def test_bodies_that_are_dear_to_read_are_refused(raw: bytes) -> None:
    assert refusal(raw).kind.status == 400


@pytest.mark.parametrize("text", ['{"', '{[,":]}', '\\"[{', "[[[[,,,,", '"' * 7, "\\\\\\"])
def test_whatever_stands_in_a_text_is_text(text: str) -> None:
    body = {"messages": [{"role": "user", "content": text * (1_500_000 // len(text))}]}
    assert read_object(orjson.dumps(body)) == body


@pytest.mark.parametrize("wrong", [MAX_INTEGER + 1, -MAX_INTEGER - 1])
def test_a_large_integer_among_many_is_400_by_its_place(wrong: int) -> None:
    error = refusal(orjson.dumps({"a": [1] * 150_000 + [wrong]}).replace(b",", b" ,", 1))
    assert (error.param, "2^53" in error.message) == ("a[150000]", True)


DUPLICATES = [
    b'{"max_tokens":1,"max_tokens":100000}',
    b'{"max_tokens" : 1 , "n":1, "max_tokens"\t:\r\n100000}',
    b'{"max_tokens":1,"max\\u005ftokens":100000}',
    b'{"max_tokens":1,"max_tokens":1}',
    b'{"a":"\\u003a\\u003A","max_tokens":1,"max_tokens":2}',
    b'{"max_tokens":":","max_tokens":":"}',
    b'{"max_tokens":{"a":{"b":"c"}},"max_tokens":1,"x":"::::"}',
    b'{"max_tokens":"\\u003a","max_tokens":"::"}',
    b'{"max_tokens":1,"max_tokens":1,"x":"\\u003a"}',
    b'{"max_tokens":1,"max_tokens":1,"x":"\\u003A\\\\u003a"}',
    b'{"max_tokens":null,"max_tokens":5}',
    b'{"max_tokens":5,"a:b":1,"max_tokens":5}',
    b'{"max_tokens":' + b"[" * 900 + b"]" * 900 + b',"max_tokens":1}',
    b'{"max_tokens":123456789012345678901234567890,"max_tokens":1}',
]


@pytest.mark.parametrize("raw", DUPLICATES)
@pytest.mark.parametrize("padding", [b"", b"A" * LARGE, b"\\n" * LARGE, b":" * LARGE])
def test_a_key_that_comes_twice_is_400_however_it_is_written(raw: bytes, padding: bytes) -> None:
    body = raw[:-1] + b',"padding":"' + padding + b'"}' if padding else raw
    error = refusal(body)
    assert error.kind.status == 400
    assert error.param == "max_tokens" or "nested" in error.message


def test_an_escape_on_the_border_of_two_chunks_hides_nothing() -> None:
    for shift in range(8):
        head = b'{"max_tokens":1,"max_tokens":1,"x":"' + b"A" * LARGE
        border = b"A" * (-len(head) % (64 << 10) - shift)
        assert refusal(head + border + b'\\u003a"}').param == "max_tokens"


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        CHAT,
        b' {"a" : 1 , "b" : [ true , null , 1.0 , -0.0 ] } \n',
        b'{"a":{"x":1,"x":2}}',  # below the top level the last one counts, and only that is forwarded
        b'{"a:b":1,"c":"\\u003a\\\\u003a"}',
        b'{"a":"http://x:1/","\\u0062":"\\""}',
        b'{"a":9007199254740992,"b":-9007199254740992,"c":9007199254740991}',
        b'{"a":1e300,"b":1e15,"c":-1E+20}',
        b'{"a":"\\ud83d\\ude00"}',
        nested(64),
        b'{"a":"' + b"A:" * LARGE + b'"}',
        b"{" + b",".join(b'"k%d":1' % n for n in range(MAX_KEYS)) + b"}",
    ],
)
def test_what_every_reader_takes_for_the_same_passes(raw: bytes) -> None:
    body = read_object(raw)
    assert body == json.loads(raw) == json.loads(orjson.dumps(body))


def test_a_level_too_many_is_refused_in_every_way_of_writing() -> None:
    for raw in (nested(65), nested(65).replace(b":", b": ")):
        assert refusal(raw).param == "extra"
        assert read_object(raw.replace(b"[[", b"[", 1).replace(b"]]", b"]", 1))


def test_a_body_of_structure_instead_of_media_is_413_before_it_is_read() -> None:
    assert refusal(b'{"a":[' + b"0," * (3 << 20) + b"0]}").kind.status == 413


TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["a:b", '":', "\\u003a", "max_tokens", "\\"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
DOCUMENTS = st.dictionaries(
    TEXT,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)),
    max_size=5,
)


def _same(one: Any, other: Any) -> bool:
    """Equal in values and in types: 1 is not 1.0, and true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@settings(max_examples=500, deadline=None)
@given(DOCUMENTS, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:  ")]), st.booleans())
def test_what_passes_and_is_written_again_means_the_same(
    document: dict[str, Any], separators: tuple[str, str], ascii_only: bool
) -> None:
    raw = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
    if _is_refused_with_reason(document):
        assert refusal(raw).kind.status == 400
        return
    body = read_object(raw)
    again = orjson.dumps(body)
    assert _same(json.loads(raw), json.loads(again))
    assert _same(orjson.loads(raw), orjson.loads(again))


def _is_refused_with_reason(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_refused_with_reason, value.values()))
    if isinstance(value, list):
        return any(map(_is_refused_with_reason, value))
    if type(value) is int:
        return abs(value) > MAX_INTEGER
    return type(value) is float and not abs(value) < float("inf")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(TEXT, SCALARS | st.lists(SCALARS, max_size=2)), min_size=1, max_size=5), st.booleans())
def test_pairs_of_any_kind_are_refused_exactly_when_a_key_comes_twice(
    pairs: list[tuple[str, Any]], ascii_only: bool
) -> None:
    written = ((json.dumps(key, ensure_ascii=ascii_only), json.dumps(value)) for key, value in pairs)
    raw = ("{" + ",".join(f"{key}:{value}" for key, value in written) + "}").encode()
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)) or any(_is_refused_with_reason(value) for _, value in pairs):
        assert refusal(raw).kind.status == 400
    else:
        assert list(read_object(raw)) == keys
