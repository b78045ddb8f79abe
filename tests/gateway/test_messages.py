"""POST /messages through Anthropic's own SDK, in front of an upstream that speaks Chat Completions."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from apps.core.limits import Limits
from apps.usage.contracts import Outcome
from tests.gateway.conftest import Bench, Call

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a town",
    "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}
HEADERS = {"anthropic-version": "2023-06-01", "content-type": "application/json"}
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@pytest_asyncio.fixture
async def client(bench: Bench) -> AsyncIterator[AsyncAnthropic]:
    """Only base URL and key are ours."""
    for name in ("echo", "tools", "json", "vision"):
        bench.offer(f"sandbox-{name}")
    transport = httpx2.ASGITransport(app=bench.app)  # type: ignore[arg-type]  # its scope is a plain dict
    async with httpx2.AsyncClient(transport=transport) as http:
        yield AsyncAnthropic(base_url="http://crun/api", api_key=bench.key, http_client=http, max_retries=0)


def user(content: Any) -> Any:
    return [{"role": "user", "content": content}]


async def asked(bench: Bench, model: str = "sandbox-echo", **fields: Any) -> Call:
    """One request as bytes."""
    bench.offer(model)
    body = {"model": model, "max_tokens": 50, "messages": user("one two three"), **fields}
    return await bench.call("/api/v1/messages", body, headers={**HEADERS, "x-api-key": bench.key})


def told(call: Call) -> list[Any]:
    """The events of a stream; each names its type twice, the same."""
    made = []
    for block in call.body.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        made.append(event)
    return made


def is_exact(shape: Any, told: Any) -> None:
    """Whether what was told is what the SDK's types demand, without anything being bent to them."""
    TypeAdapter(shape).validate_python(told, strict=True)


@pytest.mark.asyncio
async def test_an_answer(bench: Bench, client: AsyncAnthropic) -> None:
    answer = await client.messages.create(
        model="sandbox-echo", max_tokens=50, system="Be brief.", messages=user("one two three")
    )
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == "one two three"  # type: ignore[union-attr]  # it is text
    assert (answer.stop_reason, answer.model, answer.role) == ("end_turn", "sandbox-echo", "assistant")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)
    assert answer.usage.cache_read_input_tokens == 0


@pytest.mark.asyncio
async def test_the_usage_is_that_of_the_receipt(bench: Bench) -> None:
    sandbox = {"cached_tokens": 2, "reasoning_tokens": 1}
    whole = await asked(bench, sandbox=sandbox)
    streamed = await asked(bench, sandbox=sandbox, stream=True)
    for call, usage in ((whole, whole.json["usage"]), (streamed, told(streamed)[-2]["usage"])):
        tokens = bench.record(call).tokens
        assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (tokens.input, tokens.cache_read) == (1, 2)
        assert (usage["output_tokens"], usage["output_tokens_details"]) == (4, {"thinking_tokens": 1})
        assert round(usage["cost"] * 10**9) == bench.record(call).cost_nanos


