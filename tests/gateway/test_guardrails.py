"""Guardrails of requests: read before anything is held or sent, and what is redacted never leaves."""

from typing import Any

import msgspec
import orjson
import pytest

from apps.core.limits import Limits
from apps.gateway.dialects.anthropic_envelope import anthropic_error
from apps.gateway.guardrails.reading import refusal
from apps.policies.rules import Guardrail
from apps.usage.contracts import GuardrailVerdict, Outcome, TokenCounts
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.policies.rules import keywords, models, pattern, personal, policy
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream

__all__ = ["upstream"]
pytestmark = pytest.mark.asyncio
CANARY = "canary-7f3a"
MAIL = "ann@example.com"
ANSWER: dict[str, Any] = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}  # fmt: skip


def guard(bench: Bench, *rules: Guardrail) -> None:
    """Give the organization these rules."""
    bench.limit(policy=policy(*rules))


def verdicts(bench: Bench, call: Call) -> list[tuple[str, str, str]]:
    return [(each.rule, each.direction, each.action) for each in bench.record(call).guardrails]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_forbidden_request_is_refused_before_anything_is_held_or_sent(bench: Bench, stream: bool) -> None:
    rule = keywords(CANARY, name="No birds")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo", f"the {CANARY} sings", stream=stream)
    assert call.status == 400
    error = call.json["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "content_policy_violation")
    assert error["message"] == "The request was refused by a guardrail of your organization: “No birds”."
    assert bench.truth() == {}
    end = bench.record(call)
    assert end.guardrails == (GuardrailVerdict(rule.id, "No birds", "input", "blocked"),)
    assert (end.outcome, end.http_status, end.cost_nanos, end.tokens) == (Outcome.FAILED, 400, 0, TokenCounts())
    assert (end.error_code, end.opened.provider, end.opened.hold_nanos) == ("content_policy_violation", "", 0)
    assert not bench.runtime.reservations.is_running(call.request_id)
    assert "x-ratelimit-limit-requests" not in call.headers


async def test_anthropics_clients_get_their_own_envelope() -> None:
    status, body = anthropic_error(refusal(keywords(CANARY, name="No birds"), "input"), "req_1")
    error = orjson.loads(body)
    assert (status, error["type"], error["error"]["type"]) == (400, "error", "invalid_request_error")
    assert error["error"]["code"] == "content_policy_violation" and CANARY not in body.decode()


async def test_a_rule_that_only_logs_lets_pass_and_is_on_the_receipt(bench: Bench) -> None:
    rule = keywords(CANARY, mode="log", direction="input")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo", f"the {CANARY} sings")
    assert call.status == 200 and CANARY in call.json["choices"][0]["message"]["content"]
    assert verdicts(bench, call) == [(rule.id, "input", "logged")]
    assert bench.record(call).cost_nanos > 0


async def test_what_is_redacted_is_what_goes_upstream_and_is_counted(bench: Bench) -> None:
    rule = personal(direction="input")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo", f"mail {MAIL} twice {MAIL} or b@example.com")
    assert call.json["choices"][0]["message"]["content"] == "mail [EMAIL_1] twice [EMAIL_1] or [EMAIL_2]"
    assert verdicts(bench, call) == [(rule.id, "input", "redacted")]


async def test_every_text_of_a_chat_is_read(bench: Bench, upstream: ScriptedUpstream) -> None:
    guard(bench, personal("email", direction="input"))
    upstream.offer(bench, "openai")
    upstream.answer(orjson.dumps(ANSWER))
    body = {
        "model": PUBLIC_MODEL,
        "messages": [
            {"role": "system", "content": f"system {MAIL}"},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": f"part {MAIL}"}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function", "function": {
                    "name": "send", "arguments": '{"to": "ann\\u0040example.com"}'}}
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": f"result {MAIL}"},
        ],
        "tools": [{"type": "function", "function": {"name": "send", "description": f"as {MAIL}", "parameters": {
            "type": "object", "properties": {"to": {"type": "string", "enum": [MAIL]}}}}}],
        "user": MAIL,
        "stop": [MAIL],
        "prediction": {"type": "content", "content": f"maybe {MAIL}"},
        "vendor_field": {"deep": [MAIL]},
    }  # fmt: skip
    call = await bench.call("/api/v1/chat/completions", body)
    assert call.status == 200
    body_sent = upstream.request.body
    assert b"example.com" not in body_sent and body_sent.count(b"[EMAIL_1]") == 10
    assert upstream.request.json["messages"][2]["tool_calls"][0]["function"]["name"] == "send"


async def test_completions_and_what_they_echo(bench: Bench) -> None:
    guard(bench, personal("email", direction="input"))
    bench.offer("sandbox-echo")
    body = {"model": "sandbox-echo", "prompt": f"to {MAIL}", "echo": True}
    call = await bench.call("/api/v1/completions", body)
    assert call.json["choices"][0]["text"] == "to [EMAIL_1]to [EMAIL_1]"


