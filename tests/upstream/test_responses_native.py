"""Responses in front of an upstream that speaks it: requests and answers pass as they are, under our names."""

from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from apps.catalog.contracts import Price
from apps.gateway.dialects.responses.native import NativeResponses
from apps.gateway.dialects.thoughts import CLAUDE, pack
from apps.gateway.providers.openai_responses_answer import ResponsesAnswerStream
from apps.usage.contracts import Outcome
from tests.factories import PRICE
from tests.gateway.conftest import UPSTREAM_KEY, Bench, Call
from tests.policies.rules import keywords, policy
from tests.upstream.responses_shapes import (
    BARE_CALL,
    CALL,
    CUSTOM_CALL,
    RESPONSE_ID,
    THOUGHT,
    events,
    incomplete,
    response,
    sse_events,
    streamed,
    text,
    whole,
)
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream

pytestmark = pytest.mark.asyncio
LEAKS = (UPSTREAM_MODEL.encode(), RESPONSE_ID.encode(), b"s_0a", b"c_0a", b"g_0a", b"127.0.0.1", UPSTREAM_KEY.encode())
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
REASONER = "gpt-5-secret"
CONTENT = (THOUGHT, text("Ich schaue nach. 😀"), CALL, BARE_CALL, CUSTOM_CALL)
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: x"}
PATCH = {"type": "custom", "name": "patch", "format": GRAMMAR}
SEARCH = {"type": "web_search_preview", "search_context_size": "low"}


async def asked(
    bench: Bench,
    upstream: ScriptedUpstream,
    *,
    model: str = UPSTREAM_MODEL,
    options: dict[str, str] | None = None,
    price: Price = PRICE,
    **fields: Any,
) -> Call:
    """One request to the route, whose answer must tell nothing of the upstream."""
    upstream.offer(bench, "openai-responses", upstream_model=model, options=options, prices=(price,))
    body = {"model": PUBLIC_MODEL, "input": "hello", "store": False, **fields}
    call = await bench.call("/api/v1/responses", body)
    for leak in (*LEAKS, model.encode()):
        assert leak not in call.body and leak not in str(call.headers).encode()
    return call


def told(call: Call) -> list[Any]:
    """The events of a stream: each named twice the same, and numbered without a gap."""
    made = []
    for number, block in enumerate(call.body.decode().split("\n\n")[:-1]):
        name, content = block.split("\n")
        event = orjson.loads(content.removeprefix("data: "))
        assert (name, event["sequence_number"]) == (f"event: {event['type']}", number)
        made.append(event)
    return made


def without_ids(items: list[Any]) -> list[Any]:
    return [{name: value for name, value in item.items() if name != "id"} for item in items]


async def test_a_request_goes_as_it_came_but_for_what_is_not_kept_or_sold_here(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.answer(whole(text("fine")))
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "high"}
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Look"}, image]},
        {**THOUGHT, "id": "rs_ours00"},
        {**text("Well"), "id": "msg_ours01", "phase": "commentary"},
        {**CALL, "id": "fc_ours02"},
        {"type": "function_call_output", "call_id": CALL["call_id"], "output": [image]},
        {**CUSTOM_CALL, "id": "ctc_ours03"},
        {"type": "custom_tool_call_output", "call_id": CUSTOM_CALL["call_id"], "output": "done"},
        {
            "type": "local_shell_call",
            "id": "lsh_ours04",
            "call_id": "c",
            "status": "completed",
            "action": {"type": "exec", "command": ["ls"], "env": {}},
        },
        {"type": "local_shell_call_output", "id": "c", "output": "{}"},
    ]
    settings: dict[str, Any] = {
        "instructions": "Be kind.", "temperature": 0.5, "parallel_tool_calls": False, "prompt_cache_key": "k",
        "safety_identifier": "s", "truncation": "auto", "service_tier": "auto", "top_logprobs": 2,
        "reasoning": {"effort": "high", "summary": "detailed"}, "prompt_cache_retention": "24h",
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
        "tools": [WEATHER, PATCH, {"type": "local_shell"}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "patch"}]},
    }  # fmt: skip
    call = await asked(
        bench, upstream, model=REASONER, input=items, **settings, max_output_tokens=9_999, metadata={"a": "b"},
        include=["message.output_text.logprobs"], stream_options={"include_obfuscation": False},
    )  # fmt: skip
    assert call.status == 200 and "x-crun-dropped-params" not in call.headers
    assert (upstream.request.target, upstream.request.headers["authorization"]) == (
        "/responses", f"Bearer {UPSTREAM_KEY}",
    )  # fmt: skip
    assert upstream.request.json == {
        **settings, "model": REASONER, "store": False, "max_output_tokens": 5_000, "input": without_ids(items),
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
    }  # fmt: skip


