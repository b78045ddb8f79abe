"""Anthropic's refusals: what our callers are told of them, and that none costs anything."""

from typing import Any

import orjson
import pytest

from apps.usage.contracts import Outcome, TokenCounts
from tests.gateway.conftest import UPSTREAM_KEY, Bench
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream

CHAT = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "Hello"}]}
TOO_LONG = "prompt is too long: 200040 tokens > 200000 maximum"
NO_ROOM = "input length and `max_tokens` exceed context limit: 190000 + 64000 > 200000, decrease either"
POOR = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
LONG_OUTPUT = f"max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens for {UPSTREAM_MODEL}"


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "kind", "message", "told"),
    [
        (400, "invalid_request_error", TOO_LONG, (400, "context_length_exceeded", "messages")),
        (400, "invalid_request_error", NO_ROOM, (400, "context_length_exceeded", "messages")),
        (400, "invalid_request_error", LONG_OUTPUT, (400, None, "max_tokens")),
        (400, "invalid_request_error", "messages.0.content.1: Could not process image", (400, None, "messages")),
        (400, "invalid_request_error", POOR, (502, "upstream_unauthorized", None)),
        (402, "billing_error", "pay", (502, "upstream_unauthorized", None)),
        (402, "of_tomorrow", "pay", (502, "upstream_unauthorized", None)),
        (403, "billing_error", "pay", (502, "upstream_unauthorized", None)),
        (401, "authentication_error", f"invalid x-api-key {UPSTREAM_KEY}", (502, "upstream_unauthorized", None)),
        (403, "permission_error", "not yours", (502, "upstream_unauthorized", None)),
        (404, "not_found_error", f"model: {UPSTREAM_MODEL}", (502, "upstream_misconfigured", None)),
        (413, "request_too_large", "too large", (413, "request_too_large", None)),
        (429, "rate_limit_error", "slow down", (503, "upstream_overloaded", None)),
        (500, "api_error", "oops", (502, "upstream_failed", None)),
        (504, "timeout_error", "oops", (502, "upstream_failed", None)),
        (529, "overloaded_error", "Overloaded", (503, "upstream_overloaded", None)),
    ],
)
async def test_every_refusal_has_its_meaning_for_our_caller_and_costs_nothing(
    bench: Bench,
    upstream: ScriptedUpstream,
    stream: bool,
    status: int,
    kind: str,
    message: str,
    told: tuple[int, str | None, str | None],
) -> None:
    upstream.offer(bench, "anthropic")
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}
    upstream.answer(orjson.dumps(error), status=status, headers={"retry-after": "7", "request-id": "req_011CSHo"})
    call = await bench.call("/api/v1/chat/completions", {**CHAT, "stream": stream})
    said = call.json["error"]
    assert (call.status, said["code"], said["param"]) == told
    assert call.headers.get("retry-after") == {429: "7", 529: "7", 500: "1", 504: "1"}.get(status)
    for secret in (UPSTREAM_MODEL, UPSTREAM_KEY, "req_011CSHo", "127.0.0.1", "Plans & Billing"):
        assert secret not in call.body.decode() + str(call.headers)
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos, record.tokens) == (Outcome.FAILED, 0, TokenCounts())


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"", b"<html>gateway</html>", b"[]", b'{"error":5}', b'{"error":{"message":5}}'])
async def test_an_error_without_a_sentence_is_told_all_the_same(
    bench: Bench, upstream: ScriptedUpstream, body: bytes
) -> None:
    upstream.offer(bench, "anthropic")
    pieces: Any = [body] if body else []
    upstream.answer(*pieces, status=400)
    call = await bench.call("/api/v1/chat/completions", CHAT)
    assert call.status == 400
    assert call.json["error"]["message"] == "The upstream refused the request as invalid."
