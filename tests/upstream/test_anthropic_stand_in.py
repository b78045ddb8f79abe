"""Our stand-in for Anthropic, asked by Anthropic's own SDK, types strict: what is translated from it is translated from
what the vendor's clients understand. And the list of models that CRUN gives to that SDK."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from anthropic.types import TextBlock, ThinkingBlock, ToolUseBlock

from tests.gateway.conftest import Bench
from tests.upstream.anthropic_shapes import BARE_CALL, CALL, SEALED, THOUGHT, message, sse_events, streamed, text
from tests.upstream.scripted import ScriptedUpstream

pytestmark = pytest.mark.asyncio
USER: Any = {"role": "user", "content": "Hello"}
ASKED: Any = {"model": "claude-test", "max_tokens": 100, "messages": [USER]}
JSON = {"content-type": "application/json"}
ERRORS: dict[int, tuple[str, type[anthropic.APIStatusError]]] = {
    400: ("invalid_request_error", anthropic.BadRequestError),
    401: ("authentication_error", anthropic.AuthenticationError),
    403: ("permission_error", anthropic.PermissionDeniedError),
    404: ("not_found_error", anthropic.NotFoundError),
    429: ("rate_limit_error", anthropic.RateLimitError),
    500: ("api_error", anthropic.InternalServerError),
    529: ("overloaded_error", anthropic.InternalServerError),
}


@pytest_asyncio.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=upstream.url, api_key="sk-any", max_retries=0, _strict_response_validation=True
    ) as strict:
        yield strict


async def test_a_whole_answer_is_a_message(upstream: ScriptedUpstream, client: AsyncAnthropic) -> None:
    upstream.answer(message(THOUGHT, SEALED, text("Hello you"), CALL, BARE_CALL, stop_reason="tool_use"), headers=JSON)
    answer = await client.messages.create(**ASKED)
    assert [block.type for block in answer.content] == ["thinking", "redacted_thinking", "text", "tool_use", "tool_use"]
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("tool_use", 11, 6)
    assert upstream.request.target == "/v1/messages"


async def test_a_stream_accumulates_to_the_same_message(upstream: ScriptedUpstream, client: AsyncAnthropic) -> None:
    upstream.answer(*streamed(THOUGHT, text("Hello you, ähm"), CALL, BARE_CALL, stop_reason="tool_use"))
    async with client.messages.stream(**ASKED) as stream:
        final = await stream.get_final_message()
    thought, spoken, call, bare = final.content
    assert isinstance(thought, ThinkingBlock) and thought.signature == THOUGHT["signature"]
    assert isinstance(spoken, TextBlock) and spoken.text == "Hello you, ähm"
    assert isinstance(call, ToolUseBlock) and call.input == CALL["input"]
    assert isinstance(bare, ToolUseBlock) and bare.input == {}
    assert (final.stop_reason, final.usage.output_tokens) == ("tool_use", 6)


@pytest.mark.parametrize("status", ERRORS)
async def test_errors_are_the_vendors(upstream: ScriptedUpstream, client: AsyncAnthropic, status: int) -> None:
    kind, expected = ERRORS[status]
    told = {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_1"}
    upstream.answer(orjson.dumps(told), status=status, headers={**JSON, "request-id": "req_1"})
    with pytest.raises(expected) as caught:
        await client.messages.create(**ASKED)
    assert (caught.value.status_code, caught.value.request_id) == (status, "req_1")


async def test_an_error_event_ends_a_stream(upstream: ScriptedUpstream, client: AsyncAnthropic) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    upstream.answer(*streamed(text("Hello"))[:3], *sse_events(overloaded))
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        async with client.messages.stream(**ASKED) as stream:
            await stream.get_final_message()


async def test_the_sdk_lists_the_models_of_crun(bench: Bench) -> None:
    for number in range(5):
        bench.offer(f"sandbox-echo{number}" if number else "sandbox-echo")
    transport = httpx2.ASGITransport(app=bench.app)  # type: ignore[arg-type]  # its scope is a plain dict
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        AsyncAnthropic(
            base_url="http://crun/api",
            api_key=bench.key,
            max_retries=0,
            http_client=http,
            _strict_response_validation=True,
        ) as ours,
    ):
        listed = [model async for model in ours.models.list(limit=2)]
        assert {model.id for model in listed} == set(bench.models)
        one = await ours.models.retrieve("base")
        assert (one.id, one.type, one.display_name) == ("base", "model", "Bench model")
        with pytest.raises(anthropic.NotFoundError):
            await ours.models.retrieve("no-such-model")
        stranger = ours.with_options(api_key="nonsense")
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await stranger.models.list()
        assert (caught.value.request_id or "").startswith("req_")