@pytest.mark.parametrize("given", [f"to {MAIL}", [f"to {MAIL}", "x"]])
async def test_embeddings(bench: Bench, given: Any) -> None:
    offer_embeddings(bench)
    guard(bench, personal("email"))
    call = await bench.call("/api/v1/embeddings", {"model": "sandbox-embedding", "input": given})
    plain = orjson.loads(orjson.dumps(given).replace(MAIL.encode(), b"[EMAIL_1]"))
    guard(bench)
    same = await bench.call("/api/v1/embeddings", {"model": "sandbox-embedding", "input": plain})
    assert call.status == same.status == 200
    assert call.json["data"] == same.json["data"]


async def test_token_ids_cannot_go_around_the_rules(bench: Bench) -> None:
    offer_embeddings(bench)
    guard(bench, keywords(CANARY))
    call = await bench.call("/api/v1/embeddings", {"model": "sandbox-embedding", "input": [1, 2, 3]})
    assert (call.status, call.json["error"]["code"]) == (400, "content_policy_violation")
    assert call.json["error"]["param"] == "input"
    guard(bench, models(denied=("other",)))
    assert (await bench.call("/api/v1/embeddings", {"model": "sandbox-embedding", "input": [1, 2]})).status == 200


def offer_embeddings(bench: Bench) -> None:
    model = offered(
        id="sandbox-embedding", targets=(bench.target("sandbox-embedding"),), output_modalities=("embeddings",)
    )
    bench.models[model.id] = model
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


async def test_a_long_body_is_read_to_its_end(bench: Bench) -> None:
    guard(bench, keywords(CANARY))
    long = "some words " * 50_000
    assert (await bench.chat("sandbox-echo", f"{long} {CANARY}")).status == 400
    assert (await bench.chat("sandbox-echo", CANARY + " " + long)).status == 400


async def test_a_model_that_is_not_allowed_is_refused_and_not_listed(bench: Bench) -> None:
    rule = models(denied=("sandbox-echo",), name="Cheap ones only")
    bench.offer("sandbox-echo")
    bench.offer("sandbox-tools")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo")
    assert (call.status, call.json["error"]["code"], call.json["error"]["param"]) == (
        400,
        "content_policy_violation",
        "model",
    )
    assert verdicts(bench, call) == [(rule.id, "input", "blocked")]
    assert (await bench.chat("sandbox-tools")).status == 200
    listed = [model["id"] for model in (await bench.call("/api/v1/models")).json["data"]]
    assert "sandbox-tools" in listed and "sandbox-echo" not in listed
    assert (await bench.call("/api/v1/models/sandbox-echo")).status == 404
    guard(bench)
    listed = [model["id"] for model in (await bench.call("/api/v1/models")).json["data"]]
    assert "sandbox-echo" in listed


async def test_of_several_models_those_that_are_allowed_are_asked(bench: Bench) -> None:
    bench.offer("sandbox-echo")
    bench.offer("sandbox-tools")
    guard(bench, models(allowed=("sandbox-e*",)))
    call = await bench.chat("sandbox-tools", models=["sandbox-tools", "sandbox-echo"])
    assert (call.status, call.json["model"]) == (200, "sandbox-echo")
    assert not [each for each in bench.record(call).guardrails if each.action == "blocked" and call.status != 200]


async def test_a_model_rule_that_only_logs(bench: Bench) -> None:
    rule = models(denied=("sandbox-echo",), mode="log")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo")
    assert call.status == 200 and verdicts(bench, call) == [(rule.id, "input", "logged")]


async def test_a_refused_request_takes_nothing_from_any_limit(bench: Bench) -> None:
    bench.limit(policy=policy(keywords(CANARY)), key_limits=Limits(requests_per_minute=1))
    for _ in range(3):
        assert (await bench.chat("sandbox-echo", CANARY)).json["error"]["code"] == "content_policy_violation"
    assert (await bench.chat("sandbox-echo", "fine")).status == 200


async def test_an_unknown_model_is_told_as_ever_and_leaves_no_record(bench: Bench) -> None:
    guard(bench, keywords(CANARY))
    call = await bench.call(
        "/api/v1/chat/completions", {"model": "none", "messages": [{"role": "user", "content": "x"}]}
    )
    assert call.json["error"]["code"] == "model_not_found"
    call = await bench.call(
        "/api/v1/chat/completions", {"model": "none", "messages": [{"role": "user", "content": CANARY}]}
    )
    assert call.json["error"]["code"] == "content_policy_violation"
    assert bench.journal() == []


async def test_a_rule_that_cannot_be_used_lets_nothing_pass(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    guard(bench, pattern("(unclosed"))
    call = await bench.chat("sandbox-echo", "hello")
    assert (call.status, call.json["error"]["code"]) == (503, "store_unavailable")
    assert bench.truth() == {}


async def test_without_rules_nothing_is_there_to_be_carried(bench: Bench) -> None:
    call = await bench.chat("sandbox-echo", f"{CANARY} {MAIL}")
    assert call.json["choices"][0]["message"]["content"] == f"{CANARY} {MAIL}"
    assert bench.record(call).guardrails == ()


async def test_another_organizations_rules_touch_nothing(bench: Bench) -> None:
    """Two keys in one worker, with rules for one of them."""
    guard(bench, keywords(CANARY))
    assert (await bench.chat("sandbox-echo", CANARY)).status == 400
    bench.grant = msgspec.structs.replace(bench.grant, organization_id="org_2", key_id="key_2", policy=None)
    bench.runtime.keys.distrust()
    assert (await bench.chat("sandbox-echo", CANARY)).status == 200
