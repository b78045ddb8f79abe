"""403 means many things: a filter, a place that is not served, a model that is not for us, a wrong credential."""

from typing import Any

import orjson
import pytest

from apps.usage.contracts import Outcome
from tests.gateway.conftest import UPSTREAM_KEY, Bench
from tests.upstream.faulty import ANSWER, FaultyUpstream, saying
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream
from tests.upstream.test_faults_before_answer import ask, offer

pytestmark = pytest.mark.asyncio
CHAT = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "Hello"}]}
FILTERED, ELSEWHERE = (400, "content_filter"), (502, "upstream_misconfigured")
REFUSED = (502, "upstream_unauthorized")
XAI_FILTER = {
    "code": "The caller does not have permission to execute the specified operation",
    "error": "Content violates usage guidelines. Team: t-1, API key ID: k-1, Failed check: SAFETY_CHECK_TYPE_BIO",
}
FLAGGED = {"error": {"code": 403, "message": "Your input was flagged", "metadata": {"flagged_input": "…"}}}
NO_COUNTRY = {"code": "unsupported_country_region_territory", "message": "Not supported", "type": "request_forbidden"}
NO_MODEL = {"code": "model_not_found", "message": "Project `p` does not have access to model `m`"}
"""Shapes as users of these vendors have reported them, shortened."""


@pytest.mark.parametrize(
    ("dialect", "status", "body", "told"),
    [
        pytest.param("openai", 403, XAI_FILTER, FILTERED, id="xAI's filter"),
        pytest.param("openai", 403, FLAGGED, FILTERED, id="OpenRouter's moderation"),
        pytest.param("openai", 403, {"error": NO_COUNTRY}, ELSEWHERE, id="OpenAI's countries"),
        pytest.param("openai", 403, {"error": NO_MODEL}, ELSEWHERE, id="OpenAI's models"),
        pytest.param("openai", 403, b"<html><h1>Sorry, you have been blocked</h1></html>", ELSEWHERE, id="an edge"),
        pytest.param("openai", 403, {"error": "The API key is disabled"}, REFUSED, id="a disabled key"),
        pytest.param("openai", 403, b"", REFUSED, id="nothing"),
        pytest.param(
            "openai", 400, {"code": "x", "error": "Incorrect API key provided: xa***"}, REFUSED, id="xAI's key"
        ),
        pytest.param(
            "anthropic",
            403,
            {"error": {"type": "forbidden", "message": "Request not allowed"}},
            ELSEWHERE,
            id="Anthropic",
        ),
        pytest.param(
            "anthropic", 403, {"error": {"type": "permission_error", "message": "no"}}, REFUSED, id="permission"
        ),
        pytest.param(
            "gemini",
            403,
            {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}},
            REFUSED,
            id="Gemini",
        ),
    ],
)
async def test_a_403_is_told_by_what_it_means(
    bench: Bench, upstream: ScriptedUpstream, dialect: str, status: int, body: Any, told: tuple[int, str]
) -> None:
    upstream.offer(bench, dialect)
    upstream.answer(body if isinstance(body, bytes) else orjson.dumps(body), status=status)
    call = await bench.call("/api/v1/chat/completions", CHAT)
    assert (call.status, call.json["error"]["code"]) == told
    for secret in ("t-1", "k-1", "xa***", UPSTREAM_KEY):
        assert secret not in call.body.decode()
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos) == (Outcome.FAILED, 0)


async def test_a_filtered_prompt_is_asked_once_and_says_nothing_about_the_route(bench: Bench) -> None:
    body = orjson.dumps(XAI_FILTER)
    refusal = saying(b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
    async with FaultyUpstream(refusal) as strict, FaultyUpstream(ANSWER) as other:
        target = strict.target(provider="strict", weight=10**9)
        offer(bench, target, other.target(provider="other"))
        calls = [await ask(bench) for _ in range(7)]
    assert {call.status for call in calls} == {400}
    assert (strict.requests, other.requests) == (7, 0)
    health = bench.runtime.upstreams.of(target)
    assert (health.failures, health.is_broken) == (0, False)


async def test_a_place_that_is_not_served_is_another_routes_turn(bench: Bench) -> None:
    body = orjson.dumps({"error": NO_COUNTRY})
    refusal = saying(b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
    async with FaultyUpstream(refusal) as abroad, FaultyUpstream(ANSWER) as other:
        offer(bench, abroad.target(provider="abroad", weight=10**9), other.target(provider="other"))
        call = await ask(bench)
    assert call.status == 200 and (abroad.requests, other.requests) == (1, 1)
    (attempt, *_) = bench.record(call).attempts
    assert attempt.error_code == "upstream_misconfigured"
