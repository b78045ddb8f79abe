"""The official OpenAI SDK for Python against a running installation: only base URL and key are ours."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import orjson
import pytest
from openai import (
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    Omit,
    OpenAI,
)
from pydantic import BaseModel

from tests.acceptance.installing import Installation
from tests.acceptance.upstream import fault_model

pytestmark = pytest.mark.installation
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["town", "days"],
            "additionalProperties": False,
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[OpenAI]:
    with OpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=0) as made:
        yield made


def _user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


def test_an_answer_has_the_text_the_public_model_name_and_true_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="truth-echo", messages=_user("Hello, CRUN, hello!"))
    assert answer.choices[0].message.content == "Hello, CRUN, hello!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "truth-echo"
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)


def test_a_stream_comes_word_by_word_and_its_last_chunk_has_the_usage(client: OpenAI) -> None:
    options = {"include_usage": True}
    with client.chat.completions.create(
        model="truth-echo", messages=_user("one two three"), stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert words == ["one ", "two ", "three"]
    assert [chunk for chunk in chunks if chunk.usage] == [chunks[-1]]
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 3)
    assert {chunk.model for chunk in chunks} == {"truth-echo"}
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_that_did_not_ask_for_usage_has_it_all_the_same(client: OpenAI) -> None:
    with client.chat.completions.create(model="truth-echo", messages=_user("one two"), stream=True) as stream:
        chunks = list(stream)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 4


def test_the_stream_helper_accumulates_the_answer(client: OpenAI) -> None:
    with client.chat.completions.stream(model="truth-echo", messages=_user("one two three")) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].message.content == "one two three"


def test_the_async_client_gets_answers_streams_and_objects(installation: Installation) -> None:
    async def ask() -> tuple[str | None, str, Any, Any]:
        async with AsyncOpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=0) as client:
            answer = await client.chat.completions.create(model="truth-echo", messages=_user("one two"))
            stream = await client.chat.completions.create(model="truth-echo", messages=_user("three four"), stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
            who: Any = {"model": "truth-json", "messages": _user("Who?"), "response_format": Person}
            parsed = await client.chat.completions.parse(**who)
            async with client.chat.completions.stream(**who) as helper:
                streamed = await helper.get_final_completion()
            objects = (each.choices[0].message.parsed for each in (parsed, streamed))
            return answer.choices[0].message.content, text, *objects

    *texts, parsed, streamed = asyncio.run(ask())
    assert texts == ["one two", "three four"]
    assert isinstance(parsed, Person) and parsed == streamed


def test_20_streams_at_once_each_get_their_own_words(installation: Installation) -> None:
    async def one(client: AsyncOpenAI, number: int) -> tuple[str, int]:
        stream = await client.chat.completions.create(
            model="truth-echo",
            messages=_user(" ".join(f"{number}-{word}" for word in range(30))),
            stream=True,
            extra_body={"sandbox": {"chunk_delay_ms": 10}},
        )
        text, total = "", 0
        async for chunk in stream:
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            total = chunk.usage.total_tokens if chunk.usage else total
        return text, total

    async def all_of_them() -> list[tuple[str, int]]:
        async with AsyncOpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(20)))

    expected = [(" ".join(f"{number}-{word}" for word in range(30)), 60) for number in range(20)]
    assert asyncio.run(all_of_them()) == expected


def test_a_tool_is_called_and_its_result_is_answered(client: OpenAI) -> None:
    first = client.chat.completions.create(model="truth-tools", messages=_user("How is Rome?"), tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls
    assert call.function.name == "weather"
    arguments = orjson.loads(call.function.arguments)
    assert isinstance(arguments["town"], str)
    assert arguments["days"] >= 1
    told = {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}
    messages = [*_user("How is Rome?"), first.choices[0].message, told]
    second = client.chat.completions.create(model="truth-tools", messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == 'The tool answered: "22 degrees"'


def test_a_tool_call_is_streamed_in_pieces(client: OpenAI) -> None:
    with client.chat.completions.stream(model="truth-tools", messages=_user("How is Rome?"), tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert set(orjson.loads(call.function.arguments)) == {"town", "days"}


def test_an_answer_follows_the_json_schema(client: OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    answer = client.chat.completions.create(model="truth-json", messages=_user("Who?"), response_format=wanted)
    person = orjson.loads(answer.choices[0].message.content)
    assert isinstance(person["name"], str)
    assert isinstance(person["age"], int)


class Person(BaseModel):
    """What the parse helper makes of an answer."""

    name: str
    age: int


def test_the_parse_helper_makes_an_object_of_an_answer(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model="truth-json", messages=_user("Who?"), response_format=Person)
    assert isinstance(answer.choices[0].message.parsed, Person)
    with client.chat.completions.stream(model="truth-json", messages=_user("Who?"), response_format=Person) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Person)


def test_the_raw_response_has_our_headers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="truth-echo", messages=_user("Hello"))
    assert raw.headers["x-request-id"] == raw.headers["x-crun-generation-id"] == raw.request_id
    assert float(raw.headers["x-crun-cost"]) == raw.parse().usage.cost > 0  # type: ignore[union-attr]  # our own field
    with client.chat.completions.with_streaming_response.create(
        model="truth-echo", messages=_user("Hello"), stream=True
    ) as streaming:
        assert streaming.headers["content-type"].startswith("text/event-stream")
        assert list(streaming.iter_lines())[-2:] == ["data: [DONE]", ""]


def test_the_async_client_embeds_and_completes(installation: Installation) -> None:
    async def ask() -> tuple[int, str, list[str]]:
        async with AsyncOpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=0) as made:
            vectors = await made.embeddings.create(model="sandbox-embedding", input=["one", "two"])
            text = await made.completions.create(model="truth-echo", prompt="one two")
            listed = [model.id async for model in made.models.list()]
            return len(vectors.data), text.choices[0].text, listed

    vectors, text, listed = asyncio.run(ask())
    assert (vectors, text) == (2, "one two")
    assert "truth-echo" in listed


def test_an_image_reaches_a_model_that_sees(client: OpenAI) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    answer = client.chat.completions.create(model="truth-vision", messages=_user(parts))
    assert answer.choices[0].message.content == "1 image: image/png, 70 bytes"


def test_an_image_for_a_model_that_does_not_see_is_refused_by_its_modality(client: OpenAI) -> None:
    parts = [{"type": "image_url", "image_url": {"url": PIXEL}}]
    with pytest.raises(BadRequestError, match="image") as refused:
        client.chat.completions.create(model="truth-echo", messages=_user(parts))
    assert refused.value.param == "messages[0].content[0]"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        client.chat.completions.create(model="no-such-model", messages=_user("Hello"))
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"
    assert refused.value.request_id.startswith("req_")
    with pytest.raises(NotFoundError) as refused:
        client.chat.completions.create(model="no-such-model", messages=_user("Hello"), stream=True)
    assert refused.value.code == "model_not_found"


def test_a_wrong_key_is_an_authentication_error(installation: Installation) -> None:
    last = "1" if installation.api_key.endswith("0") else "0"
    for key in ("nonsense", "sk-from-elsewhere", installation.api_key[:-1] + last):
        with OpenAI(base_url=installation.api, api_key=key, max_retries=0) as stranger:
            with pytest.raises(AuthenticationError) as refused:
                stranger.chat.completions.create(model="truth-echo", messages=_user("Hello"))
            assert refused.value.code == "invalid_api_key"
            assert key not in str(refused.value.body)
            with pytest.raises(AuthenticationError):
                stranger.models.list()


def test_the_key_may_come_in_x_api_key_alone(installation: Installation) -> None:
    headers = {"Authorization": Omit(), "X-API-KEY": installation.api_key}
    with OpenAI(base_url=installation.api, api_key="not sent", max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(
            model="truth-echo", messages=_user("Hello"), extra_headers=headers
        )
        assert "authorization" not in answer.http_request.headers
        assert answer.parse().choices[0].message.content == "Hello"


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("temperature", {"temperature": 3}),
        ("temperature", {"temperature": True}),
        ("top_p", {"top_p": 1.5}),
        ("n", {"n": 9}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_completion_tokens", {"max_completion_tokens": "5"}),
        ("presence_penalty", {"presence_penalty": -2.5}),
        ("stop", {"stop": 7}),
        ("messages", {"messages": []}),
        ("model", {"model": ""}),
    ],
)
def test_a_bad_field_is_a_bad_request_that_names_it(client: OpenAI, param: str, fields: dict[str, Any]) -> None:
    request = {"model": "truth-echo", "messages": _user("Hello"), **fields}
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(**request)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_a_limit_above_the_models_own_is_capped_not_refused(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="truth-echo", messages=_user("one two three"), max_tokens=10_000_000)
    assert answer.choices[0].message.content == "one two three"
    short = client.chat.completions.create(model="truth-echo", messages=_user("one two three"), max_completion_tokens=2)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 2


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"truth-echo", "truth-vision", "sandbox-echo"} <= set(listed)
    model = client.models.retrieve("truth-echo")
    assert model == listed["truth-echo"]
    assert (model.object, model.owned_by) == ("model", "Truth")
    assert model.pricing["prompt"] == "0.000000123456789"  # type: ignore[attr-defined]  # beyond OpenAI's schema
    with pytest.raises(NotFoundError) as refused:
        client.models.retrieve("no-such-model")
    assert refused.value.code == "model_not_found"


def test_an_upstream_that_fails_is_a_server_error_with_a_request_id(client: OpenAI) -> None:
    with pytest.raises(InternalServerError) as failed:
        client.chat.completions.create(model=fault_model("500"), messages=_user("Hello"))
    assert failed.value.status_code == 502
    assert failed.value.request_id.startswith("req_")


def test_the_clients_own_retries_get_over_an_overloaded_upstream(installation: Installation) -> None:
    with OpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=2) as patient:
        answer = patient.chat.completions.create(model=fault_model("flaky-1"), messages=_user("Hello"), user="patient")
    assert answer.choices[0].message.content == "Hello"


def test_a_stream_that_breaks_raises_in_the_client_and_never_ends_cleanly(client: OpenAI) -> None:
    received = []
    with (
        pytest.raises(Exception, match="broke off") as failed,
        client.chat.completions.create(
            model=fault_model("cut-3"), messages=_user("one two three four five"), stream=True
        ) as stream,
    ):
        for chunk in stream:
            received.append(chunk.choices[0].delta.content or "")
    assert type(failed.value).__name__ == "APIError"
    assert "".join(received) == "one two three "


@pytest.mark.parametrize("stream", [True, False])
def test_an_idempotency_key_gives_the_same_answer_again_and_is_charged_once(client: OpenAI, stream: bool) -> None:
    def ask(text: str) -> Any:
        return client.chat.completions.with_raw_response.create(
            model="truth-echo", messages=_user(text), stream=stream, extra_headers={"Idempotency-Key": f"sdk {stream}"}
        )

    first, again = ask("one two three"), ask("one two three")
    told = [list(answer.parse()) if stream else answer.parse() for answer in (first, again)]
    assert told[0] == told[1]
    assert again.headers["x-crun-idempotent-replay"] == "true"
    assert again.headers["x-request-id"] == first.headers["x-request-id"]
    with pytest.raises(ConflictError) as refused:
        ask("something else")
    assert refused.value.code == "idempotency_key_reused"


def test_the_clients_own_retry_gets_the_answer_that_its_first_try_was_charged_for(installation: Installation) -> None:
    """The connection dies when the answer is complete; the SDK sends the same key again by itself."""
    sent = []

    class Losing(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            response = super().handle_request(request)
            sent.append(request.headers["idempotency-key"])
            if len(sent) == 1:
                response.read()
                response.close()
                raise httpx2.ReadError("the connection was lost", request=request)
            return response

    with OpenAI(
        base_url=installation.api, api_key=installation.api_key, http_client=httpx2.Client(transport=Losing())
    ) as client:
        answer = client.chat.completions.with_raw_response.create(
            model="truth-echo", messages=_user("one two three"), extra_headers={"Idempotency-Key": "lost and found"}
        )
    assert sent == ["lost and found"] * 2
    assert answer.headers["x-crun-idempotent-replay"] == "true"
    assert answer.parse().choices[0].message.content == "one two three"
