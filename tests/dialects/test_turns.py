"""Conversations over several turns through the official SDKs, in front of upstreams of each dialect: what an answer was
put together to, what its vendor gets back of its own thoughts, and what no other vendor gets."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import httpx2
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from apps.usage.contracts import RequestClosed
from tests.conformance.answered import ANSWERS, PLAIN, Script
from tests.conformance.matrix import KINDS, Stage
from tests.gateway.conftest import Bench, bench, empty_store
from tests.upstream.anthropic_shapes import SEALED, THOUGHT, message, streamed, text
from tests.upstream.conftest import patience, upstream
from tests.upstream.scripted import PUBLIC_MODEL, Answer, ScriptedUpstream

__all__ = ["bench", "empty_store", "patience", "upstream"]
pytestmark = pytest.mark.asyncio
SCHEMA: Any = {"type": "object", "properties": {}}
SIGNED = {"anthropic": str(THOUGHT["signature"]), "gemini": "Z2VtaW5p", "bedrock": "c2lnbmVk"}
"""Dialect -> what stands in its answers as the proof that a thought is its own."""
READS = {"anthropic": {"anthropic", "bedrock"}, "bedrock": {"anthropic", "bedrock"}, "gemini": {"gemini"}}
"""Dialect -> whose proofs it may be sent: Claude's are the same wherever it runs."""


def rich(dialect: str) -> Script:
    """A stream with a thought, text and two calls, signed by its vendor."""
    script = ANSWERS[dialect].rich[1]
    if dialect != "gemini":
        return script
    return script._replace(pieces=[piece.replace(b"c2lnbmVk", SIGNED[dialect].encode()) for piece in script.pieces])


class Turns(Stage):
    """The stage, with the SDKs in front of it."""

    def to(self, dialect: str, script: Script) -> None:
        """The next request goes to an upstream of this dialect, which answers so."""
        self.offer(next(kind for kind in KINDS if kind.dialect == dialect))
        self.upstream.requests.clear()
        self.upstream.answers = [Answer(script.pieces, script.status)]

    @property
    def sent(self) -> str:
        """What the upstream got."""
        return self.upstream.request.body.decode()

    @property
    def last(self) -> RequestClosed:
        """The last record."""
        return [entry for entry in self.bench.journal() if isinstance(entry, RequestClosed)][-1]


@pytest.fixture
def turns(bench: Bench, upstream: ScriptedUpstream) -> Turns:
    return Turns(bench, upstream)


@pytest_asyncio.fixture
async def claude(bench: Bench) -> AsyncIterator[AsyncAnthropic]:
    transport = httpx2.ASGITransport(app=bench.app)  # type: ignore[arg-type]  # its scope is a plain dict
    async with httpx2.AsyncClient(transport=transport) as http:
        yield AsyncAnthropic(base_url="http://crun/api", api_key=bench.key, http_client=http, max_retries=0)


@pytest_asyncio.fixture
async def openai(bench: Bench) -> AsyncIterator[AsyncOpenAI]:
    transport = httpx.ASGITransport(app=bench.app)  # type: ignore[arg-type]  # its scope is a plain dict
    async with httpx.AsyncClient(transport=transport) as http:
        yield AsyncOpenAI(base_url="http://crun/api/v1", api_key=bench.key, http_client=http, max_retries=0)


def _signatures(sent: str) -> set[str]:
    assert "crun1." not in sent, "what is packed is for callers only"
    return {dialect for dialect, signature in SIGNED.items() if signature in sent}


async def _asked_of_messages(claude: AsyncAnthropic, messages: list[Any]) -> Any:
    asked: dict[str, Any] = {"model": PUBLIC_MODEL, "max_tokens": 4_000, "messages": messages}
    asked |= {"tools": [{"name": name, "input_schema": SCHEMA} for name in ("weather", "now", "time")]}
    async with claude.messages.stream(**asked, thinking={"type": "enabled", "budget_tokens": 2_000}) as stream:
        return await stream.get_final_message()


