"""The official OpenAI SDK in front of a gateway whose upstream speaks Anthropic's Messages API."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError

from apps.usage.contracts import Outcome, RequestClosed, TokenCounts
from tests.gateway.conftest import Bench
from tests.upstream.anthropic_shapes import BARE_CALL, CALL, SEALED, THOUGHT, message, streamed, text
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
USER: Any = {"role": "user", "content": "Hello"}


@pytest_asyncio.fixture
async def client(bench: Bench, upstream: ScriptedUpstream) -> AsyncIterator[AsyncOpenAI]:
    """Only base URL and key are ours."""
    upstream.offer(bench, "anthropic")
    transport = httpx.ASGITransport(app=bench.app)  # type: ignore[arg-type]  # its scope is a plain dict
    async with httpx.AsyncClient(transport=transport) as http:
        yield AsyncOpenAI(base_url="http://crun/api/v1", api_key=bench.key, http_client=http, max_retries=0)


def ends(bench: Bench) -> list[RequestClosed]:
    """Everything that was closed."""
    return [entry for entry in bench.journal() if isinstance(entry, RequestClosed)]


@pytest.mark.asyncio
async def test_a_text_and_its_usage(bench: Bench, upstream: ScriptedUpstream, client: AsyncOpenAI) -> None:
    upstream.answer(message(text("Hello you")))
    answer = await client.chat.completions.create(model=PUBLIC_MODEL, messages=[USER], temperature=0.2, max_tokens=40)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hello you", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (11, 6, 17)
    assert (upstream.request.json["temperature"], upstream.request.json["max_tokens"]) == (0.2, 40)
    (end,) = ends(bench)
    assert (end.outcome, end.tokens) == (Outcome.COMPLETED, TokenCounts(input=11, output=6))


@pytest.mark.asyncio
async def test_a_stream_with_thoughts_and_calls(bench: Bench, upstream: ScriptedUpstream, client: AsyncOpenAI) -> None:
    upstream.answer(*streamed(THOUGHT, text("I look."), CALL, BARE_CALL, stop_reason="tool_use"))
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    spoken, thought, details, arguments, usage = "", "", [], {0: "", 1: ""}, None
    stream = await client.chat.completions.create(
        model=PUBLIC_MODEL, messages=[USER], tools=[tool], stream=True, reasoning_effort="medium",
        stream_options={"include_usage": True},
    )  # fmt: skip
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            spoken += choice.delta.content or ""
            extra: Any = choice.delta.model_extra or {}
            thought += extra.get("reasoning_content", "")
            details += extra.get("reasoning_details", [])
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                arguments[call.index] += call.function.arguments or ""
    assert (spoken, thought) == ("I look.", THOUGHT["thinking"])
    assert [detail["signature"] for detail in details] == [THOUGHT["signature"]]
    assert arguments == {0: '{"town":"Köln","days":2}', 1: "{}"}
    assert usage is not None
    assert usage.completion_tokens == 6
    assert upstream.request.json["thinking"] == {"type": "enabled", "budget_tokens": 2_500}
    (end,) = ends(bench)
    assert (end.outcome, end.finish_reason) == (Outcome.COMPLETED, "tool_calls")


@pytest.mark.asyncio
async def test_a_turn_of_tools_goes_back_as_the_sdk_has_it(upstream: ScriptedUpstream, client: AsyncOpenAI) -> None:
    upstream.answer(message(THOUGHT, SEALED, CALL, stop_reason="tool_use"))
    first = await client.chat.completions.create(model=PUBLIC_MODEL, messages=[USER])
    upstream.answer(message(text("Rain.")))
    upstream.answers.pop(0)
    said: Any = first.choices[0].message.model_dump(exclude_none=True)
    result: Any = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "rain"}
    second = await client.chat.completions.create(model=PUBLIC_MODEL, messages=[USER, said, result])
    assert second.choices[0].message.content == "Rain."
    assert upstream.requests[1].json["messages"][1]["content"] == [THOUGHT, SEALED, CALL]


@pytest.mark.asyncio
async def test_an_image(upstream: ScriptedUpstream, client: AsyncOpenAI) -> None:
    upstream.answer(message(text("A dot.")))
    content: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    answer = await client.chat.completions.create(
        model=PUBLIC_MODEL, messages=[{"role": "user", "content": content}], max_completion_tokens=30
    )
    assert answer.choices[0].message.content == "A dot."
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert upstream.request.json["messages"][0]["content"][1] == {"type": "image", "source": source}


@pytest.mark.asyncio
async def test_what_cannot_be_expressed_is_refused_before_anything_is_sent(
    bench: Bench, upstream: ScriptedUpstream, client: AsyncOpenAI
) -> None:
    with pytest.raises(BadRequestError) as caught:
        await client.chat.completions.create(model=PUBLIC_MODEL, messages=[USER], n=2)
    assert caught.value.param == "n"
    assert UPSTREAM_MODEL not in str(caught.value)
    assert upstream.requests == []
    (end,) = ends(bench)
    assert (end.outcome, end.http_status, end.cost_nanos) == (Outcome.FAILED, 400, 0)
