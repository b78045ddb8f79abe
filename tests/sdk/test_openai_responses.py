"""The official OpenAI SDK for Python and the Responses API of a running installation: chains, helpers, errors."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from tests.acceptance.installing import Installation
from tests.acceptance.upstream import fault_model

pytestmark = pytest.mark.installation
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg"
    "=="
)
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    "strict": False,
}


class Person(BaseModel):
    """What the parse helpers make of an answer, and of a call."""

    name: str
    age: int


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[OpenAI]:
    with OpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=0) as made:
        yield made


def _call(output: Any) -> ResponseFunctionToolCall:
    (call,) = [item for item in output if isinstance(item, ResponseFunctionToolCall)]
    return call


def _told(call: ResponseFunctionToolCall) -> Any:
    return [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]


def test_an_answer_whole_and_as_a_stream(client: OpenAI) -> None:
    answer = client.responses.create(model="truth-echo", input="one two three", store=False)
    assert (answer.output_text, answer.status) == ("one two three", "completed")
    assert answer.usage is not None and (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 3)
    with client.responses.stream(model="truth-echo", input="one two three", store=False) as stream:
        words = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(words) == "one two three"


def test_a_conversation_that_the_caller_keeps(client: OpenAI) -> None:
    conversation: list[Any] = [{"role": "user", "content": "How is Ulm?"}]
    first = client.responses.create(model="truth-tools", input=conversation, tools=[WEATHER], store=False)
    call = _call(first.output)
    conversation += [call.model_dump(exclude_none=True), *_told(call)]
    second = client.responses.create(model="truth-tools", input=conversation, tools=[WEATHER], store=False)
    assert "sunny" in second.output_text


def test_a_chain_of_stored_responses_whole_and_streamed(client: OpenAI) -> None:
    """Each turn says only what is new. What went before is read again, and billed."""
    first = client.responses.create(model="truth-tools", input="How is Ulm?", tools=[WEATHER])
    called = _call(first.output)
    with client.responses.stream(
        model="truth-tools", input=_told(called), tools=[WEATHER], previous_response_id=first.id
    ) as stream:
        second = stream.get_final_response()
    assert (second.previous_response_id, "sunny" in second.output_text) == (first.id, True)
    with client.responses.create(
        model="truth-echo", input="one two", previous_response_id=second.id, stream=True
    ) as events:
        third = list(events)[-1]
    assert third.type == "response.completed"
    assert (third.response.previous_response_id, third.response.output_text) == (second.id, "one two")
    assert third.response.usage is not None and second.usage is not None
    assert third.response.usage.input_tokens > second.usage.input_tokens + 2

    again = client.responses.retrieve(third.response.id)
    assert (again.output_text, again.previous_response_id) == ("one two", second.id)
    kinds = [item.type for item in client.responses.input_items.list(again.id, order="asc")]
    assert kinds == ["message", "function_call", "function_call_output", "message", "message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="truth-echo", input="x", previous_response_id=first.id)
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "previous_response_not_found")


def test_the_async_client_chains_streams_parses_and_sees(installation: Installation) -> None:
    async def chain(client: AsyncOpenAI, words: str) -> tuple[str, int]:
        first = await client.responses.create(model="truth-echo", input=words)
        async with client.responses.stream(
            model="truth-echo", input=f"{words} again", previous_response_id=first.id
        ) as stream:
            text = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            second = await stream.get_final_response()
        events = await client.responses.create(
            model="truth-echo", input="end", previous_response_id=second.id, stream=True
        )
        last = [event async for event in events][-1]
        assert last.type == "response.completed" and last.response.usage is not None
        assert "".join(text) == second.output_text == f"{words} again"
        return second.output_text, last.response.usage.input_tokens

    async def ask() -> tuple[list[tuple[str, int]], Any, str]:
        async with AsyncOpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=0) as client:
            parsed = await client.responses.parse(model="truth-json", input="Who?", text_format=Person, store=False)
            image: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL, "detail": "auto"}]}]
            seen = await client.responses.create(model="truth-vision", input=image, store=False)
            chains = await asyncio.gather(*(chain(client, f"chain {number}") for number in range(4)))
            return chains, parsed.output_parsed, seen.output_text

    chains, parsed, seen = asyncio.run(ask())
    assert chains == [(f"chain {number} again", 11) for number in range(4)]
    assert isinstance(parsed, Person)
    assert seen == "1 image: image/png, 70 bytes"


def test_the_parse_helpers_make_objects_of_answers_and_calls(client: OpenAI) -> None:
    parsed = client.responses.parse(model="truth-json", input="Who?", text_format=Person, store=False)
    assert isinstance(parsed.output_parsed, Person)
    with client.responses.stream(model="truth-json", input="Who?", text_format=Person, store=False) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed
    tool = openai.pydantic_function_tool(Person)
    flat: Any = {"type": "function", **tool["function"]}
    called = client.responses.parse(model="truth-tools", input="Who?", tools=[flat], store=False)
    assert isinstance(_call(called.output).parsed_arguments, dict)  # type: ignore[attr-defined]  # of the parsed kind


def test_errors_are_the_sdks_and_its_retries_get_over_one(installation: Installation, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nobody", input="x", store=False)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="truth-echo", input="x", temperature=3, store=False)
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model=fault_model("500"), input="x", store=False)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="ak_wrong").responses.create(model="truth-echo", input="x", store=False)
    with client.responses.stream(model=fault_model("cut-3"), input="one two three four", store=False) as stream:
        last = list(stream)[-1]
    assert last.type == "response.failed" and last.response.error is not None
    patient = client.with_options(max_retries=2)
    answer = patient.responses.create(model=fault_model("flaky-1"), input="Hello", user="of responses", store=False)
    assert answer.output_text == "Hello"
