"""Each vendor's own classes of errors, and how often its SDK tries again, in the process of the gateway."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from apps.core.limits import Limits
from tests.gateway.conftest import Bench, bench, empty_store

__all__ = ["bench", "empty_store"]
pytestmark = pytest.mark.asyncio
CASES: list[tuple[str, dict[str, Any], type[Exception], type[Exception], int]] = [
    ("sandbox-fault-400", {}, anthropic.BadRequestError, openai.BadRequestError, 1),
    ("sandbox-echo", {"api_key": "ak_no"}, anthropic.AuthenticationError, openai.AuthenticationError, 1),
    ("nobody", {}, anthropic.NotFoundError, openai.NotFoundError, 1),
    ("sandbox-fault-401", {}, anthropic.InternalServerError, openai.InternalServerError, 1),
    ("sandbox-fault-500", {}, anthropic.InternalServerError, openai.InternalServerError, 2),
    ("sandbox-fault-529", {"max_retries": 0}, anthropic.OverloadedError, openai.InternalServerError, 1),
]
"""(model, options, the class of Anthropic's SDK, that of OpenAI's, how many requests it takes)."""


class Clients:
    """Both SDKs, which try again once, and how many requests they sent."""

    def __init__(self, bench: Bench, http: httpx.AsyncClient, http2: httpx2.AsyncClient) -> None:
        self.sent = 0
        http.event_hooks = {"request": [self._count]}
        http2.event_hooks = {"request": [self._count]}
        self.openai = AsyncOpenAI(base_url="http://crun/api/v1", api_key=bench.key, http_client=http, max_retries=1)
        self.claude = AsyncAnthropic(base_url="http://crun/api", api_key=bench.key, http_client=http2, max_retries=1)

    async def _count(self, request: Any) -> None:
        self.sent += 1

    async def messages(self, model: str, **options: Any) -> Any:
        asked: Any = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
        return await self.claude.with_options(**options).messages.create(**asked)

    async def responses(self, model: str, **options: Any) -> Any:
        return await self.openai.with_options(**options).responses.create(model=model, input="x", store=False)


@pytest_asyncio.fixture
async def clients(bench: Bench) -> AsyncIterator[Clients]:
    ours: Any = bench.app
    transports = httpx.ASGITransport(app=ours), httpx2.ASGITransport(app=ours)
    async with httpx.AsyncClient(transport=transports[0]) as http, httpx2.AsyncClient(transport=transports[1]) as http2:
        yield Clients(bench, http, http2)


async def test_each_status_is_the_vendors_own_class_and_is_tried_again_only_where_that_can_help(
    bench: Bench, clients: Clients
) -> None:
    for model, options, of_claude, of_openai, tries in CASES:
        bench.offer(model)
        for ask, error in ((clients.messages, of_claude), (clients.responses, of_openai)):
            clients.sent = 0
            with pytest.raises(error):
                await ask(model, **options)
            assert clients.sent == tries, (model, error)


async def test_who_has_spent_the_budget_is_told_so_once(bench: Bench, clients: Clients) -> None:
    bench.offer("sandbox-echo")
    bench.limit(key_limits=Limits(budget_nanos=1))
    with pytest.raises(anthropic.APIStatusError) as caught:
        await clients.messages("sandbox-echo")
    assert (caught.value.status_code, caught.value.type, clients.sent) == (402, "billing_error", 1)
    with pytest.raises(openai.RateLimitError) as spent:
        await clients.responses("sandbox-echo")
    assert (spent.value.code, spent.value.type, clients.sent) == ("key_spend_limit_exceeded", "insufficient_quota", 2)


async def test_a_key_that_is_paused_may_do_nothing(bench: Bench, clients: Clients) -> None:
    bench.offer("sandbox-echo")
    bench.limit(paused_at=1.0)
    with pytest.raises(anthropic.PermissionDeniedError):
        await clients.messages("sandbox-echo")
    with pytest.raises(openai.PermissionDeniedError):
        await clients.responses("sandbox-echo")
    assert clients.sent == 2


async def test_a_stream_that_breaks_raises_in_both(bench: Bench, clients: Clients) -> None:
    bench.offer("sandbox-fault-cut-2")
    said: Any = [{"role": "user", "content": "a b c d"}]
    async with clients.claude.messages.stream(model="sandbox-fault-cut-2", max_tokens=50, messages=said) as stream:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await stream.get_final_message()
    assert caught.value.body["error"]["code"] == "upstream_failed"  # type: ignore[index]  # it is our error
    async with clients.openai.responses.stream(model="sandbox-fault-cut-2", input="a b c d", store=False) as responses:
        events = [event async for event in responses]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None and events[-1].response.error.code == "server_error"
    chat = await clients.openai.chat.completions.create(model="sandbox-fault-cut-2", messages=said, stream=True)
    with pytest.raises(openai.APIError):
        [chunk async for chunk in chat]


async def test_models_of_each_vendor_page_by_page(bench: Bench, clients: Clients) -> None:
    bench.offer("sandbox-tools")
    wanted = {model.id async for model in clients.openai.models.list()}
    page = await clients.claude.models.list(limit=1)
    assert (len(page.data), page.has_more, page.first_id, page.last_id) == (1, True, page.data[0].id, page.data[0].id)
    assert {model.id async for model in clients.claude.models.list(limit=1)} == wanted
    assert (await clients.claude.models.retrieve("sandbox-tools")).type == "model"


async def test_headers_and_parameters_that_agents_send_do_not_disturb(bench: Bench, clients: Clients) -> None:
    bench.offer("sandbox-echo")
    raw = await clients.claude.beta.messages.with_raw_response.create(
        model="sandbox-echo", max_tokens=5, messages=[{"role": "user", "content": "x"}],
        betas=["claude-code-20250219", "interleaved-thinking-2025-05-14"],
        extra_headers={"x-app": "cli", "anthropic-dangerous-direct-browser-access": "true"},
    )  # fmt: skip
    assert raw.headers["request-id"] == raw.headers["x-request-id"] == raw.headers["x-crun-generation-id"]
    assert raw.headers["x-crun-dropped-params"].count("anthropic-beta.") == 2
    assert float(raw.headers["x-crun-cost"]) > 0
    assert (await raw.parse()).stop_reason == "end_turn"