async def test_what_is_not_sent_is_named(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(whole(text("fine")))
    unsealed = {"type": "reasoning", "id": "rs_x", "summary": [{"type": "summary_text", "text": "Hm."}]}
    smuggled = {"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]}
    found = {"type": "tool_search_output", "call_id": "c", "tools": [{"type": "web_search"}]}
    of_another = {"type": "reasoning.encrypted", "data": "theirs", "format": CLAUDE, "index": 0}
    foreign = {"type": "reasoning", "summary": [], "encrypted_content": pack([of_another], {})}
    hidden = {"type": "web_search", "name": "w"}
    group = {"type": "namespace", "name": "n", "description": "n", "tools": [WEATHER, hidden]}
    hello = {"role": "user", "content": [{"type": "input_image", "image_url": "https://a.example/x", "file_id": "f"}]}
    call = await asked(
        bench, upstream, input=[hello, unsealed, foreign, smuggled, found], background=False, moderation={"model": "x"},
        prompt_cache_options={"ttl": "12h"}, reasoning={"mode": "pro"}, max_tool_calls=3,
        tools=[WEATHER, SEARCH, {"type": "file_search", "vector_store_ids": ["vs_1"]}, {"type": "shell"},
               {"type": "code_interpreter", "container": "cntr_1"}, {"type": "mcp", "server_label": "m"}, group],
    )  # fmt: skip
    assert set(call.headers["x-crun-dropped-params"].split(", ")) == {
        "moderation", "prompt_cache_options", "reasoning.mode", "input.reasoning", "input.additional_tools",
        "input.tool_search_output", "tools[1]", "tools[2]", "tools[3]", "tools[4]", "tools[5]", "tools[6]",
    }  # fmt: skip
    assert upstream.request.json == {
        "model": UPSTREAM_MODEL, "store": False, "max_output_tokens": 5_000, "tools": [WEATHER],
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://a.example/x"}]}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [SEARCH], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tools": [SEARCH], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER, SEARCH], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [
            {"type": "web_search_preview"}]}}, "tool_choice"),
        ({"input": [{"type": "computer_call_output", "call_id": "c", "output": {
            "type": "computer_screenshot", "file_id": "file-1"}}, {"role": "user", "content": "x"}]}, "input[0]"),
    ],
)  # fmt: skip
async def test_a_tool_that_is_not_sold_and_state_that_is_not_ours_are_refused(
    bench: Bench, upstream: ScriptedUpstream, fields: dict[str, Any], param: str
) -> None:
    call = await asked(bench, upstream, **fields)
    assert (call.status, call.json["error"]["param"], upstream.requests) == (400, param, [])


