"""Large bodies: what is read of one without its long strings is what is read of it as it came."""

import base64
import os
from collections.abc import Generator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.dialects import large_body
from apps.gateway.dialects.chat import body_for_upstream, parse_chat
from apps.gateway.dialects.large_body import LargeBody, cut_in_steps
from apps.gateway.dialects.messages.request import parse_messages
from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.dialects.strict_json import MAX_TEXT_BYTES, read_object
from apps.gateway.errors import GatewayError
from tests.factories import offered
from tests.gateway.conftest import Bench
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream

__all__ = ["upstream"]

IMAGE = base64.b64encode(os.urandom(60_000)).decode()
URL = f"data:image/png;base64,{IMAGE}"
LONG = 8

texts = (
    st.text(max_size=6)
    | st.text('aZ09+/=:,"\\ \n\x1fé{}[]', max_size=60)
    | st.text("Ab0+/", min_size=LONG, max_size=60)
)
values = st.recursive(
    texts | st.none() | st.booleans() | st.integers(-(2**60), 2**60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def cut(raw: bytes, long_bytes: int = large_body.LONG_BYTES) -> LargeBody | None:
    def through() -> Generator[None, None, None]:
        made.append((yield from cut_in_steps(raw, long_bytes=long_bytes)))

    made: list[LargeBody | None] = []
    assert list(through())
    assert made[0] is None or len(made[0]) == len(raw)
    return made[0]


def body_with(*parts: dict[str, Any], **fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": list(parts)}], **fields})


def image(url: str = URL) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def outcome(raw: Any) -> Any:
    try:
        return read_object(raw)
    except GatewayError as error:
        return error.kind, error.param


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.text(max_size=6), values, max_size=5), st.booleans(), st.data())
def test_what_is_read_is_the_same_with_and_without_the_cut(
    body: dict[str, Any], spaced: bool, data: st.DataObject
) -> None:
    raw = orjson.dumps(body, option=orjson.OPT_INDENT_2 if spaced else 0)
    if data.draw(st.booleans()):  # broken somewhere
        at = data.draw(st.integers(0, len(raw)))
        raw = (
            raw[:at]
            + data.draw(st.sampled_from([b"", b'"', b"\\", b"\x01", b"AAAAAAAAAAAAAAAA", b"\xff"]))
            + raw[at + 1 :]
        )
    without = cut(raw, LONG)
    if without is None:
        return
    after = outcome(without)
    if isinstance(after, tuple) and after[1] is None and isinstance(outcome(raw), dict):
        with pytest.raises(GatewayError, match="key of an object"):
            read_object(without)
        return
    before = outcome(raw)
    assert after == before or (after[0] == before[0] and isinstance(after, tuple))


def test_the_upstream_gets_the_same_bytes() -> None:
    raw = body_with({"type": "text", "text": "What?"}, image(), image(), temperature=0.5, user="é")
    without = cut(raw)
    assert without is not None and len(without.rest) < 1_000
    cut_chat, chat = parse_chat(without), parse_chat(raw)
    assert cut_chat == chat
    assert body_for_upstream(cut_chat, offered(), "up") == body_for_upstream(chat, offered(), "up")


def test_messages_and_responses_read_the_same() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    content = [{"type": "image", "source": source}]
    messages = orjson.dumps({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": content}]})
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]
    responses = orjson.dumps({"model": "m", "input": items})
    without_messages, without_responses = cut(messages), cut(responses)
    assert without_messages is not None and without_responses is not None
    assert parse_messages(without_messages) == parse_messages(messages)
    assert parse_responses(without_responses) == parse_responses(responses)


def test_whoever_knew_the_names_of_another_body_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = cut(body_with(image()))
    assert first is not None
    name = orjson.loads(first.rest)["messages"][0]["content"][0]["image_url"]["url"]
    raw = body_with({"type": "text", "text": name}, image())
    second = cut(raw)
    assert second is not None
    assert read_object(second) == orjson.loads(raw)
    monkeypatch.setattr(large_body.secrets, "token_hex", lambda _: name[1:33])
    assert cut(raw) is None  # guessed, even so: it is read as it came


def test_a_key_that_is_as_long_is_refused() -> None:
    without = cut(orjson.dumps({"model": "m", "messages": [], IMAGE: 1}))
    with pytest.raises(GatewayError, match="key of an object in the request body is too long"):
        read_object(without or b"")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:50_000],
        lambda raw: raw.replace(b'"m"', b'"m'),
        lambda raw: raw[:-2] + b"x}",
        lambda raw: raw.replace(b"}]}", b"}]\n,,}"),
        lambda raw: raw[:40_000] + b"\x00" + raw[40_000:],
        lambda raw: raw[:40_000] + b"\xff" + raw[40_000:],
        lambda raw: raw[:40_000] + b'"' + raw[40_000:],
    ],
    ids=["open", "torn", "no quote", "no JSON", "in another line", "control", "no UTF-8", "quote within"],
)
def test_what_is_broken_is_told_in_the_same_words(spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.dialects.strict_json._EXPLAINED_BYTES", 0)
    raw = spoil(body_with({"type": "text", "text": "é"}, image(), image()))
    with pytest.raises(GatewayError) as before:
        read_object(raw)
    without = cut(raw)
    assert without is not None
    with pytest.raises(GatewayError) as after:
        read_object(without)
    assert (after.value.kind, after.value.message) == (before.value.kind, before.value.message)


def test_no_base64_is_for_the_upstream_to_refuse() -> None:
    raw = body_with(image(URL[:-3] + "!~ "))
    without = cut(raw)
    assert without is not None
    assert parse_chat(without) == parse_chat(raw)


@pytest.mark.parametrize("within", ["\\/", "é", "\\n", "\\u003a"])
def test_a_string_that_must_be_read_is_left(within: str) -> None:
    raw = b'{"a":"%b"}' % f"{IMAGE}{within}{IMAGE}".encode()
    assert cut(raw) is None


def test_sizes_are_those_of_the_whole() -> None:
    text = "a" * (MAX_TEXT_BYTES + 1)
    for raw in (body_with({"type": "text", "text": text}), body_with(image(), note=text)):
        without = cut(raw)
        assert without is not None and len(without.rest) < 1_000
        with pytest.raises(GatewayError, match="without its media"):
            parse_chat(without)
    pictured = cut(body_with(image(), image()))
    assert pictured is not None
    assert parse_chat(pictured).body_bytes == len(pictured) > 2 * len(URL)


def test_others_have_their_turn_after_each_step() -> None:
    raw = body_with(image("data:image/png;base64," + "A" * (10 * large_body.STEP_BYTES)))
    assert sum(1 for _ in cut_in_steps(raw)) >= 10


ANSWER: dict[str, Any] = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}  # fmt: skip
PICTURE = base64.b64encode(os.urandom(2_400_000)).decode()
PICTURE_URL = f"data:image/png;base64,{PICTURE}"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": [image(PICTURE_URL)]}]}),
        (
            "messages",
            {
                "max_tokens": 5,
                "messages": [{"role": "user", "content": [{"type": "image", "source": {
                    "type": "base64", "media_type": "image/png", "data": PICTURE}}]}],
            },
        ),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE_URL}]}]}),
    ],
    ids=["chat", "messages", "responses"],
)  # fmt: skip
async def test_an_image_reaches_the_upstream_as_it_was(
    bench: Bench, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    read: list[object] = []
    put_back = LargeBody.put_back
    monkeypatch.setattr(LargeBody, "put_back", lambda self, body: (read.append(self), put_back(self, body)))
    upstream.offer(bench, "openai")
    upstream.answer(orjson.dumps(ANSWER))
    headers = {"authorization": f"Bearer {bench.key}", "idempotency-key": "one"}
    body = {"model": PUBLIC_MODEL, **fields}
    first = await bench.call(f"/api/v1/{path}", body, headers=headers)
    assert (first.status, len(read)) == (200, 1)
    assert upstream.request.json["messages"][0]["content"][0]["image_url"]["url"] == PICTURE_URL
    again = await bench.call(f"/api/v1/{path}", body, headers=headers)
    assert (again.json, len(read)) == (first.json, 1)
    body["user"] = "another"  # the end of the body
    assert (await bench.call(f"/api/v1/{path}", body, headers=headers)).status == 409
