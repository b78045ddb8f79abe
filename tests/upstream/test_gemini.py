"""Google Gemini in front of the gateway: what it is sent, and what its answers become.

The shapes of answers are those of the reference of `models.generateContent` (ai.google.dev/api/generate-content) and of
the responses in the tests of googleapis/python-genai and vercel/ai (packages/google), with our own words in them."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, BadRequestError

from apps.gateway.errors import GatewayError
from apps.gateway.providers.gemini_answer import whole_answer
from apps.usage.contracts import Outcome, TokenCounts
from tests.gateway.conftest import UPSTREAM_KEY, Bench
from tests.upstream.gemini_shapes import FIRST_USAGE, HELLO, STREAM, TOKENS, USAGE, WHOLE, chunks_of, relayed, response
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream, folded, sse, without_ids

LEAKS = (
    b"resp-secret",
    UPSTREAM_MODEL.encode(),
    b"modelversion",
    b"usagemetadata",
    b"google.rpc",
    b"generativelanguage",
)


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_becomes_a_chat_completion(bench: Bench, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.offer(bench, "gemini")
    upstream.answer(*(STREAM if stream else [orjson.dumps(WHOLE)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream, max_tokens=70)
    assert call.status == 200
    choice = folded(call.events)[0] if stream else call.json["choices"][0]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert (message["content"], message["reasoning_content"]) == ("Grüße aus 🐝 Ulm", "Let me think.")
    assert message["tool_calls"][0] == {
        "id": "fc_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"town":"Ulm"}'},
        "extra_content": {"google": {"thought_signature": "c2lnbmVk"}},
    }
    assert message["tool_calls"][1]["function"] == {"name": "time", "arguments": "{}"}
    assert message["tool_calls"][1]["id"].startswith("call_")
    usage = call.events[-2]["usage"] if stream else call.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (12, 14)
    assert [leak for leak in LEAKS if leak in call.body.lower()] == []
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert upstream.request.target == f"/v1beta/models/{UPSTREAM_MODEL}:{method}"
    assert upstream.request.headers["x-goog-api-key"] == UPSTREAM_KEY
    assert "authorization" not in upstream.request.headers
    assert upstream.request.json == {
        "contents": [{"role": "user", "parts": [{"text": "one two three"}]}],
        "generationConfig": {"maxOutputTokens": 70},
    }
    record = bench.record(call)
    assert (record.outcome, record.tokens, record.estimated, record.finish_reason) == (
        Outcome.COMPLETED, TOKENS, False, "tool_calls",
    )  # fmt: skip
    assert (record.review, record.opened.hold_nanos >= record.cost_nanos > 0) == ("", True)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reason", "finish"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter")],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_finish_reasons(bench: Bench, upstream: ScriptedUpstream, reason: str, finish: str, stream: bool) -> None:
    upstream.offer(bench, "gemini")
    told = response({"text": "Well"}, finish=reason, usage=USAGE)
    upstream.answer(*(sse(told) if stream else [orjson.dumps(told)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream)
    choice = folded(call.events)[0] if stream else call.json["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == (finish, "Well")
    assert bench.record(call).outcome is Outcome.COMPLETED


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_that_cannot_be_read_is_a_failure_that_nobody_pays(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.offer(bench, "gemini")
    told = response(finish="MALFORMED_FUNCTION_CALL", usage=USAGE)
    upstream.answer(*(sse(told) if stream else [orjson.dumps(told)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream)
    error = call.events[-1]["error"] if stream else call.json["error"]
    assert error["code"] == "upstream_failed"
    assert b"[DONE]" not in call.body
    assert (bench.record(call).outcome, bench.record(call).cost_nanos) == (Outcome.FAILED, 0)
    assert len(upstream.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_a_blocked_prompt_is_told_and_free(bench: Bench, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.offer(bench, "gemini")
    told = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": USAGE}
    upstream.answer(*(sse(told) if stream else [orjson.dumps(told)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream)
    error = call.events[-1]["error"] if stream else call.json["error"]
    assert (error["code"], error["type"]) == ("content_filter", "invalid_request_error")
    assert call.status == (200 if stream else 400)
    assert (bench.record(call).error_code, bench.record(call).cost_nanos) == ("content_filter", 0)


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"}


WRONG_KEY = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
}


TOO_LONG = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("http_status", "error", "expected"),
    [
        (429, {"status": "RESOURCE_EXHAUSTED", "details": [RETRY]}, (503, "upstream_overloaded")),
        (503, {"status": "UNAVAILABLE"}, (503, "upstream_overloaded")),
        (500, {"status": "INTERNAL"}, (502, "upstream_failed")),
        (504, {"status": "DEADLINE_EXCEEDED"}, (502, "upstream_failed")),
        (401, {"status": "UNAUTHENTICATED"}, (502, "upstream_unauthorized")),
        (403, {"status": "PERMISSION_DENIED"}, (502, "upstream_unauthorized")),
        (404, {"status": "NOT_FOUND", "message": f"models/{UPSTREAM_MODEL}"}, (502, "upstream_misconfigured")),
        (400, {"status": "INVALID_ARGUMENT", "details": [WRONG_KEY]}, (502, "upstream_unauthorized")),
        (400, {"status": "FAILED_PRECONDITION", "message": "location"}, (502, "upstream_misconfigured")),
        (400, {"status": "INVALID_ARGUMENT", "message": TOO_LONG}, (400, "context_length_exceeded")),
        (400, {"status": "INVALID_ARGUMENT", "message": f"{UPSTREAM_KEY} projects/123 {UPSTREAM_MODEL}"}, (400, None)),
    ],
)
@pytest.mark.parametrize("is_listed", [True, False])
async def test_errors_become_ours_and_cost_nothing(
    bench: Bench,
    upstream: ScriptedUpstream,
    http_status: int,
    error: dict[str, Any],
    expected: tuple[int, str | None],
    is_listed: bool,
) -> None:
    upstream.offer(bench, "gemini")
    body = {"error": {"code": http_status, "message": "m", **error}}
    upstream.answer(orjson.dumps([body] if is_listed else body), status=http_status)
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert (call.status, call.json["error"]["code"]) == expected
    if "RetryInfo" in str(error):
        assert call.headers["retry-after"] == "37"
    for secret in (UPSTREAM_KEY, UPSTREAM_MODEL, "google", "projects/"):
        assert secret not in call.body.decode().lower()
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos, record.tokens) == (Outcome.FAILED, 0, TokenCounts())


@pytest.mark.asyncio
@pytest.mark.parametrize("ending", [{"cut": True}, {"is_closed_by_end": True}])
async def test_a_cut_stream_never_looks_whole_and_bills_what_was_told(
    bench: Bench, upstream: ScriptedUpstream, ending: dict[str, Any]
) -> None:
    upstream.offer(bench, "gemini")
    upstream.answer(*STREAM[:3], STREAM[4][:-30], **ending)
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert call.events[-1]["error"]["code"] == "upstream_failed"
    record = bench.record(call)
    assert (record.outcome, record.tokens) == (Outcome.FAILED, TokenCounts(input=12, output=2))
    assert len(upstream.requests) == 1


@pytest.mark.asyncio
async def test_a_stream_that_ends_before_all_of_its_candidates_is_torn(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.offer(bench, "gemini")
    upstream.answer(*sse(response({"text": "One"}, finish="STOP", usage=FIRST_USAGE)))
    call = await bench.chat(PUBLIC_MODEL, stream=True, n=2)
    assert call.events[-1]["error"]["code"] == "upstream_failed"


@pytest.mark.asyncio
async def test_an_error_in_the_stream_before_any_output_is_free(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "gemini")
    failure = {"error": {"code": 503, "message": "secret words", "status": "UNAVAILABLE"}}
    upstream.answer(*sse({"usageMetadata": FIRST_USAGE}, failure))
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert call.events[-1]["error"]["code"] == "upstream_overloaded"
    assert b"secret words" not in call.body
    assert (bench.record(call).outcome, bench.record(call).cost_nanos) == (Outcome.FAILED, 0)


@pytest.mark.asyncio
async def test_the_official_sdk_speaks_to_it(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "gemini")
    upstream.answers = []
    upstream.answer(*STREAM)
    upstream.answer(orjson.dumps(WHOLE))
    upstream.answer(orjson.dumps({"error": {"status": "INVALID_ARGUMENT", "message": TOO_LONG}}), status=400)
    transport = httpx.ASGITransport(app=bench.app)  # type: ignore[arg-type]  # an ASGI app by its shape
    async with httpx.AsyncClient(transport=transport) as http:
        client = AsyncOpenAI(base_url="http://crun/api/v1", api_key=bench.key, http_client=http, max_retries=0)
        asked: dict[str, Any] = {"model": PUBLIC_MODEL, "messages": [HELLO]}
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "Grüße aus 🐝 Ulm"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 26
        whole = await client.chat.completions.create(**asked)
        message = whole.choices[0].message
        assert message.tool_calls is not None
        assert message.content == text
        with pytest.raises(BadRequestError) as refused:
            await client.chat.completions.create(
                **{**asked, "messages": [HELLO, message.model_dump(exclude_none=True)]}
            )
        assert refused.value.code == "context_length_exceeded"
    returned = upstream.requests[-1].json["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in returned] == [None, "c2lnbmVk", None]


@given(st.lists(st.integers(0, len(b"".join(STREAM))), max_size=12))
def test_any_split_of_the_bytes_folds_into_the_whole_answer(cuts: list[int]) -> None:
    raw = b"".join(STREAM)
    edges = [0, *sorted(cuts), len(raw)]
    got, stream = relayed([raw[start:end] for start, end in pairwise(edges)])
    (expected,) = whole_answer(orjson.dumps(WHOLE))["choices"]
    choice = folded(chunks_of(got))[0]
    assert without_ids(choice["message"]) == without_ids(expected["message"])
    assert choice["finish_reason"] == expected["finish_reason"]
    assert (stream.tokens, stream.failure, stream.skipped_events) == (TOKENS, None, 0)


texts = st.text(max_size=8)


parts = st.one_of(
    st.builds(lambda text: {"text": text}, texts),
    st.builds(lambda text: {"text": text, "thought": True}, texts),
    st.builds(lambda name, value: {"functionCall": {"name": name, "args": {"x": value}}}, texts, texts),
    st.builds(lambda data: {"inlineData": {"mimeType": "image/png", "data": data}}, texts),
)


@given(st.lists(st.lists(parts, max_size=3), min_size=1, max_size=5), st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY"]))
def test_any_answer_is_the_same_whole_and_in_pieces(responses: list[list[dict[str, Any]]], reason: str) -> None:
    whole = response(*(part for each in responses for part in each), finish=reason, usage=USAGE)
    told = [*(response(*each, usage=FIRST_USAGE) for each in responses), response(finish=reason, usage=USAGE)]
    got, stream = relayed([b"".join(sse(*told))])
    (expected,) = whole_answer(orjson.dumps(whole))["choices"]
    expected["message"].pop("order", None)  # that of a stream is the order of its events
    choice = folded(chunks_of(got))[0]
    assert without_ids(choice["message"]) == without_ids(expected["message"])
    assert (choice["finish_reason"], stream.tokens) == (expected["finish_reason"], TOKENS)


NAMES = [
    "candidates", "content", "parts", "text", "functionCall", "args", "inlineData", "finishReason", "index",
    "usageMetadata", "logprobsResult", "chosenCandidates", "topCandidates", "promptFeedback", "error",
    "thoughtSignature",
]  # fmt: skip


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(anything)
def test_nothing_that_comes_breaks_the_translation(told: Any) -> None:
    got, stream = relayed(sse(told))
    assert stream.failure is not None or stream.is_finished
    with suppress(ValueError, GatewayError):
        whole_answer(orjson.dumps(told))
    assert b"[DONE]" not in got