async def test_a_vendors_tool_runs_where_the_operator_says_so_and_is_held_for(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    searched = {"id": "ws_0a9", "type": "web_search_call", "status": "completed",
                "action": {"type": "search", "query": "x"}}  # fmt: skip
    usage = {"input_tokens": 500_000, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
             "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 500_009}  # fmt: skip
    upstream.answer(whole(searched, text("found"), usage=usage))
    options = {"tools": "web_search", "max_tool_calls": "3"}
    call = await asked(
        bench, upstream, options=options, tools=[SEARCH, {"type": "mcp", "server_label": "m"}], max_tool_calls=2,
        tool_choice={"type": "web_search_preview"},
    )  # fmt: skip
    assert call.headers["x-crun-dropped-params"] == "tools[1]"
    sent = upstream.request.json
    assert (sent["tools"], sent["max_tool_calls"], sent["tool_choice"]) == ([SEARCH], 2, {"type": "web_search_preview"})
    assert [item["type"] for item in call.json["output"]] == ["web_search_call", "message"]
    record = bench.record(call)
    assert (record.tokens.input, record.estimated) == (500_000, False)
    assert record.opened.hold_nanos >= 3 * 128_000 * PRICE.input // 1_000_000
    upstream.requests.clear()
    await asked(bench, upstream, options=options, tools=[SEARCH], max_tool_calls=50)
    assert upstream.request.json["max_tool_calls"] == 3


async def test_a_whole_answer_passes_under_our_names(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(whole(*CONTENT, moderation={"secret": 1}))
    call = await asked(bench, upstream, metadata={"a": "b"}, instructions="x")
    TypeAdapter(Response).validate_python(call.json, strict=True)
    answer = call.json
    assert without_ids(answer["output"]) == without_ids(list(CONTENT))
    assert [item["id"].split("_")[0] for item in answer["output"]] == ["rs", "msg", "fc", "fc", "ctc"]
    assert len({item["id"] for item in answer["output"]}) == 5
    assert (answer["id"], answer["model"], answer["output_text"]) == (
        f"resp_{call.request_id[4:]}", PUBLIC_MODEL, "Ich schaue nach. 😀",
    )  # fmt: skip
    assert (answer["instructions"], answer["metadata"], answer["reasoning"], answer["top_p"]) == (
        "x", {"a": "b"}, {"effort": "medium", "summary": "detailed"}, 0.98,
    )  # fmt: skip
    assert "moderation" not in answer
    end, usage = bench.record(call), answer["usage"]
    assert (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"], usage["output_tokens"]) == (12, 4, 9)
    assert (round(usage["cost"] * 10**9), end.tokens.reasoning) == (end.cost_nanos, 5)


async def test_a_stream_passes_event_by_event(bench: Bench, upstream: ScriptedUpstream) -> None:
    news = {"type": "response.web_search_call.searching", "item_id": THOUGHT["id"], "output_index": 0,
            "response_id": RESPONSE_ID, "sequence_number": 5}  # fmt: skip
    said = events(*CONTENT)
    upstream.answer(*sse_events(*said[:5], news, *said[5:]))
    got = told(await asked(bench, upstream, stream=True))
    sent = [event for event in (*said[:5], news, *said[5:]) if event["type"] != "keepalive"]
    assert [event["type"] for event in got] == [event["type"] for event in sent]
    assert [event.get("delta") for event in got] == [event.get("delta") for event in sent]
    for event in got:
        EVENTS.validate_python(event, strict=True)
    ids = {event["output_index"]: event["item"]["id"] for event in got if event["type"] == "response.output_item.added"}
    assert all(
        event["item_id"] == ids[event["output_index"]]
        for event in got
        if "output_index" in event and "item_id" in event
    )
    final = got[-1]["response"]
    assert [item["id"] for item in final["output"]] == list(ids.values())
    whole_one = whole(*CONTENT)
    upstream.answers.clear()
    upstream.answer(whole_one)
    other = (await asked(bench, upstream)).json
    apart = ("id", "created_at", "output")
    assert {name: final[name] for name in final if name not in apart} == {
        name: other[name] for name in other if name not in apart
    }
    assert without_ids(final["output"]) == without_ids(other["output"])


async def test_any_split_of_the_bytes_gives_the_same_stream(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.answer(*streamed(*CONTENT))
    wanted = await asked(bench, upstream, stream=True)
    raw = b"".join(streamed(*CONTENT)).replace(b"\n", b"\r\n")
    for size in (1, 13, 400, len(raw)):
        upstream.answers.clear()
        upstream.answer(*[raw[start : start + size] for start in range(0, len(raw), size)])
        cut = await asked(bench, upstream, stream=True)
        assert _plain(cut) == _plain(wanted)


def _plain(call: Call) -> list[Any]:
    """The events without what differs from one request to the next."""
    made = orjson.loads(orjson.dumps(told(call)).replace(call.request_id[4:].encode(), b""))
    for event in made:
        if "response" in event:
            event["response"]["created_at"] = 0
    return list(made)


async def test_a_stream_that_is_torn_or_fails_ends_so_wherever_it_does(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    said = events(*CONTENT)
    error = {"type": "error", "code": "server_error", "message": "secret words", "param": None, "sequence_number": 9}
    failed = {"type": "response.failed", "response": response(status="failed", usage=None, error={
        "code": "rate_limit_exceeded", "message": "secret words"})}  # fmt: skip
    for length, last in ((0, None), (1, error), (4, None), (9, failed), (20, error), (len(said) - 1, None)):
        upstream.answers.clear()
        upstream.answer(*sse_events(*said[:length], *([last] if last else [])))
        call = await asked(bench, upstream, stream=True)
        got = told(call)
        kinds = [event["type"] for event in got]
        assert kinds[-1] == "response.failed" and kinds.count("response.failed") == 1
        assert kinds[0] == "response.created" and "response.completed" not in kinds
        assert b"secret words" not in call.body
        assert got[-1]["response"]["error"]["code"] == ("rate_limit_exceeded" if last is failed else "server_error")
        EVENTS.validate_python(got[-1], strict=True)
        assert bench.record(call).outcome is Outcome.FAILED


async def test_an_answer_that_is_cut_short_says_so(bench: Bench, upstream: ScriptedUpstream) -> None:
    end = incomplete("max_output_tokens", text("Well"))
    upstream.answer(*streamed(text("Well"), end=end))
    last = told(await asked(bench, upstream, stream=True))[-1]
    assert (last["type"], last["response"]["incomplete_details"]) == (
        "response.incomplete", {"reason": "max_output_tokens"},
    )  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_says_more_than_a_chat_is_not_kept_as_one(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    """A hit of the response cache would be made of the chat beside it, without what that cannot say."""
    found = {"type": "url_citation", "url": "https://a.example", "title": "a", "start_index": 0, "end_index": 1}
    content = text("fine", annotations=[found])
    upstream.answer(*(streamed(content) if stream else [whole(content)]))
    upstream.offer(bench, "openai-responses")
    body = {"model": PUBLIC_MODEL, "input": "hello", "store": False, "stream": stream}
    headers = {"authorization": f"Bearer {bench.key}", "x-crun-cache": "on"}
    for _ in range(2):
        call = await bench.call("/api/v1/responses", body, headers=headers)
        assert (call.status, call.headers["x-crun-cache-status"]) == (200, "MISS")
        answer = told(call)[-1]["response"] if stream else call.json
        assert answer["output"][0]["content"][0]["annotations"] == [found]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_what_guardrails_took_out_is_not_sent_and_thoughts_survive_it(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    bench.limit(policy=policy(keywords("canary-7f3a", action="redact", direction="input")))
    content = (THOUGHT, text("fine"), CUSTOM_CALL)
    upstream.answer(*(streamed(*content) if stream else [whole(*content)]))
    grammar = {**PATCH, "format": {**GRAMMAR, "definition": "start: canary-7f3a"}}
    ask = {"instructions": "canary-7f3a", "tools": [grammar], "stream": stream, "model": REASONER}
    said: list[Any] = [{"role": "user", "content": "the canary-7f3a sings"}]
    call = await asked(bench, upstream, input=said, include=["reasoning.encrypted_content"], **ask)
    assert (call.status, "x-crun-dropped-params" in call.headers) == (200, False)
    assert b"sings" in upstream.request.body and b"canary" not in upstream.request.body
    assert upstream.request.json["tools"][0]["type"] == "custom"
    output = told(call)[-1]["response"]["output"] if stream else call.json["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "custom_tool_call"]
    assert output[2]["input"] == CUSTOM_CALL["input"]
    for guards in (True, False):
        if not guards:
            bench.limit(policy=None)
        upstream.requests.clear()
        back = [*said, *output, {"type": "custom_tool_call_output", "call_id": CUSTOM_CALL["call_id"], "output": "ok"}]
        again = await asked(bench, upstream, input=back, **ask)
        assert again.status == 200
        sent = upstream.request.json["input"]
        thoughts = [item for item in sent if item["type"] == "reasoning"] if guards else [sent[1]]
        assert [item["encrypted_content"] for item in thoughts] == [THOUGHT["encrypted_content"]]
        assert [item["type"] for item in sent[-2:]] == ["custom_tool_call", "custom_tool_call_output"]


async def test_an_answer_that_could_not_be_stored_says_so_in_the_place_of_its_last_event() -> None:
    native = NativeResponses({"store": True}, request_id="req_0", usage=dict, service_tier=lambda: "")
    native.passed(ResponsesAnswerStream(native).feed(b"".join(streamed(text("Well")))))
    first, second = (orjson.loads(block.split(b"data: ")[1]) for block in (native.last, native.not_stored()))
    assert second == {**first, "response": {**first["response"], "store": False}}
