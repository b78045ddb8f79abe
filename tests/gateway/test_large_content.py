"""Large requests on their way out: in pieces they are the same JSON, whatever their long strings have in them."""

import gc
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.catalog.dialects import with_defaults
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.large_body import LARGE_BYTES, LONG_BYTES, STEP_BYTES
from apps.gateway.dialects.large_content import PIECE_CHARACTERS, LargeContent, Tail, tail_of, written
from apps.gateway.dialects.responses.history import items_that_left
from apps.gateway.dialects.responses.request import responses_request
from apps.gateway.errors import GatewayError
from apps.gateway.providers import PROVIDERS
from tests.factories import TARGET, offered
from tests.gateway.conftest import Bench
from tests.upstream.aws_signature import verify
from tests.upstream.bedrock_shapes import CREDENTIAL, WHOLE
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream

__all__ = ["upstream"]

IMAGE = "QUJD" * ((LARGE_BYTES + 600_000) // 4)
URL = f"data:image/png;base64,{IMAGE}"

long_texts = st.builds(
    lambda unit, more: unit * ((LONG_BYTES + more) // len(unit) + 1),
    st.text(min_size=1, max_size=5),
    st.integers(0, 2 * PIECE_CHARACTERS),
)
values = st.recursive(
    st.text(max_size=8) | st.integers(0, 9) | long_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def whole(content: Any) -> bytes:
    assert isinstance(content, LargeContent)
    steps = list(content.weigh())
    body = b"".join(content.pieces())
    assert len(body) == len(content)
    assert len(steps) >= len(body) // (2 * STEP_BYTES)
    return body


def chat(*parts: dict[str, Any], **fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": list(parts)}], **fields}
    return ChatRequest(model="m", stream=False, choices=1, body=body, body_bytes=len(orjson.dumps(body)))


def image() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": URL}}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=4), values, max_size=4))
def test_in_pieces_it_is_the_same_json(content: dict[str, Any]) -> None:
    before = orjson.dumps(content)
    assert whole(LargeContent(content)) == before
    assert orjson.dumps(content) == before  # every string is where it was


def test_a_string_that_stands_in_two_places_is_written_in_both() -> None:
    shared = {"url": "A" * LONG_BYTES}
    content = {"a": shared, "b": [shared, Tail("xx" + "B" * LONG_BYTES, 2)]}
    assert orjson.loads(whole(LargeContent(content))) == {"a": shared, "b": [shared, "B" * LONG_BYTES]}


def test_only_a_long_string_has_a_tail() -> None:
    assert tail_of("data:,abc", 6) == "abc"
    assert isinstance(tail_of(URL, 22), Tail) and str(tail_of(URL, 22)) == IMAGE
    assert written({"a": 1}, size=LARGE_BYTES) == b'{"a":1}'


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        ("openai", ("messages", 0, "content", 0, "image_url", "url")),
        ("azure", ("messages", 0, "content", 0, "image_url", "url")),
        ("anthropic", ("messages", 0, "content", 0, "source", "data")),
        ("gemini", ("contents", 0, "parts", 0, "inlineData", "data")),
        ("bedrock", ("messages", 0, "content", 0, "image", "source", "bytes")),
    ],
)
def test_every_provider_gets_a_large_image_whole(dialect: str, path: tuple[Any, ...]) -> None:
    target = msgspec.structs.replace(
        TARGET, dialect=dialect, options=with_defaults(dialect, {"region": "eu-central-1"})
    )
    request = PROVIDERS[dialect].chat_request(chat(image()), offered(), target, request_id="req_1")
    found = orjson.loads(whole(request.body))
    for step in path:
        found = found[step]
    assert found == (URL if dialect in ("openai", "azure") else IMAGE)


def test_a_file_of_text_is_no_way_around_the_bound_on_text() -> None:
    file = {"type": "file", "file": {"file_data": f"data:text/plain;base64,{IMAGE}"}}
    target = msgspec.structs.replace(TARGET, dialect="anthropic")
    with pytest.raises(GatewayError, match="2 MB at most"):
        PROVIDERS["anthropic"].chat_request(chat(file), offered(), target, request_id="req_1")


@pytest.mark.asyncio
async def test_a_large_request_to_bedrock_is_signed_as_a_whole(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "bedrock", options={"region": "eu-central-1"}, api_key=CREDENTIAL)
    upstream.answer(orjson.dumps(WHOLE))
    messages = [{"role": "user", "content": [image()]}]
    call = await bench.chat(PUBLIC_MODEL, messages=messages, stream=False)
    assert call.status == 200
    assert upstream.request.json["messages"][0]["content"][0]["image"]["source"]["bytes"] == IMAGE
    verify(upstream.request, region="eu-central-1")


PDF = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "AAAA" * 300_000, "filename": "a.pdf"}}
TEXT = {"type": "text", "text": "one two three"}
SPEECH = {"type": "input_audio", "input_audio": {"data": "AAAA" * 9_000, "format": "wav"}}


