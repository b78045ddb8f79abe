"""Azure OpenAI in front of the gateway: addresses, credentials, and a filter whose reports reach nobody.

The shapes are those of the samples in Microsoft's pages "Content filtering" and "Content streaming" for Azure OpenAI
(MicrosoftDocs/azure-ai-docs, articles/ai-foundry/openai/concepts/content-streaming.md), with our own words in them."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.dialects.chat_stream import ChatStream
from apps.gateway.providers.azure import Azure, AzureStream
from apps.usage.contracts import Outcome, TokenCounts
from tests.gateway.conftest import UPSTREAM_KEY, Bench
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream, sse

SAFE = {"hate": {"filtered": False, "severity": "safe"}, "self_harm": {"filtered": False, "severity": "safe"}}
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
OPENING = {
    "choices": [], "created": 0, "id": "", "model": "", "object": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
}  # fmt: skip
BLOCKED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": SAFE},
    }
}  # fmt: skip
TOLD_INSIDE = {"code": "BadRequest", "innererror": {"code": "ResponsibleAIPolicyViolation"}, "message": "no"}
TOO_LONG = {
    "code": "context_length_exceeded", "param": "messages",
    "message": f"{UPSTREAM_MODEL} at https://x.openai.azure.com takes {UPSTREAM_KEY}",
}  # fmt: skip
LEAKS = (
    b"filter_results",
    b"filter_offsets",
    b"severity",
    b"azure",
    b"fp_azure",
    b"chatcmpl-AZ",
    UPSTREAM_MODEL.encode(),
)


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **choice: Any) -> dict[str, Any]:
    """A chunk with its fields in Azure's order."""
    choice = {
        "content_filter_results": SAFE,
        "delta": delta,
        "finish_reason": finish,
        "index": 0,
        "logprobs": None,
    } | choice
    return {
        "choices": [choice], "created": 1_730_000_000, "id": "chatcmpl-AZ", "model": UPSTREAM_MODEL,
        "object": "chat.completion.chunk", "system_fingerprint": "fp_azure", "usage": None,
    }  # fmt: skip