@pytest.mark.asyncio
async def test_every_event_of_a_stream_in_its_order(bench: Bench) -> None:
    call = await asked(bench, stream=True)
    events = told(call)
    for event in events:
        if event["type"] != "ping":
            is_exact(RawMessageStreamEvent, event)
    assert [event["type"] for event in events] == [
        "message_start", "ping", "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    start = events[0]["message"]
    assert (start["id"], start["model"], start["content"]) == (f"msg_{call.request_id[4:]}", "sandbox-echo", [])
    assert start["usage"]["input_tokens"] > 0
    assert call.headers["content-type"].startswith("text/event-stream")
    assert bench.record(call).outcome is Outcome.COMPLETED


@pytest.mark.asyncio
async def test_a_whole_answer_has_exactly_the_published_shape(bench: Bench) -> None:
    for call in (await asked(bench), await asked(bench, "sandbox-tools", tools=[WEATHER])):
        is_exact(Message, call.json)
        assert set(call.json) == {
            "id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage",
        }  # fmt: skip


@pytest.mark.asyncio
async def test_the_stream_helper_puts_the_same_answer_together(client: AsyncAnthropic) -> None:
    async with client.messages.stream(model="sandbox-echo", max_tokens=50, messages=user("one two three")) as stream:
        words = [word async for word in stream.text_stream]
        final = await stream.get_final_message()
    assert words == ["one ", "two ", "three"]
    assert final.usage.input_tokens == 3
    assert final.stop_reason == "end_turn"


@pytest.mark.asyncio
async def test_a_tool_is_called_and_its_result_comes_back(client: AsyncAnthropic) -> None:
    tools: Any = [WEATHER]
    messages = user("How is Ulm?")
    async with client.messages.stream(
        model="sandbox-tools", max_tokens=100, messages=messages, tools=tools, tool_choice={"type": "any"}
    ) as stream:
        first = await stream.get_final_message()
    assert first.stop_reason == "tool_use"
    (call,) = [block for block in first.content if block.type == "tool_use"]
    assert (call.name, set(call.input)) == ("weather", {"town"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    messages = [*messages, {"role": "assistant", "content": first.content}, *user([result])]
    second = await client.messages.create(model="sandbox-tools", max_tokens=100, messages=messages, tools=tools)
    assert "sunny" in second.content[0].text  # type: ignore[union-attr]  # it is text


@pytest.mark.asyncio
async def test_the_tool_runner_of_the_sdk(client: AsyncAnthropic) -> None:
    @anthropic.beta_async_tool
    async def weather(town: str) -> str:
        """The weather of a town."""
        return f"sunny in {town}"

    runner = client.beta.messages.tool_runner(
        model="sandbox-tools", max_tokens=100, messages=user("How is Ulm?"), tools=[weather]
    )
    final = await runner.until_done()
    assert "sunny in" in final.content[0].text  # type: ignore[union-attr]  # it is text


@pytest.mark.asyncio
async def test_an_image_is_seen(client: AsyncAnthropic) -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    answer = await client.messages.create(model="sandbox-vision", max_tokens=50, messages=user([image]))
    assert "image/png" in answer.content[0].text  # type: ignore[union-attr]  # it is text


@pytest.mark.asyncio
async def test_an_answer_by_a_schema(client: AsyncAnthropic) -> None:
    schema = {
        "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"],
        "additionalProperties": False,
    }  # fmt: skip
    answer = await client.messages.create(
        model="sandbox-json", max_tokens=200, messages=user("x"),
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )  # fmt: skip
    assert set(orjson.loads(answer.content[0].text)) == {"name"}  # type: ignore[union-attr]  # it is text


@pytest.mark.asyncio
async def test_too_few_tokens_end_an_answer(client: AsyncAnthropic) -> None:
    answer = await client.messages.create(model="sandbox-echo", max_tokens=2, messages=user("one two three"))
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 2)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "error", "status", "kind"),
    [
        ("nobody", anthropic.NotFoundError, 404, "not_found_error"),
        ("sandbox-fault-400", anthropic.BadRequestError, 400, "invalid_request_error"),
        ("sandbox-fault-401", anthropic.InternalServerError, 502, "api_error"),
        ("sandbox-fault-500", anthropic.InternalServerError, 502, "api_error"),
        ("sandbox-fault-529", anthropic.OverloadedError, 529, "overloaded_error"),
    ],
)
async def test_errors_are_the_sdks_own(
    bench: Bench, client: AsyncAnthropic, model: str, error: type[anthropic.APIStatusError], status: int, kind: str
) -> None:
    bench.offer(model)
    with pytest.raises(error) as caught:
        await client.messages.create(model=model, max_tokens=5, messages=user("x"))
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (status, kind)
    assert body["request_id"] == caught.value.response.headers["request-id"] == caught.value.request_id


