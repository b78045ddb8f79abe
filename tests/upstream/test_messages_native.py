"""Messages in front of Anthropic's own API: requests and answers pass as they are, under our names, and are billed."""

from typing import Any

import msgspec
import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from apps.gateway.dialects.chat_stream import ChatStream
from apps.gateway.dialects.messages.blocks import folded
from apps.gateway.dialects.messages.native import NativeMessages
from apps.gateway.providers.anthropic_answer import AnthropicStream
from apps.gateway.providers.anthropic_native import _betas
from apps.usage.contracts import Outcome
from tests.factories import PRICE, TARGET, offered
from tests.gateway.conftest import UPSTREAM_KEY, Bench, Call
from tests.policies.rules import keywords, policy
from tests.upstream.anthropic_shapes import (
    BARE_CALL,
    CALL,
    OPENED,
    PING,
    SEALED,
    THOUGHT,
    USAGE,
    events,
    message,
    sse_events,
    streamed,
    text,
)
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream

LEAKS = (UPSTREAM_MODEL.encode(), b"msg_019", b"127.0.0.1", UPSTREAM_KEY.encode())
CACHED = USAGE | {
    "input_tokens": 5, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 40, "output_tokens": 9,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
}  # fmt: skip
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
CONTENT = (THOUGHT, SEALED, text("Ich schaue nach. 😀"), CALL, BARE_CALL)
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}}}


async def asked(bench: Bench, upstream: ScriptedUpstream, *, beta: str = "", price: Any = PRICE, **fields: Any) -> Call:
    """One request to a route of Anthropic's, whose answer must tell nothing of the upstream."""
    upstream.offer(bench, "anthropic", prices=(price,), options=fields.pop("options", None))
    body = {"model": PUBLIC_MODEL, "max_tokens": 400, "messages": [{"role": "user", "content": "hello"}], **fields}
    headers = {"x-api-key": bench.key, "content-type": "application/json", "anthropic-beta": beta}
    call = await bench.call("/api/v1/messages", body, headers=headers)
    for leak in LEAKS:
        assert leak not in call.body and leak not in str(call.headers).encode()
    return call


def told(call: Call) -> list[Any]:
    return [orjson.loads(block.partition(b"\ndata: ")[2]) for block in call.body.split(b"\n\n") if block]


@pytest.mark.asyncio
async def test_a_request_goes_as_it_came_but_for_model_and_limits(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(message(text("fine")))
    fields: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": MARK}],
        "messages": [
            {"role": "user", "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain",
             "data": "words"}, "citations": {"enabled": True}, "title": "T"}]},
            {"role": "assistant", "content": [THOUGHT, SEALED, text("Hm."), CALL]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": CALL["id"], "is_error": True,
             "content": [text("none")], "cache_control": MARK}]},
        ],
        "tools": [TOOL | {"cache_control": MARK}, {"type": "bash_20250124", "name": "bash"}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2_000},
        "temperature": 1, "top_k": 3, "stop_sequences": ["END"], "metadata": {"user_id": "u"}, "service_tier": "auto",
        "cache_control": MARK, "output_config": {"effort": "high"},
    }  # fmt: skip
    call = await asked(bench, upstream, beta="interleaved-thinking-2025-05-14", **fields, max_tokens=9_999)
    assert call.status == 200
    assert upstream.request.json == {**fields, "model": UPSTREAM_MODEL, "max_tokens": 5_000}
    assert upstream.request.headers["anthropic-beta"] == "interleaved-thinking-2025-05-14"
    assert (upstream.request.target, upstream.request.headers["x-api-key"]) == ("/messages", UPSTREAM_KEY)
    assert "x-crun-dropped-params" not in call.headers


