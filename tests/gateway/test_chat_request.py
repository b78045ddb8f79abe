"""What is accepted as a Chat Completions request, and what the upstream gets of it."""

from typing import Any

import msgspec
import orjson
import pytest

from apps.gateway.dialects.chat import body_for_upstream, check_modalities, parse_chat
from apps.gateway.errors import GatewayError
from apps.gateway.providers.openai import OpenAI
from tests.factories import TARGET, offered

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
    for options in (None, {}, {"include_usage": False}, {"continuous_usage_stats": True, "other": 1}):
        sent = orjson.loads(body_for_upstream(parse(stream=True, stream_options=options), offered(), "gpt-x"))
        assert sent["stream_options"] == {"include_usage": True}
    assert "stream_options" not in orjson.loads(body_for_upstream(parse(), offered(), "gpt-x"))


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_output_that_we_cut_is_told_in_the_field_that_the_provider_knows(field: str) -> None:
    chat = parse(max_tokens=None)
    chat.cut_output(40)
    sent = orjson.loads(body_for_upstream(chat, offered(), "gpt-x", output_limit_field=field))
    assert sent == {**VALID, "model": "gpt-x", field: 40}
    target = msgspec.structs.replace(TARGET, output_limit_field=field)
    request = OpenAI().chat_request(chat, offered(), target, request_id="req_1")
    assert orjson.loads(request.body) == sent


@pytest.mark.parametrize("role", ["assistant", "function", "nobody"])
def test_media_count_whoever_is_said_to_have_sent_them(role: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/4k.png"}}
    video = {"type": "video_url", "video_url": {"url": "https://example.com/1h.mp4"}}
    chat = parse(messages=[{"role": role, "content": [image, image]}])
    assert chat.images == 2 and 2 * 8_192 < chat.input_bound(128_000) < 2 * 8_192 + 400
    with pytest.raises(GatewayError) as caught:
        check_modalities(chat, offered())
    assert (caught.value.code, caught.value.param) == ("unsupported_modality", "messages[0].content[0]")
    assert parse(messages=[{"role": role, "content": [video]}]).input_bound(128_000) == 128_000


def test_an_assistants_own_parts_are_text_but_for_what_they_hold() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/4k.png"}}
    own = [{"type": "refusal", "refusal": "No."}, {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]
    chat = parse(messages=[{"role": "assistant", "content": own}, *VALID["messages"]])
    check_modalities(chat, offered())
    assert chat.input_bound(128_000) < 400
    hidden = parse(messages=[{"role": "assistant", "content": [{"type": "thinking", "thinking": [image]}]}])
    assert hidden.images == 1 and hidden.input_bound(128_000) > 8_192
    with pytest.raises(GatewayError):
        check_modalities(hidden, offered())


@pytest.mark.parametrize(
    "audio", [{"data": "https://example.com/10h.wav"}, {"url": "https://example.com/10h.wav"}, {"data": 5}, None]
)
def test_audio_that_is_somewhere_else_may_be_as_long_as_the_context(audio: Any) -> None:
    def bound(part: Any) -> int:
        return int(parse(messages=[{"role": "user", "content": [part]}]).input_bound(128_000))

    assert bound({"type": "input_audio", "input_audio": audio}) == 128_000
    assert bound({"type": "input_audio", "input_audio": {"data": "A" * 3_200, "format": "wav"}}) < 500


def test_earlier_audio_that_is_only_named_may_be_as_long_as_the_context() -> None:
    assert parse(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}]).input_bound(128_000) == 128_000


def test_text_is_no_longer_with_media_than_without() -> None:
    def messages(text: str, url: str) -> list[Any]:
        parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "user", "content": parts}]

    error = refusal(messages=messages("a" * (3 << 20), "https://example.com/x.png"))
    assert error.kind.status == 413
    assert parse(messages=messages("a", "A" * (3 << 20))).images == 1
    video = [{"type": "video_url", "video_url": {"url": "A" * (3 << 20)}}]
    file = [{"type": "file", "file": {"file_data": "A" * (3 << 20)}}]
    for content in (video, file):
        assert parse(messages=[{"role": "user", "content": content}]).text_bytes < 300
    beside = [{**video[0], "text": "a" * (3 << 20)}]
    assert refusal(messages=[{"role": "user", "content": beside}]).kind.status == 413


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


@pytest.mark.parametrize("kind", ["video/mp4", "application/pdf", "audio/wav", ""])
def test_an_image_that_says_it_is_something_else_may_be_as_long_as_the_context(kind: str) -> None:
    part = {"type": "image_url", "image_url": {"url": f"DATA:{kind};base64,AAAA"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    assert parse_chat(orjson.dumps(body)).input_bound(100_000) == 100_000
    part["image_url"] = {"url": "data:Image/png;base64,AAAA"}
    assert parse_chat(orjson.dumps(body)).input_bound(100_000) < 10_000
