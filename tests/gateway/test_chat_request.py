"""What is accepted as a Chat Completions request, and what the upstream gets of it."""

from typing import Any

import orjson
import pytest

from apps.gateway.chat import body_for_upstream, check_modalities, parse_chat
from apps.gateway.errors import GatewayError
from tests.factories import offered

VALID: dict[str, Any] = {"model": "bench-model", "messages": [{"role": "user", "content": "Hi"}]}


def parse(**changes: Any) -> Any:
    return parse_chat(orjson.dumps({**VALID, **changes}))


def refusal(**changes: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        parse(**changes)
    return caught.value


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("model", [None, "", "x" * 129, 5, True, ["bench-model"]]),
        ("messages", [None, [], {}, "Hi", 3]),
        ("temperature", [-0.1, 2.1, "1", True]),
        ("top_p", [-0.1, 1.1, "0.5", False]),
        ("n", [0, 9, 1.0, "2", True]),
        ("max_tokens", [0, -1, 1.5, "5", True]),
        ("max_completion_tokens", [0, -1, 1.5, "5", True]),
        ("presence_penalty", [-2.1, 2.1, "0"]),
        ("frequency_penalty", [-2.1, 2.1, "0"]),
        ("stop", [5, [1], {"a": 1}, True]),
        ("stream", ["true", 1, 0]),
        ("stream_options", ["x", []]),
        ("response_format", ["json", 1]),
        ("tools", [{}, "x"]),
        ("tool_choice", [1, []]),
        ("user", [1, {}]),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(field: str, values: list[Any]) -> None:
    for value in values:
        error = refusal(**{field: value})
        assert (error.kind.status, error.kind.type) == (400, "invalid_request_error")
        assert error.param == field, f"{field}={value!r}"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Hi", "messages[0]"),
        ({"content": "Hi"}, "messages[0].role"),
        ({"role": 5, "content": "Hi"}, "messages[0].role"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": ["Hi"]}, "messages[0].content"),
    ],
)
def test_a_wrong_message_is_refused_by_its_place(message: Any, param: str) -> None:
    assert refusal(messages=[message]).param == param


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"NaN", b'{"model": NaN}', b'{"a": "\\ud800"}', b"\xff"])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        parse_chat(raw)
    assert caught.value.kind.status == 400


def test_deep_nesting_is_refused_and_64_levels_are_not() -> None:
    def nested(levels: int) -> list[Any]:
        value: list[Any] = []
        for _ in range(levels - 1):
            value = [value]
        return value

    assert parse(extra=nested(62)).model == "bench-model"
    assert "nested" in refusal(extra=nested(100)).message
    assert parse(extra=[[] for _ in range(200)]).model == "bench-model"


def test_limits_are_inclusive_and_absent_or_null_fields_pass() -> None:
    chat = parse(temperature=2, top_p=0, n=8, max_tokens=1, presence_penalty=-2, stop=["a"], user="u", tools=None)
    assert (chat.choices, chat.stream) == (8, False)
    assert parse(stream=True).stream


def test_the_upstream_gets_its_own_model_name_capped_output_and_none_of_our_fields() -> None:
    chat = parse(max_tokens=5_000, max_completion_tokens=50, provider={"order": []}, metadata={"a": "b"}, seed=7)
    sent = orjson.loads(body_for_upstream(chat, offered(), "gpt-x"))
    assert sent == {**VALID, "model": "gpt-x", "max_tokens": 100, "max_completion_tokens": 50, "seed": 7}


def test_usage_is_asked_for_in_every_stream() -> None:
    for options in (None, {}, {"include_usage": False}):
        sent = orjson.loads(body_for_upstream(parse(stream=True, stream_options=options), offered(), "gpt-x"))
        assert sent["stream_options"] == {"include_usage": True}
    assert "stream_options" not in orjson.loads(body_for_upstream(parse(), offered(), "gpt-x"))


def test_an_image_to_a_text_model_is_refused_by_modality_and_place() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    chat = parse(messages=[{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}])
    with pytest.raises(GatewayError) as caught:
        check_modalities(chat, offered())
    assert (caught.value.code, caught.value.param) == ("unsupported_modality", "messages[0].content[1]")
    assert "image" in caught.value.message
    check_modalities(chat, offered(input_modalities=("text", "image")))


def test_an_unknown_kind_of_part_is_refused() -> None:
    chat = parse(messages=[{"role": "user", "content": [{"type": "hologram"}]}])
    with pytest.raises(GatewayError) as caught:
        check_modalities(chat, offered())
    assert caught.value.param == "messages[0].content[0].type"