def figures(asked: ChatRequest) -> tuple[Any, ...]:
    bounds = [asked.input_bound(200_000, text_tokens=count) for count in (None, 5)]
    return (*bounds, asked.input_estimate(), asked.images, asked.text_bytes, asked.countable_text().count("three"))


@pytest.mark.parametrize(
    "parts",
    [
        (TEXT, image()),
        (TEXT, image(), image(), SPEECH),
        (TEXT, SPEECH, SPEECH),
        (TEXT, {"type": "input_audio", "input_audio": {"data": "https://sounds.example/a.wav", "format": "wav"}}),
        (TEXT, {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "AAAA" * 9_000}}),
        (image(), PDF),
        (TEXT, {"type": "image_url", "image_url": {"url": "data:video/mp4;base64," + "AAAA" * 9_000}}),
        (TEXT, {"type": "image_url", "image_url": {"url": "https://pictures.example/a/long/way.png"}}),
    ],
)
def test_what_was_counted_stays_when_media_are_let_go(parts: tuple[dict[str, Any], ...]) -> None:
    asked = chat(*parts)
    others, before = asked.body, figures(asked)
    asked.let_go()
    assert figures(asked) == before
    assert len(orjson.dumps(asked.body)) < 1_000
    assert others["messages"][0]["content"] == list(parts)


@pytest.mark.parametrize("earlier", [0, 2])
def test_an_answer_that_is_kept_holds_the_pictures_of_its_own_turn_alone(earlier: int) -> None:
    seen = {"role": "user", "content": [{"type": "input_image", "image_url": URL}]}
    given = [seen, {"role": "assistant", "content": "A town."}, {"role": "user", "content": [*seen["content"]]}]
    told = {"model": "m", "input": given[2 - earlier :], "instructions": "Be brief."}
    asked = responses_request(told, size=len(URL), earlier=earlier)
    asked.is_kept, messages, before = True, asked.body["messages"], figures(asked)
    asked.let_go()
    assert figures(asked) == before
    assert (asked.told["input"], asked.earlier) == (given[2:], 0)
    assert items_that_left(asked.body["messages"], first=asked.earlier_messages) == items_that_left(
        messages, first=asked.earlier_messages
    )
    held = orjson.dumps([asked.told, asked.body["messages"]]).count(IMAGE.encode())
    assert held == 2  # what is stored, and what left


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
async def test_a_stream_that_runs_holds_no_pictures(bench: Bench, path: str) -> None:
    bench.offer("sandbox-echo")
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    body: dict[str, Any] = {"model": "sandbox-echo", "stream": True, "sandbox": {"chunks": 30, "chunk_delay_ms": 200}}
    if path == "responses":
        parts = [{"type": "input_text", "text": "a b c"}, {"type": "input_image", "image_url": URL}]
        body |= {"input": [{"role": "user", "content": parts}], "store": False}
    else:
        picture = image() if path == "chat/completions" else {"type": "image", "source": source}
        body |= {"messages": [{"role": "user", "content": [TEXT, picture]}], "max_tokens": 99}
    call = bench.start(f"/api/v1/{path}", body)
    del body
    await call.until(lambda call: b"one" in call.body or b"a" in call.body.partition(b"delta")[2])
    running = [each for each in gc.get_objects() if isinstance(each, ChatRequest) and each.model == "sandbox-echo"]
    call.leave()
    (asked,) = running
    held = [asked.body, getattr(asked, "native", None), getattr(asked, "told", None)]
    assert len(orjson.dumps(held)) < 5_000
    assert call.task is not None
    await call.task
