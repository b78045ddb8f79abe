"""What is counted and said: the rules of docs/sandbox.md, without a server."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crun.sandbox.answers import (
    MEDIA_TOKENS,
    call_tool,
    count_words,
    describe_images,
    echo,
    split_words,
    write_json,
)
from crun.sandbox.chat import ChatRequest, read_chat
from crun.sandbox.errors import ApiError


def request(content: Any = "a b c", **fields: Any) -> ChatRequest:
    messages = fields.pop("messages", [{"role": "user", "content": content}])
    return read_chat(orjson.dumps({"model": "sandbox-echo", "messages": messages, **fields}))


@given(st.text())
def test_pieces_join_to_the_text_and_each_is_at_most_a_word(text: str) -> None:
    pieces = split_words(text)
    assert "".join(pieces) == text
    assert sum(count_words(piece) for piece in pieces) == count_words(text)
    assert all(count_words(piece) == 1 for piece in pieces) or not text.strip()


def test_a_megabyte_of_spaces_is_split_in_no_time() -> None:
    assert split_words(" " * 1_000_000) == (" " * 1_000_000,)


def test_prompt_tokens_are_the_words_of_all_messages_and_a_fixed_number_for_each_other_part() -> None:
    parts = [
        {"type": "text", "text": "look at"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    ]
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    answer = echo(request(messages=messages))
    assert answer.usage.prompt_tokens == 4 + 2 * MEDIA_TOKENS
    assert answer.text == "look at [image] [audio]"


@pytest.mark.parametrize(
    ("fields", "text", "reason", "tokens"),
    [
        ({}, "a b c", "stop", 3),
        ({"max_tokens": 3}, "a b c", "stop", 3),
        ({"max_tokens": 2}, "a b ", "length", 2),
        ({"max_completion_tokens": 1}, "a ", "length", 1),
        ({"max_tokens": 2, "max_completion_tokens": 1}, "a ", "length", 1),
        ({"max_tokens": 2, "n": 2}, "a b ", "length", 4),
        ({"stop": "b"}, "a ", "stop", 1),
        ({"stop": ["z", "c", "b c"]}, "a ", "stop", 1),
        ({"stop": "a"}, "", "stop", 0),
        ({"stop": "c", "max_tokens": 1}, "a ", "length", 1),
        ({"max_tokens": 4, "sandbox": {"reasoning_tokens": 2}}, "a b ", "length", 4),
        ({"max_tokens": 1, "sandbox": {"reasoning_tokens": 2}}, "", "length", 1),
        ({"sandbox": {"chunks": 5}}, "a b c a b ", "stop", 5),
        ({"sandbox": {"chunks": 2}}, "a b ", "stop", 2),
        ({"sandbox": {"output": ""}}, "", "stop", 0),
        ({"sandbox": {"output": "", "chunks": 2}}, "word word ", "stop", 2),
    ],
)
def test_limits_stops_and_scripts(fields: dict[str, Any], text: str, reason: str, tokens: int) -> None:
    answer = echo(request(**fields))
    assert (answer.text, answer.finish_reason, answer.usage.completion_tokens) == (text, reason, tokens)


def test_a_conversation_without_a_user_is_answered_with_nothing() -> None:
    answer = echo(request(messages=[{"role": "system", "content": "x"}]))
    assert (answer.pieces, answer.usage.completion_tokens) == ((), 0)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png,abc",
        "data:image/png;base64,###",
        "data:image/png;base64",
        "cat.png",
        "http://[",
        "file:///x",
    ],
)
def test_an_image_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ApiError) as refused:
        describe_images(request([{"type": "image_url", "image_url": {"url": url}}]))
    assert refused.value.param == "messages[0].content[0].image_url.url"


def test_no_image_is_described_as_none() -> None:
    assert describe_images(request()).text == "0 images"


def test_a_limited_tool_call_is_cut_in_its_arguments() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    whole, cut = call_tool(request(tools=tools)), call_tool(request(tools=tools, max_tokens=2))
    assert (whole.text, whole.usage.completion_tokens) == ('{"a": "text", "b": "text"}', 5)
    assert (cut.text, cut.finish_reason, cut.usage.completion_tokens) == ('{"a": ', "length", 2)


def test_a_schema_that_cannot_be_met_is_a_bad_request() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    with pytest.raises(ApiError) as refused:
        write_json(request(response_format=wanted))
    assert (refused.value.status, refused.value.param) == (400, "response_format.json_schema.schema")


def test_required_tool_choice_without_tools_is_a_bad_request() -> None:
    with pytest.raises(ApiError) as refused:
        call_tool(request(tool_choice="required"))
    assert refused.value.param == "tool_choice"
