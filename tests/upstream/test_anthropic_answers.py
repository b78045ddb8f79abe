"""Anthropic's answers through the gateway: what the client reads, what the upstream was sent, what is recorded."""

from typing import Any

import pytest

from apps.core.limits import Limits
from apps.usage.contracts import Outcome, TokenCounts
from tests.factories import PRICE
from tests.gateway.conftest import UPSTREAM_KEY, Bench, Call
from tests.upstream.anthropic_shapes import (
    BARE_CALL,
    CALL,
    OPENED,
    SEALED,
    THOUGHT,
    USAGE,
    events,
    message,
    sse_events,
    streamed,
    text,
)
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream, folded

LEAKS = (UPSTREAM_MODEL.encode(), b"msg_019", b"127.0.0.1", b"anthropic-version", UPSTREAM_KEY.encode())
CACHED = {
    "input_tokens": 5, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 40,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4},
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0}, "service_tier": "standard",
}  # fmt: skip


LEAST = 2_000
"""What is left of a rate of 3 000 tokens a minute for the output, at least."""


async def asked(bench: Bench, upstream: ScriptedUpstream, *, stream: bool, **fields: Any) -> Call:
    """One request to the Anthropic route, whose answer must tell nothing of the upstream."""
    upstream.offer(bench, "anthropic")
    messages = fields.pop("messages", [{"role": "user", "content": "Hello, Claude"}])
    call = await bench.call(
        "/api/v1/chat/completions", {"model": PUBLIC_MODEL, "messages": messages, "stream": stream, **fields}
    )
    assert not [leak for leak in LEAKS if leak in call.body]
    assert not [leak for leak in LEAKS if leak in str(call.headers).encode()]
    return call


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_a_text_reaches_the_client_and_is_billed_as_it_was_told(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    said = text("Hello there, wörld! 👋")
    upstream.answer(*(streamed(said) if stream else [message(said)]))
    call = await asked(bench, upstream, stream=stream)
    assert call.status == 200
    if stream:
        choice = folded(call.events[:-1])[0]
        usage = call.events[-2]["usage"]
        assert call.events[-1] == "[DONE]"
        assert {event["model"] for event in call.events[:-1]} == {PUBLIC_MODEL}
    else:
        choice, usage = call.json["choices"][0], call.json["usage"]
        assert (call.json["object"], call.json["model"]) == ("chat.completion", PUBLIC_MODEL)
    assert choice["message"] == {"role": "assistant", "content": "Hello there, wörld! 👋"}
    assert choice["finish_reason"] == "stop"
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (11, 6)
    record = bench.record(call)
    assert (record.outcome, record.tokens, record.estimated) == (
        Outcome.COMPLETED,
        TokenCounts(input=11, output=6),
        False,
    )
    assert record.finish_reason == "stop"
    assert usage["cost"] * 10**9 == record.cost_nanos > 0
    sent = upstream.request
    assert (sent.method, sent.target) == ("POST", "/messages")
    assert sent.headers["x-api-key"] == UPSTREAM_KEY
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in sent.headers
    assert "anthropic-beta" not in sent.headers
    assert sent.json == {
        "model": UPSTREAM_MODEL,
        "max_tokens": 5_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello, Claude"}]}],
    } | ({"stream": True} if stream else {})


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_thoughts_and_calls_come_in_their_places_and_their_signature_is_kept(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    content = (THOUGHT, SEALED, text("I look."), CALL, BARE_CALL)
    fields = {"stop_reason": "tool_use"}
    upstream.answer(*(streamed(*content, **fields) if stream else [message(*content, **fields)]))
    call = await asked(bench, upstream, stream=stream)
    choice = folded(call.events[:-1])[0] if stream else call.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": THOUGHT["thinking"],
        "reasoning_details": [
            {
                "type": "reasoning.text", "text": THOUGHT["thinking"], "signature": THOUGHT["signature"],
                "format": "anthropic-claude-v1", "index": 0,
            },
            {"type": "reasoning.encrypted", "data": SEALED["data"], "format": "anthropic-claude-v1", "index": 1},
        ],
        "tool_calls": [
            {
                "id": CALL["id"], "type": "function",
                "function": {"name": "weather", "arguments": '{"town":"Köln","days":2}'},
            },
            {"id": BARE_CALL["id"], "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ],
    }  # fmt: skip
    assert bench.record(call).outcome is Outcome.COMPLETED


@pytest.mark.asyncio
async def test_thoughts_that_come_back_are_sent_as_they_were(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(message(THOUGHT, SEALED, text("I look."), CALL, stop_reason="tool_use"))
    first = await asked(bench, upstream, stream=False)
    upstream.answer(message(text("Rain.")))
    upstream.answers.pop(0)
    asked_again = [
        {"role": "user", "content": "Weather?"},
        first.json["choices"][0]["message"],
        {"role": "tool", "tool_call_id": CALL["id"], "content": "rain"},
    ]
    await asked(bench, upstream, stream=False, messages=asked_again)
    assert upstream.requests[1].json["messages"] == [
        {"role": "user", "content": [text("Weather?")]},
        {"role": "assistant", "content": [THOUGHT, SEALED, text("I look."), CALL]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": CALL["id"], "content": "rain"}]},
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_every_bucket_of_its_usage_is_billed_once(bench: Bench, upstream: ScriptedUpstream, stream: bool) -> None:
    """In a stream the cache is often told at the end only, after zeros at its beginning."""
    fields: dict[str, Any] = {"told": CACHED} if stream else {"usage": CACHED}
    upstream.answer(*(streamed(text("Cached."), **fields) if stream else [message(text("Cached."), **fields)]))
    call = await asked(bench, upstream, stream=stream)
    record = bench.record(call)
    tokens = TokenCounts(input=5, cache_read=40, cache_write=10, cache_write_1h=20, output=5, reasoning=4)
    assert (record.tokens, record.review) == (tokens, "")
    cost = sum(getattr(tokens, name) * PRICE.of(name) for name in tokens.__struct_fields__ if getattr(tokens, name))
    assert record.cost_nanos == -(-cost // 10**6)
    usage = call.events[-2]["usage"] if stream else call.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (75, 9)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 40
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 4


@pytest.mark.asyncio
async def test_a_split_of_the_cache_that_was_not_known_at_the_beginning_is_no_contradiction(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    told = {"input_tokens": 5, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 7, "output_tokens": 3}
    upstream.answer(*streamed(text("Hi"), opened=OPENED | {"input_tokens": 5}, told=told))
    record = bench.record(await asked(bench, upstream, stream=True))
    assert (record.tokens, record.review) == (TokenCounts(input=5, cache_read=7, cache_write=30, output=3), "")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"output_tokens": 6}, TokenCounts(input=11, output=6)),
        ({"output_tokens": 0}, TokenCounts(input=11, output=1)),
        ({"input_tokens": 0, "output_tokens": 6}, TokenCounts(input=11, output=6)),
        ({"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 6}, TokenCounts(input=11, output=6)),
        ({"input_tokens": 0, "cache_read_input_tokens": 11, "output_tokens": 6}, TokenCounts(cache_read=11, output=6)),
        ({"input_tokens": 12, "output_tokens": 6}, TokenCounts(input=12, output=6)),
    ],
)
async def test_the_last_word_on_the_input_counts_unless_it_says_nothing(
    bench: Bench, upstream: ScriptedUpstream, told: dict[str, Any], tokens: TokenCounts
) -> None:
    upstream.answer(*streamed(text("Hi"), told=told))
    record = bench.record(await asked(bench, upstream, stream=True))
    assert (record.tokens, record.review) == (tokens, "")


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("of_tomorrow", "stop"),
    ],
)
async def test_why_an_answer_ended_is_said_in_words_that_clients_know(
    bench: Bench, upstream: ScriptedUpstream, stream: bool, stop_reason: str, finish_reason: str
) -> None:
    content = () if stop_reason == "refusal" else (text("So far"),)
    upstream.answer(
        *(streamed(*content, stop_reason=stop_reason) if stream else [message(*content, stop_reason=stop_reason)])
    )
    call = await asked(bench, upstream, stream=stream)
    choice = folded(call.events[:-1])[0] if stream else call.json["choices"][0]
    assert (choice["finish_reason"], bench.record(call).finish_reason) == (finish_reason, finish_reason)
    assert choice["message"]["content"] == ("" if stop_reason == "refusal" else "So far")


@pytest.mark.asyncio
@pytest.mark.parametrize("ends", range(1, 12))
@pytest.mark.parametrize("how", ["cut", "is_closed_by_end"])
async def test_a_stream_that_ends_anywhere_before_its_end_never_looks_whole(
    bench: Bench, upstream: ScriptedUpstream, ends: int, how: str
) -> None:
    """Even after its last word and its usage: those decide what is billed, but the client is told of the cut."""
    whole = streamed(text("One two three four five six"), cut=4)
    assert len(whole) == 13
    upstream.answer(*whole[:ends], **{how: True})
    call = await asked(bench, upstream, stream=True)
    assert call.events[-1]["error"]["code"] == "upstream_failed"
    assert "[DONE]" not in call.events
    assert not [event for event in call.events[:-1] if event["choices"][0]["finish_reason"]]
    record = bench.record(call)
    assert record.outcome is Outcome.FAILED
    assert (record.cost_nanos > 0) == (ends > 2)


@pytest.mark.asyncio
async def test_usage_that_was_told_before_a_cut_is_what_is_billed(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(*streamed(text("One two three"))[:-1], cut=True)
    record = bench.record(await asked(bench, upstream, stream=True))
    assert (record.outcome, record.tokens, record.estimated) == (Outcome.FAILED, TokenCounts(input=11, output=6), False)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kind", "code"),
    [("overloaded_error", "upstream_overloaded"), ("api_error", "upstream_failed"), ("of_tomorrow", "upstream_failed")],
)
async def test_an_error_in_the_middle_ends_the_stream_without_the_vendors_words(
    bench: Bench, upstream: ScriptedUpstream, kind: str, code: str
) -> None:
    error = {"type": "error", "error": {"type": kind, "message": f"{UPSTREAM_MODEL} is tired"}}
    upstream.answer(*streamed(text("One two three"))[:4], *sse_events(error), *streamed(text("more")))
    call = await asked(bench, upstream, stream=True)
    assert call.events[-1]["error"]["code"] == code
    assert folded(call.events[:-1])[0]["message"]["content"] == "One two th"
    record = bench.record(call)
    assert (record.outcome, record.estimated) == (Outcome.FAILED, True)


@pytest.mark.asyncio
async def test_kinds_of_events_and_blocks_that_are_not_known_are_passed_over(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    said = events(text("Hello"), {"type": "block_of_tomorrow", "content": "secret"}, text(" you"))
    said.insert(1, {"type": "event_of_tomorrow", "index": 0})
    delta = {"type": "citations_delta", "citation": {"cited_text": "secret"}}
    said.insert(4, {"type": "content_block_delta", "index": 0, "delta": delta})
    garbage = [b": a comment\n\n", b"data: {no json\n\n", b"data: [1]\n\n"]
    upstream.answer(*sse_events(*said[:3]), *garbage, *sse_events(*said[3:]))
    call = await asked(bench, upstream, stream=True)
    assert folded(call.events[:-1])[0]["message"]["content"] == "Hello you"
    assert b"secret" not in call.body
    assert call.events[-1] == "[DONE]"
    assert bench.record(call).outcome is Outcome.COMPLETED


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>",
        b'{"type":"error","error":{"type":"api_error","message":"x"}}',
        b'{"content":"text"}',
    ],
)
async def test_what_is_no_message_is_no_answer_and_costs_nothing(
    bench: Bench, upstream: ScriptedUpstream, body: bytes
) -> None:
    upstream.answer(body) if body else upstream.answer()
    call = await asked(bench, upstream, stream=False)
    assert (call.status, call.json["error"]["code"]) == (502, "upstream_failed")
    assert bench.record(call).cost_nanos == 0


@pytest.mark.asyncio
async def test_an_answer_without_usage_is_estimated(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(message(text("Hello there"), usage=None))
    record = bench.record(await asked(bench, upstream, stream=False))
    assert record.estimated
    assert 0 < record.tokens.all_output <= USAGE["output_tokens"]  # type: ignore[operator]  # a number of a mixed table


@pytest.mark.asyncio
@pytest.mark.parametrize("fields", [{}, {"max_tokens": 700}, {"max_completion_tokens": 9_000}])
async def test_the_bound_that_is_sent_is_covered_by_what_is_held(
    bench: Bench, upstream: ScriptedUpstream, fields: dict[str, Any]
) -> None:
    """Without a bound of the caller's, a rate cuts the output; a bound above the model's is cut to that."""
    if not fields:
        bench.limit(key_limits=Limits(tokens_per_minute=3_000))
    upstream.answer(message(text("Hi")))
    call = await asked(bench, upstream, stream=False, **fields)
    bound = upstream.request.json["max_tokens"]
    assert bound == fields.get("max_tokens", 5_000) if fields else LEAST < bound < 3_000
    assert bench.record(call).opened.hold_nanos >= bound * PRICE.output // 10**6


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_dropped_is_named_in_a_header(bench: Bench, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.answer(*(streamed(text("Hi")) if stream else [message(text("Hi"))]))
    call = await asked(bench, upstream, stream=stream, seed=7, temperature=1.5, **{"a\r\nb": 1, "ä": 1, "": 1})
    assert call.status == 200
    assert call.headers["x-crun-dropped-params"] == "seed, other, temperature"
    assert upstream.request.json["temperature"] == 1
    plain = await asked(bench, upstream, stream=stream)
    assert "x-crun-dropped-params" not in plain.headers