@pytest.mark.asyncio
async def test_what_is_not_sent_is_named(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(message(text("fine")))
    packed = {"type": "thinking", "thinking": "", "signature": "crun1.e30="}
    unsigned = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    foreign = {"type": "tool_use", "id": "functions.f:0", "name": "weather", "input": {}}
    call = await asked(
        bench, upstream, speed="fast",
        beta="context-1m-2025-08-07,fast-mode-2026-02-01,of-tomorrow-1,effort-2025-11-24",
        tools=[TOOL, {"type": "web_search_20250305", "name": "web_search"}],
        system=[{"type": "text", "text": "x", "cache_control": HOUR}],
        messages=[
            {"role": "user", "content": "hello"}, {"role": "assistant", "content": [packed, unsigned]},
            {"role": "assistant", "content": [unsigned, foreign]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "functions.f:0",
             "content": [{**text("x"), "cache_control": HOUR}]}]},
        ],
    )  # fmt: skip
    assert set(call.headers["x-crun-dropped-params"].split(", ")) == {
        "speed", "tools[1]", "cache_control.ttl", "anthropic-beta.context-1m-2025-08-07",
        "anthropic-beta.fast-mode-2026-02-01", "anthropic-beta.of-tomorrow-1",
    }  # fmt: skip
    sent = upstream.request.json
    assert sent["system"] == [{"type": "text", "text": "x", "cache_control": MARK}]
    assert sent["tools"] == [TOOL] and upstream.request.headers["anthropic-beta"] == "effort-2025-11-24"
    assert sent["messages"][1:] == [
        {"role": "assistant", "content": [foreign | {"id": "functions_f_0"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "functions_f_0",
         "content": [{**text("x"), "cache_control": MARK}]}]},
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_a_server_tool_that_is_forced_is_refused(bench: Bench, upstream: ScriptedUpstream) -> None:
    tools = [TOOL, {"type": "web_search_20250305", "name": "web_search"}]
    call = await asked(bench, upstream, tools=tools, tool_choice={"type": "tool", "name": "web_search"})
    assert (call.status, call.json["error"]["param"], upstream.requests) == (400, "tool_choice", [])


SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FOUND = {"type": "web_search_result", "url": "https://a.test", "title": "t", "encrypted_content": "e", "page_age": None}
SEARCHED = (
    text("I'll look."),
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}, "caller": None},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "caller": None, "content": [FOUND]},
    text("Well"),
)  # fmt: skip
USED = {"web_search_requests": 1, "web_fetch_requests": 0}
PRICED = msgspec.structs.replace(PRICE, per_request=30_000_000)
"""Three searches at a cent each, as the operator prices them."""


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_searches_where_the_operator_prices_it(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    usage = USAGE | {"input_tokens": 300_000, "output_tokens": 9, "server_tool_use": USED}
    if stream:
        opened = usage | {"input_tokens": 20, "server_tool_use": None}
        upstream.answer(*streamed(*SEARCHED, stop_reason="pause_turn", opened=opened, told=usage))
    else:
        upstream.answer(message(*SEARCHED, stop_reason="pause_turn", usage=usage))
    options = {"tools": "web_search", "max_tool_calls": "3"}
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": list(SEARCHED)}]
    call = await asked(
        bench, upstream, options=options, price=PRICED, tools=[SEARCH], stream=stream, messages=[*said, said[0]]
    )
    assert upstream.request.json["tools"] == [SEARCH | {"max_uses": 3}]
    assert upstream.request.json["messages"][1]["content"] == list(SEARCHED), "what it found goes back as it came"
    if stream:
        events_told = told(call)
        content, ending = folded([event for event in events_told if "index" in event]), events_told[-2]
        reason, shown = ending["delta"]["stop_reason"], ending["usage"]
        kinds = [block["type"] for block in content]
    else:
        TypeAdapter(Message).validate_python(call.json, strict=True)
        reason, shown = call.json["stop_reason"], call.json["usage"]
        assert call.json["content"] == list(SEARCHED)
        kinds = [block["type"] for block in call.json["content"]]
    assert kinds == ["text", "server_tool_use", "web_search_tool_result", "text"] and reason == "pause_turn"
    assert shown["server_tool_use"] == USED and "x-crun-dropped-params" not in call.headers
    record = bench.record(call)
    assert (record.tokens.input, record.tokens.output, record.estimated) == (300_000, 9, False), "three contexts' worth"
    assert record.cost_nanos == 300_000 * 150 + 9 * 600 + 30_000_000 == round(shown["cost"] * 1e9)
    assert record.opened.hold_nanos >= 4 * 128_000 * 150 + 30_000_000, "a context, and one after each search"


@pytest.mark.asyncio
async def test_a_whole_answer_passes_under_our_names(bench: Bench, upstream: ScriptedUpstream) -> None:
    cited = {**text("x"), "citations": [{"type": "char_location", "cited_text": "x", "document_index": 0,
             "document_title": "T", "start_char_index": 0, "end_char_index": 1, "file_id": None}]}  # fmt: skip
    upstream.answer(message(*CONTENT, cited, stop_reason="tool_use", usage=CACHED, container={"id": "c"}))
    call = await asked(bench, upstream)
    TypeAdapter(Message).validate_python(call.json, strict=True)
    assert call.json["content"] == [*CONTENT, cited]
    assert (call.json["id"], call.json["model"]) == (f"msg_{call.request_id[4:]}", PUBLIC_MODEL)
    assert (call.json["stop_reason"], "container" in call.json) == ("tool_use", False)
    tokens, usage = bench.record(call).tokens, call.json["usage"]
    assert (tokens.input, tokens.cache_read, tokens.cache_write, tokens.cache_write_1h, tokens.output) == (
        5, 40, 10, 20, 9,
    )  # fmt: skip
    assert {name: usage[name] for name in usage if name in CACHED} == {**CACHED}


@pytest.mark.asyncio
async def test_a_stream_passes_event_by_event(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(*streamed(*CONTENT, stop_reason="tool_use", opened=CACHED | {"output_tokens": 1}))
    call = await asked(bench, upstream, stream=True)
    sent = events(*CONTENT, stop_reason="tool_use", opened=CACHED | {"output_tokens": 1})
    got = told(call)
    for event in got:
        if event["type"] != "ping":
            TypeAdapter(RawMessageStreamEvent).validate_python(event, strict=True)
    assert got[1:-2] == sent[1:-2]
    start = got[0]["message"]
    assert (start["id"], start["model"]) == (f"msg_{call.request_id[4:]}", PUBLIC_MODEL)
    assert start["usage"] == CACHED | {"output_tokens": 1}
    assert got[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert got[-1] == {"type": "message_stop"}
    end = bench.record(call)
    assert (end.outcome, got[-2]["usage"]["output_tokens"], got[-2]["usage"]["cache_read_input_tokens"]) == (
        Outcome.COMPLETED, 6, 40,
    )  # fmt: skip
    assert round(got[-2]["usage"]["cost"] * 10**9) == end.cost_nanos
    assert folded([event for event in got if "index" in event])[0] == THOUGHT


@pytest.mark.asyncio
@pytest.mark.parametrize("pieces", [1, 7, 40])
async def test_any_split_of_the_bytes_gives_the_same_stream(
    bench: Bench, upstream: ScriptedUpstream, pieces: int
) -> None:
    upstream.answer(*streamed(*CONTENT))
    wanted = await asked(bench, upstream, stream=True)
    whole = b"".join(streamed(*CONTENT)).replace(b"\n", b"\r\n")
    size = len(whole) // pieces + 1
    upstream.answers.clear()
    upstream.answer(*[whole[start : start + size] for start in range(0, len(whole), size)])
    cut = await asked(bench, upstream, stream=True)
    assert cut.body.replace(cut.request_id[4:].encode(), b"") == wanted.body.replace(
        wanted.request_id[4:].encode(), b""
    )


def test_a_ping_goes_on_at_once_while_the_model_says_nothing() -> None:
    native = NativeMessages(request_id="req_1", model=PUBLIC_MODEL, usage=dict)
    upstream = AnthropicStream(native)
    chat = ChatStream(completion_id="c", model=PUBLIC_MODEL, choices=1, token_bound=9)
    started = sse_events(*events(THOUGHT)[:2])
    sent = []
    for said in (*started, *sse_events(PING), *sse_events(PING)):
        block = chat.feed(upstream.feed(said))
        sent.append(native.passed(block) if block else b"")
    assert [each.count(b"event: ping") for each in sent] == [0, 0, 1, 1]
    assert sent[1].startswith(b"event: content_block_start")
    assert chat.output_count == 0


@pytest.mark.asyncio
async def test_a_torn_stream_ends_with_an_error_wherever_it_is_torn(bench: Bench, upstream: ScriptedUpstream) -> None:
    said = events(*CONTENT)
    for length in range(1, len(said), 3):
        upstream.answers.clear()
        upstream.answer(*sse_events(*said[:length]))
        got = told(await asked(bench, upstream, stream=True))
        assert got[-1]["type"] == "error"
        assert [event["type"] for event in got].count("error") == 1
        assert "message_stop" not in [event["type"] for event in got]


@pytest.mark.asyncio
async def test_an_error_within_a_stream_is_told_in_our_words(bench: Bench, upstream: ScriptedUpstream) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "secret words"}}
    upstream.answer(*sse_events(*events(text("Hello"))[:4], overloaded))
    got = told(await asked(bench, upstream, stream=True))
    assert (got[-1]["error"]["type"], got[-1]["error"]["code"]) == ("overloaded_error", "upstream_overloaded")
    assert "secret words" not in str(got)


@pytest.mark.asyncio
async def test_a_thought_survives_the_way_there_and_back(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(*streamed(THOUGHT, SEALED, CALL, stop_reason="tool_use"))
    got = told(await asked(bench, upstream, stream=True))
    content = folded([event for event in got if "index" in event])
    upstream.answers.clear()
    upstream.answer(message(text("fine"), usage=OPENED))
    result = {"type": "tool_result", "tool_use_id": CALL["id"], "content": "sun"}
    again = [{"role": "user", "content": "x"}, {"role": "assistant", "content": content},
             {"role": "user", "content": [result]}]  # fmt: skip
    await asked(bench, upstream, messages=again)
    assert upstream.requests[-1].json["messages"][1]["content"] == [THOUGHT, SEALED, CALL]


@pytest.mark.asyncio
async def test_tokens_are_counted_by_the_upstream_and_nothing_is_recorded(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.answer(b'{"input_tokens": 14}')
    upstream.offer(bench, "anthropic")
    body = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "hello"}], "tools": [TOOL]}
    call = await bench.call("/api/v1/messages/count_tokens", body)
    assert (call.status, call.json, call.headers["x-crun-token-count"]) == (200, {"input_tokens": 14}, "exact")
    assert upstream.request.target == "/messages/count_tokens"
    assert upstream.request.json == {**body, "model": UPSTREAM_MODEL}
    assert bench.journal() == []


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [b"{}", b"?", b'{"input_tokens": "7"}'])
async def test_tokens_that_nobody_tells_are_estimated(bench: Bench, upstream: ScriptedUpstream, said: bytes) -> None:
    upstream.answer(said)
    upstream.offer(bench, "anthropic")
    body = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "hello " * 100}]}
    call = await bench.call("/api/v1/messages/count_tokens", body)
    assert (call.status, call.headers["x-crun-token-count"]) == (200, "estimated")
    assert 100 <= call.json["input_tokens"] <= 130


