"""Chats in front of an upstream that speaks Responses: what it was sent, what the client reads, what is recorded."""

from typing import Any

import orjson
import pytest

from apps.usage.contracts import Outcome, TokenCounts
from tests.gateway.conftest import UPSTREAM_KEY, Bench, Call
from tests.upstream.responses_shapes import (
    BARE_CALL,
    CALL,
    CUSTOM_CALL,
    RESPONSE_ID,
    THOUGHT,
    events,
    incomplete,
    refusal,
    response,
    sse_events,
    streamed,
    text,
    whole,
)
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream, folded

pytestmark = pytest.mark.asyncio
LEAKS = (UPSTREAM_MODEL.encode(), RESPONSE_ID.encode(), b"_0a1", b"_0a5", b"127.0.0.1", UPSTREAM_KEY.encode())
REASONER = "gpt-5-secret"
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
PATCH: dict[str, Any] = {
    "type": "custom",
    "custom": {"name": "patch", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: x"}}},
}


async def asked(bench: Bench, upstream: ScriptedUpstream, *, model: str = UPSTREAM_MODEL, **fields: Any) -> Call:
    """One chat at the route, whose answer must tell nothing of the upstream."""
    upstream.offer(bench, "openai-responses", upstream_model=model)
    call = await bench.call("/api/v1/chat/completions", {"model": PUBLIC_MODEL, "messages": HELLO, **fields})
    for leak in (*LEAKS, model.encode()):
        assert leak not in call.body and leak not in str(call.headers).encode()
    return call


def choice_of(call: Call) -> dict[str, Any]:
    is_stream = call.body.startswith(b"data: ")
    return folded(call.events[:-1])[0] if is_stream else dict(call.json["choices"][0])


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_read_and_billed_as_it_was_told(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    custom = () if stream else (CUSTOM_CALL,)  # the SDK's chunks have no place for it
    content = (THOUGHT, text("Hello there, wörld! 👋"), CALL, BARE_CALL, *custom)
    upstream.answer(*(streamed(*content) if stream else [whole(*content)]))
    call = await asked(bench, upstream, stream=stream, tools=[WEATHER, PATCH])
    choice = choice_of(call)
    assert choice["finish_reason"] == "tool_calls"
    assert [_call(each) for each in choice["message"].pop("tool_calls")] == [
        ("call_0aNRLab", "weather", CALL["arguments"]), ("call_0aBare", "now", "{}"),
        *(("call_0aCus", "patch", CUSTOM_CALL["input"]) for _ in custom),
    ]  # fmt: skip
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hello there, wörld! 👋",
        "reasoning_content": "Two and two, ähm…",
        "reasoning_details": [
            {"type": "reasoning.encrypted", "data": THOUGHT["encrypted_content"], "format": "openai-responses",
             "summary": "Two and two, ähm…", "index": 0},
        ],
    }  # fmt: skip
    record = bench.record(call)
    assert record.tokens == TokenCounts(input=8, cache_read=4, output=4, reasoning=5)
    assert (record.outcome, record.estimated, record.finish_reason) == (Outcome.COMPLETED, False, "tool_calls")
    usage = call.events[-2]["usage"] if stream else call.json["usage"]
    assert round(usage["cost"] * 10**9) == record.cost_nanos > 0


def _call(call: dict[str, Any]) -> tuple[str, str, str]:
    holder = call[call["type"]]
    return call["id"], holder["name"], holder.get("arguments", holder.get("input"))


async def test_a_request_says_all_that_this_dialect_has_words_for(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(whole(text("fine")))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    document = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}
    details = [
        {"type": "reasoning.encrypted", "data": "sealed", "summary": "Hm.", "format": "openai-responses", "index": 0},
    ]
    call = await asked(
        bench, upstream, model=REASONER,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, image, document]},
            {"role": "assistant", "content": "Well", "reasoning_details": details, "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}},
                {"id": "b", "type": "custom", "custom": {"name": "patch", "input": "x"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "sun"},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "done"}, image]},
        ],
        tools=[WEATHER, PATCH, {"type": "web_search"}], tool_choice={"type": "custom", "custom": {"name": "patch"}},
        parallel_tool_calls=False, reasoning_effort="high", verbosity="low", max_completion_tokens=9_999, user="u",
        prompt_cache_key="k", safety_identifier="s", temperature=0.5, seed=7, logprobs=True, top_logprobs=2,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"},
                                                                "strict": True}},
    )  # fmt: skip
    assert (call.status, call.headers["x-crun-dropped-params"]) == (200, "seed, tools[2]")
    sent = upstream.request
    assert (sent.target, sent.headers["authorization"]) == ("/responses", f"Bearer {UPSTREAM_KEY}")
    input_image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}
    assert sent.json == {
        "model": REASONER, "store": False, "max_output_tokens": 5_000, "temperature": 0.5, "user": "u",
        "input": [
            {"type": "message", "role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "Look"}, input_image,
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}],
             "encrypted_content": "sealed"},
            {"type": "message", "role": "assistant",
             "content": [{"type": "output_text", "text": "Well", "annotations": []}]},
            {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"},
            {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "x"},
            {"type": "function_call_output", "call_id": "a", "output": "sun"},
            {"type": "custom_tool_call_output", "call_id": "b",
             "output": [{"type": "input_text", "text": "done"}, input_image]},
        ],
        "tools": [
            {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False},
            {"type": "custom", "name": "patch",
             "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
        ],
        "tool_choice": {"type": "custom", "name": "patch"}, "parallel_tool_calls": False,
        "reasoning": {"effort": "high", "summary": "auto"}, "prompt_cache_key": "k", "safety_identifier": "s",
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"], "top_logprobs": 2,
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "x", "schema": {"type": "object"},
                                                "strict": True}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": ["END"]}, "stop"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
         "messages[0].content[0]"),
    ],
)  # fmt: skip
async def test_what_would_be_another_answer_is_refused(
    bench: Bench, upstream: ScriptedUpstream, fields: dict[str, Any], param: str
) -> None:
    call = await asked(bench, upstream, **fields)
    assert (call.status, call.json["error"]["param"], upstream.requests) == (400, param, [])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("end", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("", "stop")]
)
async def test_each_end_has_its_reason(
    bench: Bench, upstream: ScriptedUpstream, end: str, finish: str, stream: bool
) -> None:
    said = refusal("No.")
    told = incomplete(end, said) if end else response(said)
    upstream.answer(*(streamed(said, end=told) if stream else [whole(said, **told)]))
    choice = choice_of(await asked(bench, upstream, stream=stream))
    assert (choice["finish_reason"], choice["message"]["refusal"]) == (finish, "No.")


