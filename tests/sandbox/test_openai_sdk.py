"""The sandbox through the official OpenAI client."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no stubs
import openai
import pytest

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
            "required": ["city", "days"],
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture
def client(sandbox: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=sandbox.url, api_key="any", max_retries=0) as client:
        yield client


def say(text: Any) -> Any:
    return [{"role": "user", "content": text}]


def test_echo_answers_with_the_last_user_message(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "be short"}, *say("first"), *say("hello  wide\nworld")]
    answer = client.chat.completions.create(model="sandbox-echo", messages=messages)
    assert answer.choices[0].message.content == "hello  wide\nworld"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        6,
        3,
        9,
    )


def test_a_stream_sends_the_role_then_a_word_a_chunk_then_usage(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model="sandbox-echo", messages=say("un deux trois"), stream=True, stream_options=options
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:4]] == ["un ", "deux ", "trois"]
    assert chunks[4].choices[0].finish_reason == "stop"
    assert chunks[5].choices == []
    assert chunks[5].usage is not None
    assert (chunks[5].usage.prompt_tokens, chunks[5].usage.completion_tokens) == (3, 3)
    assert len(chunks) == 6
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks[:5])


def test_a_stream_without_include_usage_has_no_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="sandbox-echo", messages=say("a b"), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_max_tokens_and_n_and_stop_are_kept(client: openai.OpenAI) -> None:
    cut = client.chat.completions.create(model="sandbox-echo", messages=say("a b c d"), max_tokens=2, n=3)
    assert [choice.message.content for choice in cut.choices] == ["a b "] * 3
    assert {choice.finish_reason for choice in cut.choices} == {"length"}
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 6
    stopped = client.chat.completions.create(model="sandbox-echo", messages=say("a b ### c"), stop=["###", "@"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("a b ", "stop")


def test_a_stream_of_several_choices_tells_them_apart(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="sandbox-echo", messages=say("a b"), n=2, stream=True)
    said = {0: "", 1: ""}
    for chunk in chunks:
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert said == {0: "a b", 1: "a b"}


def test_tools_calls_the_first_tool_with_arguments_of_its_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="sandbox-tools", messages=say("weather?"), tools=[WEATHER, TIME])
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])


def test_tools_streams_the_name_first_and_then_the_arguments_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="sandbox-tools",
            messages=say("weather?"),
            tools=[WEATHER],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    calls = [
        chunk.choices[0].delta.tool_calls[0] for chunk in chunks if chunk.choices and chunk.choices[0].delta.tool_calls
    ]
    assert calls[0].function is not None
    assert (calls[0].function.name, calls[0].function.arguments) == ("get_weather", "")
    assert (calls[0].id or "").startswith("call_")
    assert len(calls) > 2
    arguments = "".join(call.function.arguments or "" for call in calls if call.function)
    assert json.loads(arguments) == {"city": "text", "days": 2}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 1 + len(arguments.split()) == len(calls)


def test_tool_choice_is_honoured(client: openai.OpenAI) -> None:
    def call(**fields: Any) -> Any:
        create = client.chat.completions.create
        return create(model="sandbox-tools", messages=say("hi"), tools=[WEATHER, TIME], **fields).choices[0].message

    named = {"type": "function", "function": {"name": "get_time"}}
    assert call(tool_choice=named).tool_calls[0].function.name == "get_time"
    assert call(tool_choice="required").tool_calls[0].function.name == "get_weather"
    assert (call(tool_choice="none").tool_calls, call(tool_choice="none").content) == (None, "hi")
    with pytest.raises(openai.BadRequestError) as refused:
        call(tool_choice={"type": "function", "function": {"name": "absent"}})
    assert refused.value.param == "tool_choice"


def test_a_tools_result_is_answered_in_text(client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    messages: Any = [
        *say("time?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12 o'clock"},
    ]
    answer = client.chat.completions.create(model="sandbox-tools", messages=messages, tools=[TIME])
    assert answer.choices[0].message.content == 'The tool answered: "12 o\'clock"'


def test_json_answers_by_the_schema(client: openai.OpenAI) -> None:
    schema: Any = {
        "type": "object",
        "properties": {
            "when": {"type": "string", "format": "date"},
            "tags": {"type": "array", "minItems": 2},
        },
        "required": ["when", "tags"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "event", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(model="sandbox-json", messages=say("x"), response_format=wanted)
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)
    plain = client.chat.completions.create(
        model="sandbox-json", messages=say("x"), response_format={"type": "json_object"}
    )
    assert json.loads(plain.choices[0].message.content or "") == {"answer": "x"}


def test_vision_describes_images_without_fetching_them(client: openai.OpenAI) -> None:
    far = "https://images.example.invalid/cat.png?secret=1"
    parts = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": {"url": far, "detail": "low"}},
    ]
    answer = client.chat.completions.create(model="sandbox-vision", messages=say(parts))
    assert answer.choices[0].message.content == "2 images: image/png, 70 bytes; images.example.invalid"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3 + 2 * 85
    echoed = client.chat.completions.create(model="sandbox-echo", messages=say(parts))
    assert echoed.choices[0].message.content == "what is this [image] [image]"


def test_the_script_sets_output_counts_and_length(client: openai.OpenAI) -> None:
    script = {"output": "ja nein", "chunks": 5, "cached_tokens": 1, "reasoning_tokens": 2}
    answer = client.chat.completions.create(model="sandbox-echo", messages=say("a b"), extra_body={"sandbox": script})
    assert answer.choices[0].message.content == "ja nein ja nein ja "
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    assert (usage.completion_tokens, usage.prompt_tokens_details.cached_tokens) == (7, 1)
    assert usage.completion_tokens_details.reasoning_tokens == 2


@pytest.mark.parametrize(
    ("script", "param"),
    [
        ({"delay_ms": "5"}, "sandbox.delay_ms"),
        ({"delay_ms": -1}, "sandbox.delay_ms"),
        ({"chunks": True}, "sandbox.chunks"),
        ({"chunks": 0}, "sandbox.chunks"),
        ({"chunk_delay_ms": 600_001}, "sandbox.chunk_delay_ms"),
        ({"output": 1}, "sandbox.output"),
        ({"typo": 1}, "sandbox.typo"),
        ({"cached_tokens": 3}, "sandbox.cached_tokens"),
    ],
)
def test_a_wrong_script_is_refused_by_name(client: openai.OpenAI, script: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="sandbox-echo", messages=say("a b"), extra_body={"sandbox": script})
    assert refused.value.param == param


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=say("a"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


def test_models_are_listed_and_each_can_be_used(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed[:4] == ["sandbox-echo", "sandbox-tools", "sandbox-json", "sandbox-vision"]
    assert "sandbox-fault-cut-3" in listed
    assert all(client.models.retrieve(name).id == name for name in listed)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sandbox-none")


@pytest.mark.asyncio
async def test_a_hundred_streams_at_once(sandbox: Any) -> None:
    async with openai.AsyncOpenAI(base_url=sandbox.url, api_key="any", max_retries=0) as client:

        async def talk(number: int) -> str:
            chunks = await client.chat.completions.create(
                model="sandbox-echo",
                messages=say(f"stream number {number}"),
                stream=True,
                extra_body={"sandbox": {"chunk_delay_ms": 5}},
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        said = await asyncio.gather(*(talk(number) for number in range(100)))
    assert said == [f"stream number {number}" for number in range(100)]


def test_embeddings_are_the_same_for_the_same_input_and_of_length_one(client: openai.OpenAI) -> None:
    asked: Any = {"model": "sandbox-embedding", "input": ["one two", "three"]}
    first, again = client.embeddings.create(**asked), client.embeddings.create(**asked, encoding_format="float")
    assert first.data == again.data
    assert first.data[0].embedding != first.data[1].embedding
    for each in first.data:
        assert len(each.embedding) == 64
        assert sum(number * number for number in each.embedding) == pytest.approx(1, abs=1e-5)
    assert (first.usage.prompt_tokens, first.usage.total_tokens) == (3, 3)
    ids = client.embeddings.create(model="sandbox-embedding", input=[1, 2, 3], dimensions=8)
    assert (len(ids.data), len(ids.data[0].embedding), ids.usage.prompt_tokens) == (1, 8, 3)
    assert "sandbox-embedding" in [model.id for model in client.models.list()]
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="sandbox-embedding", input=[""])
    assert refused.value.param == "input"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="sandbox-embedding", messages=say("x"))
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="sandbox-fault-500", input="x")
    with pytest.raises(openai.BadRequestError, match="1,048,576 numbers"):
        client.embeddings.create(model="sandbox-embedding", input=["x"] * 257, dimensions=4_096)