@pytest.mark.asyncio
@pytest.mark.parametrize("provider", [{"only": ["elsewhere"]}, {"zdr": True}])
async def test_nobody_counts_where_the_caller_wants_no_request_to_go(
    bench: Bench, upstream: ScriptedUpstream, provider: dict[str, Any]
) -> None:
    upstream.answer(b'{"input_tokens": 14}')
    upstream.offer(bench, "anthropic")
    body = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "hello"}], "provider": provider}
    call = await bench.call("/api/v1/messages/count_tokens", body)
    assert (call.status, call.headers["x-crun-token-count"], upstream.requests) == (200, "estimated", [])


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_guardrail_takes_out_of_a_request_is_not_sent(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    bench.limit(policy=policy(keywords("canary-7f3a", action="redact", direction="input")))
    upstream.answer(*(streamed(text("fine")) if stream else [message(text("fine"))]))
    said = [{"role": "user", "content": "the canary-7f3a sings"}]
    call = await asked(bench, upstream, messages=said, system="canary-7f3a", stream=stream)
    assert (call.status, len(upstream.requests)) == (200, 1)
    assert b"sings" in upstream.request.body and b"canary" not in upstream.request.body
    count = await bench.call("/api/v1/messages/count_tokens", {"model": PUBLIC_MODEL, "messages": said})
    assert (count.headers["x-crun-token-count"], len(upstream.requests)) == ("estimated", 1)


def test_betas_pass_where_their_price_is_known_and_are_named_where_it_is_not() -> None:
    unknown = (
        "fast-mode-2026-02-01", "compact-2026-01-12", "code-execution-2025-08-25", "mcp-client-2025-11-20",
        "files-api-2025-04-14", "skills-2025-10-02", "web-fetch-2025-09-10", "advisor-tool-2026-03-01", "batch",
    )  # fmt: skip
    known = ("claude-code-20250219", "interleaved-thinking-2025-05-14", "context-management-2025-06-27")
    long = "context-1m-2025-08-07"
    assert _betas((*unknown, *known, long), offered(context_length=200_000), TARGET) == (known, (*unknown, long))
    assert _betas((*known, long), offered(context_length=1_000_000), TARGET) == ((*known, long), ())