ANNOTATION = {
    "choices": [
        {
            "content_filter_offsets": {"check_offset": 44, "start_offset": 44, "end_offset": 198},
            "content_filter_results": SAFE, "finish_reason": None, "index": 0,
        }
    ],
    "created": 0, "id": "", "model": "", "object": "",
}  # fmt: skip
STREAM = sse(
    OPENING,
    chunk({"content": "", "refusal": None, "role": "assistant"}),
    chunk({"content": "Hello"}),
    ANNOTATION,
    chunk({"content": " wörld"}),
    chunk({}, "stop"),
    ANNOTATION,
    {
        "choices": [],
        "created": 1,
        "id": "chatcmpl-AZ",
        "model": UPSTREAM_MODEL,
        "object": "chat.completion.chunk",
        "usage": USAGE,
    },
    "[DONE]",
)
WHOLE = {
    "choices": [
        {
            "content_filter_results": SAFE, "finish_reason": "stop", "index": 0, "logprobs": None,
            "message": {"content": "Hello wörld", "refusal": None, "role": "assistant"},
        }
    ],
    "created": 1, "id": "chatcmpl-AZ", "model": UPSTREAM_MODEL, "object": "chat.completion",
    "prompt_filter_results": OPENING["prompt_filter_results"], "system_fingerprint": "fp_azure", "usage": USAGE,
}  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_reaches_the_client_without_the_filters_reports(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.offer(bench, "azure")
    upstream.answer(*(STREAM if stream else [orjson.dumps(WHOLE)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream, max_tokens=50)
    assert call.status == 200
    if stream:
        deltas = [event["choices"][0]["delta"] for event in call.events[:-2]]
        assert "".join(delta.get("content") or "" for delta in deltas) == "Hello wörld"
        assert [event["choices"][0]["finish_reason"] for event in call.events[:-2]] == [None, None, None, "stop"]
        assert call.events[-1] == "[DONE]"
        assert {event["object"] for event in call.events[:-1]} == {"chat.completion.chunk"}
    else:
        assert call.json["choices"] == [
            {"index": 0, "logprobs": None, "finish_reason": "stop",
             "message": {"content": "Hello wörld", "refusal": None, "role": "assistant"}}
        ]  # fmt: skip
    assert [leak for leak in LEAKS if leak in call.body.lower()] == []
    assert (upstream.request.method, upstream.request.target) == ("POST", "/openai/v1/chat/completions")
    assert upstream.request.headers["api-key"] == UPSTREAM_KEY
    assert "authorization" not in upstream.request.headers
    assert (upstream.request.json["model"], upstream.request.json["max_tokens"]) == (UPSTREAM_MODEL, 50)
    record = bench.record(call)
    assert (record.outcome, record.tokens) == (Outcome.COMPLETED, TokenCounts(input=7, output=2))
    assert (record.estimated, record.finish_reason, record.opened.hold_nanos >= record.cost_nanos > 0) == (
        False, "stop", True,
    )  # fmt: skip


@pytest.mark.asyncio
async def test_a_dated_version_names_the_deployment_in_the_address(bench: Bench, upstream: ScriptedUpstream) -> None:
    options = {"api_version": "2024-10-21", "auth": "entra"}
    upstream.offer(bench, "azure", options=options, upstream_model="my gpt/4o")
    upstream.answer(orjson.dumps(WHOLE))
    assert (await bench.chat(PUBLIC_MODEL)).status == 200
    assert upstream.request.target == "/openai/deployments/my%20gpt%2F4o/chat/completions?api-version=2024-10-21"
    assert upstream.request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert "api-key" not in upstream.request.headers


@pytest.mark.asyncio
@pytest.mark.parametrize("suffix", ["", "/openai", "/openai/v1"])
async def test_the_resources_address_may_be_written_with_its_path(
    bench: Bench, upstream: ScriptedUpstream, suffix: str
) -> None:
    upstream.offer(bench, "azure", base_url=upstream.url + suffix)
    upstream.answer(orjson.dumps(WHOLE))
    assert (await bench.chat(PUBLIC_MODEL)).status == 200
    assert upstream.request.target == "/openai/v1/chat/completions"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        pytest.param(400, BLOCKED["error"], (400, "content_filter"), id="prompt filtered"),
        pytest.param(400, TOLD_INSIDE, (400, "content_filter"), id="told inside only"),
        pytest.param(400, {"code": "OperationNotSupported"}, (502, "upstream_misconfigured"), id="operation"),
        pytest.param(404, {"code": "DeploymentNotFound"}, (502, "upstream_misconfigured"), id="deployment"),
        pytest.param(401, {"message": f"wrong key {UPSTREAM_KEY}"}, (502, "upstream_unauthorized"), id="key"),
        pytest.param(403, {"code": "AuthenticationTypeDisabled"}, (502, "upstream_unauthorized"), id="disabled"),
        pytest.param(429, {"code": "429", "message": "Retry later"}, (503, "upstream_overloaded"), id="quota"),
        pytest.param(500, {"code": "InternalServerError"}, (502, "upstream_failed"), id="bug"),
        pytest.param(400, TOO_LONG, (400, "context_length_exceeded"), id="context"),
    ],
)
async def test_errors_become_ours_and_cost_nothing(
    bench: Bench, upstream: ScriptedUpstream, status: int, error: dict[str, Any], expected: tuple[int, str]
) -> None:
    upstream.offer(bench, "azure")
    upstream.answer(orjson.dumps({"error": error}), status=status, headers={"retry-after": "6"})
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert (call.status, call.json["error"]["code"]) == expected
    for secret in (UPSTREAM_KEY, UPSTREAM_MODEL, "azure", "severity", "innererror"):
        assert secret not in call.body.decode().lower()
    if status == 429:
        assert call.headers["retry-after"] == "6"
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos, record.tokens) == (Outcome.FAILED, 0, TokenCounts())