@pytest.mark.parametrize("first", sorted(ANSWERS))
async def test_turns_of_messages(turns: Turns, claude: AsyncAnthropic, first: str) -> None:
    turns.to(first, rich(first))
    messages: list[Any] = [{"role": "user", "content": "hello"}]
    final = await _asked_of_messages(claude, messages)
    tokens, usage = turns.last.tokens, final.usage
    written = tokens.cache_write + tokens.cache_write_1h
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
        tokens.all_input - tokens.cache_read - written, tokens.cache_read, written,
    )  # fmt: skip
    assert usage.output_tokens == tokens.all_output
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "sun"}
        for block in final.content if block.type == "tool_use"
    ]  # fmt: skip
    assert len(results) == 2 and final.content[0].type == "thinking"
    messages += [{"role": "assistant", "content": final.content}, {"role": "user", "content": results}]
    for second in ANSWERS:
        turns.to(second, ANSWERS[second].rich[1])
        await _asked_of_messages(claude, messages)
        assert _signatures(turns.sent) == ({first} if first in READS.get(second, ()) else set()), second


async def _asked_of_responses(openai: AsyncOpenAI, given: list[Any]) -> Any:
    tools: Any = [
        {"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in ("weather", "now", "time")
    ]
    async with openai.responses.stream(
        model=PUBLIC_MODEL, input=given, tools=tools, store=False, include=["reasoning.encrypted_content"],
        reasoning={"effort": "medium", "summary": "auto"}, max_output_tokens=4_000,
    ) as stream:  # fmt: skip
        return await stream.get_final_response()


@pytest.mark.parametrize("first", sorted(ANSWERS))
async def test_turns_of_responses(turns: Turns, openai: AsyncOpenAI, first: str) -> None:
    turns.to(first, rich(first))
    given: list[Any] = [{"role": "user", "content": "hello"}]
    final = await _asked_of_responses(openai, given)
    tokens, usage = turns.last.tokens, final.usage
    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens) == (tokens.all_input, tokens.cache_read)
    assert (usage.output_tokens, usage.output_tokens_details.reasoning_tokens) == (tokens.all_output, tokens.reasoning)
    calls = [item for item in final.output if item.type == "function_call"]
    assert len(calls) == 2 and final.output[0].type == "reasoning"
    given += [item.model_dump(exclude_none=True) for item in final.output]
    given += [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls]
    for second in ANSWERS:
        turns.to(second, ANSWERS[second].rich[1])
        await _asked_of_responses(openai, given)
        assert _signatures(turns.sent) == ({first} if first in READS.get(second, ()) else set()), second


async def test_claudes_own_blocks_go_back_as_they_came(turns: Turns, claude: AsyncAnthropic) -> None:
    blocks = (THOUGHT, SEALED, text("Well"))
    turns.to("anthropic", Script(streamed(*blocks)))
    messages: list[Any] = [{"role": "user", "content": "hello"}]
    final = await _asked_of_messages(claude, messages)
    messages += [{"role": "assistant", "content": final.content}, {"role": "user", "content": "and?"}]
    turns.to("anthropic", Script([message(text("Well"))]))
    await claude.messages.create(model=PUBLIC_MODEL, max_tokens=9, messages=messages)
    said = turns.upstream.request.json["messages"][1]["content"]
    assert said[:2] == [THOUGHT, SEALED] and said[2]["text"] == "Well"


async def test_marks_for_the_cache_reach_those_who_have_one(turns: Turns, claude: AsyncAnthropic) -> None:
    mark: Any = {"type": "ephemeral"}
    system: Any = [{"type": "text", "text": "Be brief.", "cache_control": mark}]
    for dialect in ANSWERS:
        turns.to(dialect, PLAIN[dialect])
        raw = await claude.messages.with_raw_response.create(
            model=PUBLIC_MODEL, max_tokens=9, system=system, messages=[{"role": "user", "content": "hello"}]
        )
        sent, dropped = turns.upstream.request.json, raw.headers.get("x-crun-dropped-params", "")
        if dialect == "anthropic":
            assert sent["system"] == system
        elif dialect == "bedrock":
            assert sent["system"][1]["cachePoint"]["type"] == "default"
        else:
            assert "cache_control" not in turns.sent and dropped == "cache_control"
