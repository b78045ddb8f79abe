"""AWS Bedrock in front of the gateway: signatures, the binary event stream, and what answers become.

The shapes of answers are those of the service model of bedrock-runtime (botocore/data/bedrock-runtime/2023-09-30) and
of the examples in AWS's pages on Converse, with our own words in them."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.catalog.contracts import Price, PriceVariant
from apps.gateway.errors import GatewayError
from apps.gateway.providers.bedrock_answer import whole_answer
from apps.gateway.providers.bedrock_eventstream import MessageSplitter
from apps.usage.contracts import Outcome, TokenCounts
from tests.gateway.conftest import Bench
from tests.upstream.aws_signature import ACCESS_KEY, SECRET_KEY, verify
from tests.upstream.bedrock_shapes import (
    CLAUDE,
    CREDENTIAL,
    METADATA,
    STREAM,
    TOKENS,
    USAGE,
    WHOLE,
    chunks_of,
    delta,
    relayed,
    stop,
)
from tests.upstream.eventstream import encoded, exception, failed, message
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream, folded


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_becomes_a_chat_completion(bench: Bench, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.offer(bench, "bedrock", options={"region": "eu-central-1"}, upstream_model=CLAUDE, api_key=CREDENTIAL)
    upstream.answer(*(STREAM if stream else [orjson.dumps(WHOLE)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream, max_tokens=70)
    assert call.status == 200
    choice = folded(call.events)[0] if stream else call.json["choices"][0]
    said = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert (said["content"], said["reasoning_content"]) == ("Grüße aus 🐝 Ulm", "Let me think.")
    assert [entry["signature"] for entry in said["reasoning_details"]] == ["c2lnbmVk"]
    assert said["tool_calls"] == [
        {"id": "t_1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}},
        {"id": "t_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    usage = call.events[-2]["usage"] if stream else call.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (47, 9)
    assert [leak for leak in (b"anthropic.claude", b"latency", ACCESS_KEY.encode(), b"aws") if leak in call.body] == []
    operation = "converse-stream" if stream else "converse"
    assert upstream.request.target == f"/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/{operation}"
    assert upstream.request.json == {
        "messages": [{"role": "user", "content": [{"text": "one two three"}]}],
        "inferenceConfig": {"maxTokens": 70},
    }
    verify(upstream.request, region="eu-central-1")
    record = bench.record(call)
    assert (record.outcome, record.tokens, record.estimated, record.review) == (Outcome.COMPLETED, TOKENS, False, "")
    assert (record.finish_reason, record.opened.hold_nanos >= record.cost_nanos > 0) == ("tool_calls", True)


def test_a_damaged_prelude_is_not_waited_for() -> None:
    splitter = MessageSplitter()
    assert splitter.feed(METADATA[:11] + bytes([METADATA[11] ^ 1])) == []
    assert splitter.is_damaged


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"), ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"), ("something_new", "stop"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [True, False])
async def test_stop_reasons(bench: Bench, upstream: ScriptedUpstream, reason: str, finish: str, stream: bool) -> None:
    upstream.offer(bench, "bedrock", options={"region": "us-east-1"}, api_key=CREDENTIAL)
    told = {
        "output": {"message": {"role": "assistant", "content": [{"text": "Well"}]}},
        "stopReason": reason,
        "usage": USAGE,
    }
    pieces = [STREAM[0], delta(0, text="Well"), stop(0), message("messageStop", {"stopReason": reason}), METADATA]
    upstream.answer(*(pieces if stream else [orjson.dumps(told)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream)
    choice = folded(call.events)[0] if stream else call.json["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == (finish, "Well")
    assert (bench.record(call).outcome, bench.record(call).tokens) == (Outcome.COMPLETED, TOKENS)


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_fails_is_not_paid(bench: Bench, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.offer(bench, "bedrock", options={"region": "us-east-1"}, api_key=CREDENTIAL)
    told = {
        "output": {"message": {"role": "assistant", "content": []}},
        "stopReason": "malformed_tool_use",
        "usage": USAGE,
    }
    pieces = [STREAM[0], message("messageStop", {"stopReason": "malformed_tool_use"}), METADATA]
    upstream.answer(*(pieces if stream else [orjson.dumps(told)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream)
    error = call.events[-1]["error"] if stream else call.json["error"]
    assert error["code"] == "upstream_failed"
    assert (bench.record(call).outcome, bench.record(call).cost_nanos) == (Outcome.FAILED, 0)
    assert len(upstream.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("confirmed", ["priority", "default"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_tier_is_billed_as_it_was_served(
    bench: Bench, upstream: ScriptedUpstream, confirmed: str, stream: bool
) -> None:
    rates = {"input": 1_000_000, "output": 2_000_000, "cache_read": 0, "cache_write": 0, "reasoning": 2_000_000}
    fast = PriceVariant(**{**rates, "output": 9_000_000}, service_tier="priority")
    price = Price(version_id=1, starts_at=0.0, **rates, variants=(fast,))
    upstream.offer(bench, "bedrock", options={"region": "us-east-1"}, api_key=CREDENTIAL, prices=(price,))
    served = {"serviceTier": {"type": confirmed}}
    last = message("metadata", {"usage": USAGE, "metrics": {}, **served})
    upstream.answer(*([*STREAM[:-1], last] if stream else [orjson.dumps(WHOLE | served)]))
    call = await bench.chat(PUBLIC_MODEL, stream=stream, service_tier="priority")
    assert upstream.request.json["serviceTier"] == {"type": "priority"}
    is_fast = confirmed == "priority"
    record = bench.record(call)
    assert (record.service_tier, record.cost_nanos) == ("priority" if is_fast else "", 12 + 9 * (9 if is_fast else 2))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "told", "expected"),
    [
        (403, f"User: arn:aws:iam::123456789012:user/x is not authorized {ACCESS_KEY}", (502, "upstream_unauthorized")),
        (403, "The security token included in the request is invalid.", (502, "upstream_unauthorized")),
        (429, "Too many requests, please wait before trying again.", (503, "upstream_overloaded")),
        (503, "Bedrock is unable to process your request.", (503, "upstream_overloaded")),
        (500, "internal", (502, "upstream_failed")),
        (424, "The model failed", (502, "upstream_failed")),
        (408, "The model took too long", (502, "upstream_failed")),
        (404, "Could not resolve the foundation model", (502, "upstream_misconfigured")),
        (400, "The provided model identifier is invalid.", (502, "upstream_misconfigured")),
        (400, "Input is too long for requested model.", (400, "context_length_exceeded")),
        (400, f"arn:aws:bedrock:x {CLAUDE} {SECRET_KEY} is malformed", (400, None)),
        (413, "too large", (413, "request_too_large")),
    ],
)
async def test_errors_become_ours_and_cost_nothing(
    bench: Bench, upstream: ScriptedUpstream, status: int, told: str, expected: tuple[int, str | None]
) -> None:
    upstream.offer(bench, "bedrock", options={"region": "us-east-1"}, upstream_model=CLAUDE, api_key=CREDENTIAL)
    upstream.answer(orjson.dumps({"message": told}), status=status)
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert (call.status, call.json["error"]["code"]) == expected
    for secret in (ACCESS_KEY, SECRET_KEY, CLAUDE, "arn:aws", "Bedrock"):
        assert secret not in call.body.decode()
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos, record.tokens) == (Outcome.FAILED, 0, TokenCounts())


FLIPPED = STREAM[6][:-9] + bytes([STREAM[6][-9] ^ 1]) + STREAM[6][-8:]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        pytest.param([exception("throttlingException", "slow down")], "upstream_overloaded", id="throttled"),
        pytest.param([exception("modelStreamErrorException", "boom")], "upstream_failed", id="model"),
        pytest.param([exception("validationException", "no")], "upstream_failed", id="validation"),
        pytest.param([failed("InternalError", "boom")], "upstream_failed", id="unmodelled error"),
        pytest.param([FLIPPED, *STREAM[7:]], "upstream_failed", id="a bit flipped in a message"),
        pytest.param([b"\0" * 16], "upstream_failed", id="no event stream"),
        pytest.param(
            [encoded({":message-type": "event", ":event-type": "metadata"}, b"no JSON")],
            "upstream_failed",
            id="garbage",
        ),
        pytest.param([STREAM[6][:-5]], "upstream_failed", id="torn"),
        pytest.param([], "upstream_failed", id="ended early"),
    ],
)
async def test_a_stream_that_breaks_never_looks_whole(
    bench: Bench, upstream: ScriptedUpstream, pieces: list[bytes], code: str
) -> None:
    upstream.offer(bench, "bedrock", options={"region": "us-east-1"}, api_key=CREDENTIAL)
    upstream.answer(*STREAM[:6], *pieces, is_closed_by_end=True)
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert call.events[-1]["error"]["code"] == code
    assert folded(call.events)[0]["finish_reason"] is None
    assert b"slow down" not in call.body
    record = bench.record(call)
    assert (record.outcome, record.estimated, record.tokens.output) == (Outcome.FAILED, True, 4)
    assert len(upstream.requests) == 1


@pytest.mark.asyncio
async def test_a_connection_that_is_cut_is_told(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "bedrock", options={"region": "us-east-1"}, api_key=CREDENTIAL)
    upstream.answer(*STREAM[:10], cut=True)
    call = await bench.chat(PUBLIC_MODEL, stream=True)
    assert call.events[-1]["error"]["code"] == "upstream_failed"


@given(st.lists(st.integers(0, len(b"".join(STREAM))), max_size=12))
def test_any_split_of_the_bytes_folds_into_the_whole_answer(cuts: list[int]) -> None:
    raw = b"".join(STREAM)
    edges = [0, *sorted(cuts), len(raw)]
    got, stream = relayed([raw[start:end] for start, end in pairwise(edges)])
    (expected,) = whole_answer(orjson.dumps(WHOLE))["choices"]
    choice = folded(chunks_of(got))[0]
    assert (choice["message"], choice["finish_reason"]) == (expected["message"], expected["finish_reason"])
    finished = [chunk for chunk in chunks_of(got) if chunk["choices"][0]["finish_reason"]]
    assert finished == chunks_of(got)[-1:]
    assert (stream.tokens, stream.failure, stream.skipped_events, stream.is_done) == (TOKENS, None, 0, True)


@given(st.integers(0, len(b"".join(STREAM)) - 1), st.integers(0, 7), st.integers(0, len(b"".join(STREAM))))
def test_a_flipped_bit_is_never_taken_for_an_answer(place: int, bit: int, cut: int) -> None:
    raw = bytearray(b"".join(STREAM))
    raw[place] ^= 1 << bit
    got, stream = relayed([bytes(raw)])
    assert folded(chunks_of(relayed([bytes(raw[:cut]), bytes(raw[cut:])])[0])) == folded(chunks_of(got))
    assert stream.failure is not None
    assert not stream.is_done
    assert all(chunk["choices"] for chunk in chunks_of(got))


NAMES = [
    "output", "message", "content", "text", "toolUse", "input", "reasoningContent", "reasoningText", "signature",
    "redactedContent", "citationsContent", "stopReason", "usage", "delta", "start", "contentBlockIndex", "serviceTier",
]  # fmt: skip


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


kinds = st.sampled_from(
    ["contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "new"]
)


@given(st.lists(st.tuples(kinds, anything), max_size=4))
def test_nothing_that_comes_breaks_the_translation(events: list[tuple[str, Any]]) -> None:
    _, stream = relayed([message(kind, told) for kind, told in events])
    assert stream.failure is not None or stream.is_finished
    for _, told in events:
        with suppress(ValueError, GatewayError):
            whole_answer(orjson.dumps(told))