@pytest.mark.asyncio
async def test_a_wrong_key_and_an_unknown_model_carry_both_shapes(bench: Bench, client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        await client.with_options(api_key="ak_wrong").messages.create(
            model="sandbox-echo", max_tokens=5, messages=user("x")
        )
    call = await asked(bench, "nobody")
    assert call.json["type"] == "error"
    assert (call.json["error"]["code"], call.json["error"]["type"]) == ("model_not_found", "not_found_error")


@pytest.mark.asyncio
async def test_a_limit_is_told_in_anthropics_headers(bench: Bench, client: AsyncAnthropic) -> None:
    bench.limit(key_limits=Limits(requests_per_minute=1))
    answer = await client.messages.with_raw_response.create(model="sandbox-echo", max_tokens=5, messages=user("x"))
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.create(model="sandbox-echo", max_tokens=5, messages=user("x"))
    headers = caught.value.response.headers
    assert (headers["anthropic-ratelimit-requests-remaining"], int(headers["retry-after"]) > 0) == ("0", True)


@pytest.mark.asyncio
async def test_no_money_left_is_a_billing_error(bench: Bench) -> None:
    bench.limit(key_limits=Limits(budget_nanos=1))
    call = await asked(bench)
    assert (call.status, call.json["error"]["type"]) == (402, "billing_error")
    assert (call.json["error"]["code"], call.headers["x-should-retry"]) == ("key_spend_limit_exceeded", "false")


@pytest.mark.asyncio
@pytest.mark.parametrize("model", ["sandbox-fault-cut-2", "sandbox-fault-reset-2"])
async def test_a_broken_stream_ends_with_an_error_and_nothing_after_it(bench: Bench, model: str) -> None:
    events = told(await asked(bench, model, stream=True))
    assert events[-1]["type"] == "error"
    assert (events[-1]["error"]["type"], events[-1]["error"]["code"]) == ("api_error", "upstream_failed")
    assert "message_stop" not in [event["type"] for event in events]


@pytest.mark.asyncio
async def test_what_has_no_place_upstream_is_named(bench: Bench) -> None:
    marked = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    bench.offer("sandbox-echo")
    body = {
        "model": "sandbox-echo", "max_tokens": 5, "messages": user(marked), "top_k": 3, "unheard_of": 1,
        "tools": [{"type": "web_search_20250305", "name": "web_search"}], "thinking": {"type": "adaptive"},
    }  # fmt: skip
    headers = {**HEADERS, "x-api-key": bench.key, "anthropic-beta": "some-beta-2025-01-01"}
    call = await bench.call("/api/v1/messages", body, headers=headers, query="beta=true")
    dropped = set(call.headers["x-crun-dropped-params"].split(", "))
    assert dropped == {
        "unheard_of", "tools[0]", "anthropic-beta.some-beta-2025-01-01", "cache_control", "top_k", "reasoning_effort",
    }  # fmt: skip
    forced = await asked(bench, tools=body["tools"], tool_choice={"type": "tool", "name": "web_search"})
    assert (forced.status, forced.json["error"]["param"]) == (400, "tool_choice")


@pytest.mark.asyncio
async def test_a_thread_is_refused_so_that_the_sdk_sends_everything(bench: Bench) -> None:
    call = await asked(bench, thread={"id": "thread_1"})
    assert call.status == 400
    assert call.json["error"]["details"] == {"error_code": "thread_unsupported_request"}


@pytest.mark.asyncio
async def test_unknown_paths_beneath_are_not_found_in_this_dialect(bench: Bench) -> None:
    call = await bench.call("/api/v1/messages/batches", {}, headers={**HEADERS, "x-api-key": bench.key})
    assert (call.status, call.json["type"], call.json["error"]["type"]) == (404, "error", "not_found_error")


@pytest.mark.asyncio
async def test_tokens_are_counted(client: AsyncAnthropic) -> None:
    count = await client.messages.count_tokens(
        model="sandbox-echo", messages=user("one two three"), tools=[WEATHER], system="Be brief."
    )
    assert 10 < count.input_tokens < 100
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(model="nobody", messages=user("x"))