@pytest.mark.asyncio
async def test_an_answer_that_the_filter_stops_says_so_and_is_billed(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "azure")
    upstream.answer(*sse(OPENING, chunk({"role": "assistant"}), chunk({"content": "Hey"}), chunk({}, "content_filter"),
                         {"choices": [], "usage": USAGE}, "[DONE]"))  # fmt: skip
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert call.events[-3]["choices"][0]["finish_reason"] == "content_filter"
    assert call.events[-1] == "[DONE]"
    assert bench.record(call).finish_reason == "content_filter"
    whole = {**WHOLE, "choices": [{"finish_reason": "content_filter", "index": 0, "message": {"role": "assistant"}}]}
    upstream.answers = []
    upstream.answer(orjson.dumps(whole))
    call = await bench.chat(PUBLIC_MODEL)
    assert call.json["choices"][0]["message"] == {"role": "assistant", "content": None}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        pytest.param({"cut": True}, "upstream_failed", id="cut in a chunked answer"),
        pytest.param({"is_closed_by_end": True}, "upstream_failed", id="cut that looks like an end"),
    ],
)
async def test_a_cut_stream_never_looks_whole(
    bench: Bench, upstream: ScriptedUpstream, ending: dict[str, Any], code: str
) -> None:
    upstream.offer(bench, "azure")
    upstream.answer(*STREAM[:3], STREAM[4][:-20], **ending)
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert call.events[-1]["error"]["code"] == code
    record = bench.record(call)
    assert (record.outcome, record.estimated, record.tokens.output) == (Outcome.FAILED, True, 1)
    assert len(upstream.requests) == 1


@pytest.mark.asyncio
async def test_an_error_in_the_stream_is_its_last_event(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "azure")
    upstream.answer(*STREAM[:3], *sse(BLOCKED))
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert call.events[-1]["error"]["code"] == "content_filter"
    assert [leak for leak in LEAKS if leak in call.body.lower()] == []
    assert bench.record(call).error_code == "content_filter"


def relayed(pieces: list[bytes]) -> tuple[bytes, ChatStream]:
    """What the client is sent of a stream that is read in these pieces."""
    translator = AzureStream()
    stream = ChatStream(completion_id="chatcmpl-1", model=PUBLIC_MODEL, choices=1, token_bound=1_000)
    sent = b"".join(stream.feed(translator.feed(piece)) for piece in pieces)
    return sent + stream.feed(translator.end()) + stream.end(), stream


@given(st.lists(st.integers(0, len(b"".join(STREAM))), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_events(cuts: list[int]) -> None:
    raw = b"".join(STREAM)
    edges = [0, *sorted(cuts), len(raw)]
    expected, whole = relayed([raw])
    got, split = relayed([raw[start:end] for start, end in pairwise(edges)])
    assert (got, split.tokens, split.finish_reason, split.failure) == (expected, whole.tokens, "stop", None)
    assert split.tokens == TokenCounts(input=7, output=2)
    assert split.skipped_events == 0


def test_plain_chunks_get_heads_that_the_relay_knows() -> None:
    (first,) = sse(chunk({"content": "a"}))
    translated = AzureStream().feed(first)
    stream = ChatStream(completion_id="chatcmpl-1", model=PUBLIC_MODEL, choices=1, token_bound=1_000)
    stream.feed(translated)
    assert stream.pass_on(translated) is not None


def test_what_is_no_answer_is_refused() -> None:
    for body in (b"[]", b"{}", b'{"choices":[]}', b"no"):
        with pytest.raises(ValueError):
            Azure().whole_answer(body)


def test_an_error_ends_the_stream_even_beside_a_list_of_choices() -> None:
    for told, code in (({"code": "content_filter"}, b"content_filter"), ({"code": "oops"}, b"upstream_failed")):
        translated = AzureStream().feed(sse({"choices": [], "error": told})[0])
        assert b'"error"' in translated and code in translated