async def test_any_split_of_the_bytes_gives_the_same_stream(bench: Bench, upstream: ScriptedUpstream) -> None:
    content = (THOUGHT, text("Grüße 😀 and more"), CALL)
    upstream.answer(*streamed(*content))
    wanted = choice_of(await asked(bench, upstream, stream=True))
    raw = b"".join(streamed(*content)).replace(b"\n", b"\r\n")
    for size in (1, 7, 61):
        upstream.answers.clear()
        upstream.answer(*[raw[start : start + size] for start in range(0, len(raw), size)])
        assert choice_of(await asked(bench, upstream, stream=True)) == wanted


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ({"type": "error", "code": "server_error", "message": "secret words", "param": None}, "upstream_failed"),
        ({"type": "error", "error": {"type": "x", "code": "rate_limit_exceeded", "message": "secret words"}},
         "upstream_overloaded"),
        ({"type": "response.failed", "response": response(status="failed", usage=None,
          error={"code": "server_error", "message": "secret words"})}, "upstream_failed"),
        ({"type": "response.failed", "response": response(status="failed",
          error={"code": "rate_limit_exceeded", "message": "secret words"})}, "upstream_overloaded"),
        (None, "upstream_failed"),
    ],
)  # fmt: skip
async def test_an_answer_that_breaks_off_is_no_whole_one_and_what_came_is_billed(
    bench: Bench, upstream: ScriptedUpstream, last: dict[str, Any] | None, code: str
) -> None:
    begun = events(text("Hello there friends"))[:6]
    upstream.answer(*sse_events(*begun, *([last] if last else [])))
    call = await asked(bench, upstream, stream=True)
    assert "[DONE]" not in call.events and call.events[-1]["error"]["code"] == code
    assert b"secret words" not in call.body
    end = bench.record(call)
    told = bool(last and (last.get("response") or {}).get("usage"))
    assert (end.outcome, end.estimated, end.tokens.all_output > 0) == (Outcome.FAILED, not told, True)
    assert end.tokens.all_output == (9 if told else end.tokens.output)


@pytest.mark.parametrize("status", ["failed", "queued", "cancelled"])
async def test_an_answer_in_one_piece_that_did_not_end_well_is_free(
    bench: Bench, upstream: ScriptedUpstream, status: str
) -> None:
    upstream.answer(whole(text("x"), status=status, error={"code": "server_error", "message": "no"}))
    call = await asked(bench, upstream)
    assert (call.status, bench.record(call).cost_nanos) == (502, 0)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        ({"message": f"Bad {UPSTREAM_MODEL}", "param": "input[2].content", "code": "invalid_value"}, 400,
         (400, "messages", "invalid_value")),
        ({"message": "small", "param": "max_output_tokens", "code": "integer_below_min_value"}, 400,
         (400, "max_tokens", "integer_below_min_value")),
        ({"message": "long", "param": "input", "code": "context_length_exceeded"}, 400,
         (400, "messages", "context_length_exceeded")),
        ({"message": "slow down"}, 429, (503, None, "upstream_overloaded")),
        ({"message": "no"}, 401, (502, None, "upstream_unauthorized")),
        ({"message": "no"}, 404, (502, None, "upstream_misconfigured")),
        ({"message": "no"}, 500, (502, None, "upstream_failed")),
    ],
)  # fmt: skip
async def test_refusals_are_told_in_the_words_of_a_chat_and_free(
    bench: Bench, upstream: ScriptedUpstream, error: dict[str, Any], status: int, told: tuple[int, str | None, str]
) -> None:
    upstream.answer(orjson.dumps({"error": error}), status=status)
    call = await asked(bench, upstream)
    said = call.json["error"]
    assert (call.status, said["param"], said["code"], bench.record(call).cost_nanos) == (*told, 0)


async def test_what_comes_without_pieces_is_not_lost(bench: Bench, upstream: ScriptedUpstream) -> None:
    """Servers that speak this dialect do not all tell an item in pieces, nor that it begins."""
    kept = ("response.created", "response.output_item.done", "response.completed")
    content = (THOUGHT, text("All at once"), CALL)
    upstream.answer(*sse_events(*[event for event in events(*content) if event["type"] in kept]))
    bare = choice_of(await asked(bench, upstream, stream=True))
    upstream.answers.clear()
    upstream.answer(*streamed(*content))
    assert choice_of(await asked(bench, upstream, stream=True)) == bare
