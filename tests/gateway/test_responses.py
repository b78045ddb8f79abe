"""POST /responses through OpenAI's own SDK, in front of an upstream that speaks Chat Completions."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import orjson
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.errors import GatewayError
from apps.usage.contracts import Outcome
from tests.gateway.conftest import Bench, Call

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg"
    "gg=="
)
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a town",
    "parameters": {
        "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"],
        "additionalProperties": False,
    },
    "strict": True,
}  # fmt: skip
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class Person(BaseModel):
    name: str


@pytest_asyncio.fixture
async def client(bench: Bench) -> AsyncIterator[AsyncOpenAI]:
    """Only base URL and key are ours."""
    for name in ("echo", "tools", "json", "vision"):
        bench.offer(f"sandbox-{name}")
    transport = httpx.ASGITransport(app=bench.app)  # type: ignore[arg-type]  # its scope is a plain dict
    async with httpx.AsyncClient(transport=transport) as http:
        yield AsyncOpenAI(base_url="http://crun/api/v1", api_key=bench.key, http_client=http, max_retries=0)


async def asked(bench: Bench, model: str = "sandbox-echo", **fields: Any) -> Call:
    bench.offer(model)
    body = {"model": model, "input": "one two three", "store": False, **fields}
    return await bench.call("/api/v1/responses", body)


def told(call: Call) -> list[Any]:
    """The events of a stream: each named twice the same, numbered without a gap, and exactly as published."""
    made = []
    for number, block in enumerate(call.body.decode().split("\n\n")[:-1]):
        name, data = block.split("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        EVENTS.validate_python(event, strict=True)
        made.append(event)
    return made


@pytest.mark.asyncio
async def test_an_answer(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="sandbox-echo", input="one two three", instructions="Be brief.", store=False, metadata={"a": "b"}
    )
    assert (answer.output_text, answer.status, answer.model) == ("one two three", "completed", "sandbox-echo")
    assert [item.type for item in answer.output] == ["message"]
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (5, 3, 8)
    assert (answer.instructions, answer.metadata) == ("Be brief.", {"a": "b"})


@pytest.mark.asyncio
async def test_a_whole_answer_has_exactly_the_published_shape_and_the_receipts_usage(bench: Bench) -> None:
    sandbox = {"cached_tokens": 2, "reasoning_tokens": 1}
    for call in (
        await asked(bench, sandbox=sandbox, tools=[WEATHER], text={"format": {"type": "text"}, "verbosity": "low"}),
        await asked(bench, "sandbox-tools", tools=[WEATHER], sandbox={"cached_tokens": 2, "reasoning_tokens": 1}),
    ):
        TypeAdapter(Response).validate_python(call.json, strict=True)
        usage, end = call.json["usage"], bench.record(call)
        assert usage["input_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 0}
        assert usage["output_tokens_details"] == {"reasoning_tokens": 1}
        assert (usage["input_tokens"], usage["output_tokens"]) == (end.tokens.all_input, end.tokens.all_output)
        assert round(usage["cost"] * 10**9) == end.cost_nanos
        assert call.json["id"] == f"resp_{call.request_id[4:]}"


@pytest.mark.asyncio
async def test_every_event_of_a_stream_in_its_order(bench: Bench) -> None:
    call = await asked(bench, stream=True)
    events = told(call)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * 3,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert {event["item_id"] for event in events if "item_id" in event} == {events[2]["item"]["id"]}
    final = events[-1]["response"]
    assert (final["output"], final["output_text"]) == ([events[-2]["item"]], "one two three")
    assert b"[DONE]" not in call.body
    assert bench.record(call).outcome is Outcome.COMPLETED
    whole = (await asked(bench)).json
    apart = ("id", "created_at", "completed_at", "output")
    assert {name: final[name] for name in final if name not in apart} == {
        name: whole[name] for name in whole if name not in apart
    }


@pytest.mark.asyncio
async def test_the_stream_helper_puts_the_same_answer_together(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="sandbox-echo", input="one two three", store=False) as stream:
        words = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert words == ["one ", "two ", "three"]
    assert final.output_text == "one two three"


@pytest.mark.asyncio
async def test_a_tool_is_called_and_its_result_comes_back(client: AsyncOpenAI) -> None:
    conversation: list[Any] = [{"role": "user", "content": "How is Ulm?"}]
    async with client.responses.stream(
        model="sandbox-tools", input=conversation, tools=[WEATHER], tool_choice="required", store=False
    ) as stream:
        kinds = [event.type async for event in stream]
        first = await stream.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    (call,) = first.output
    assert call.type == "function_call" and set(orjson.loads(call.arguments)) == {"town"}
    conversation += [
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    second = await client.responses.create(model="sandbox-tools", input=conversation, tools=[WEATHER], store=False)
    assert "sunny" in second.output_text


@pytest.mark.asyncio
async def test_a_custom_tool_gets_text(bench: Bench) -> None:
    tools = [{"type": "custom", "name": "patch", "description": "Apply", "format": {"type": "grammar",
              "syntax": "lark", "definition": "start: /x/"}}]  # fmt: skip
    call = await asked(
        bench, "sandbox-tools", tools=tools, tool_choice={"type": "custom", "name": "patch"}, stream=True
    )
    events = told(call)
    (item,) = events[-1]["response"]["output"]
    assert (item["type"], item["name"], "{" in item["input"]) == ("custom_tool_call", "patch", False)
    assert call.headers["x-crun-dropped-params"] == "tools[0].format"


@pytest.mark.asyncio
async def test_an_image_is_seen_and_a_schema_is_kept_to(client: AsyncOpenAI) -> None:
    content: Any = [{"type": "input_image", "image_url": PIXEL, "detail": "auto"}]
    seen = await client.responses.create(
        model="sandbox-vision", input=[{"role": "user", "content": content}], store=False
    )
    assert "image/png" in seen.output_text
    parsed = await client.responses.parse(model="sandbox-json", input="x", text_format=Person, store=False)
    assert isinstance(parsed.output_parsed, Person)


@pytest.mark.asyncio
async def test_too_few_tokens_leave_an_answer_incomplete(bench: Bench) -> None:
    whole = await asked(bench, max_output_tokens=2)
    assert (whole.json["status"], whole.json["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert whole.json["output"][0]["status"] == "incomplete"
    events = told(await asked(bench, max_output_tokens=2, stream=True))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["output_text"] == "one two "


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("nobody", openai.NotFoundError),
        ("sandbox-fault-400", openai.BadRequestError),
        ("sandbox-fault-500", openai.InternalServerError),
    ],
)
async def test_errors_are_the_sdks_own(
    bench: Bench, client: AsyncOpenAI, model: str, error: type[openai.APIStatusError]
) -> None:
    bench.offer(model)
    with pytest.raises(error):
        await client.responses.create(model=model, input="x", store=False)


@pytest.mark.asyncio
@pytest.mark.parametrize("model", ["sandbox-fault-cut-2", "sandbox-fault-cut-0"])
async def test_a_broken_stream_fails_and_nothing_follows(bench: Bench, model: str) -> None:
    events = told(await asked(bench, model, stream=True))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert [event["type"] for event in events].count("response.failed") == 1


@pytest.mark.asyncio
async def test_what_has_no_place_upstream_is_named_and_what_needs_it_is_refused(bench: Bench) -> None:
    tools = [WEATHER, {"type": "web_search"}]
    call = await asked(
        bench, tools=tools, truncation="auto", unheard_of=1, max_tool_calls=3, reasoning={"effort": "low"}
    )
    assert set(call.headers["x-crun-dropped-params"].split(", ")) == {
        "tools[1]", "truncation", "unheard_of", "max_tool_calls", "reasoning_effort",
    }  # fmt: skip
    forced = await asked(bench, tools=tools, tool_choice={"type": "web_search"})
    assert (forced.status, forced.json["error"]["param"]) == (400, "tool_choice")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"type": ["message"]}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tool_calls": -1}, "max_tool_calls"),
        ({"temperature": 3}, "temperature"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "custom", "name": "x", "format": "text"}]}, "tools[0].format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": ["x"]}}, "tool_choice"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"background": True}, "background"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        parse_responses(orjson.dumps({"model": "m", "input": "x", **fields}))
    assert (caught.value.kind.status, caught.value.param) == (400, param)


@pytest.mark.asyncio
async def test_a_modality_that_a_model_does_not_take_is_told_of_the_input(bench: Bench) -> None:
    content = [{"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "x.pdf"}]
    call = await asked(bench, input=[{"role": "user", "content": content}])
    assert (call.status, call.json["error"]["code"], call.json["error"]["param"]) == (
        400, "unsupported_modality", "input",
    )  # fmt: skip
