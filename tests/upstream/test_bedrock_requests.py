"""What AWS Bedrock is sent for a request of ours, what is refused before, and how it is signed."""

from hashlib import sha256
from typing import Any
from urllib.parse import quote

import msgspec
import orjson
import pytest

from apps.gateway.dialects.chat import parse_chat
from apps.gateway.providers.bedrock_request import converse_request, losses
from apps.gateway.providers.bedrock_signing import signed_headers
from apps.usage.contracts import Outcome
from tests.factories import PRICE, TARGET, offered
from tests.gateway.conftest import Bench
from tests.upstream.aws_signature import TOKEN, verify
from tests.upstream.bedrock_shapes import (
    CLAUDE,
    CREDENTIAL,
    HELLO,
    TALK,
    WEATHER,
    WHOLE,
    image,
)
from tests.upstream.scripted import PUBLIC_MODEL, Received, ScriptedUpstream


@pytest.mark.asyncio
async def test_temporary_credentials_and_arns_are_signed(bench: Bench, upstream: ScriptedUpstream) -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab cd"
    upstream.offer(
        bench, "bedrock", options={"region": "us-east-1"}, upstream_model=arn, api_key=f"{CREDENTIAL}:{TOKEN}"
    )
    upstream.answer(orjson.dumps(WHOLE))
    assert (await bench.chat(PUBLIC_MODEL)).status == 200
    assert upstream.request.target == f"/model/{quote(arn, safe='')}/converse"
    assert "/ab" not in upstream.request.target
    assert upstream.request.headers["x-amz-security-token"] == TOKEN
    assert "x-amz-security-token" in upstream.request.headers["authorization"]
    verify(upstream.request, region="us-east-1")


@pytest.mark.asyncio
async def test_a_bearer_key_is_not_signed_with(bench: Bench, upstream: ScriptedUpstream) -> None:
    options = {"region": "us-east-1", "auth": "bearer"}
    upstream.offer(bench, "bedrock", options=options, upstream_model=CLAUDE, api_key="bedrock-api-key-canary")
    upstream.answer(orjson.dumps(WHOLE))
    assert (await bench.chat(PUBLIC_MODEL)).status == 200
    assert upstream.request.headers["authorization"] == "Bearer bedrock-api-key-canary"
    assert "x-amz-date" not in upstream.request.headers


def test_a_wrong_signature_is_seen_by_this_test() -> None:
    headers = signed_headers("http://h/model/a%3A0/converse", sha256(b"{}").hexdigest(), CREDENTIAL, region="us-east-1")
    request = Received("POST", "/model/a%3A0/converse", {**headers, "host": "h"}, b"{}")
    verify(request, region="us-east-1")
    for changed in (
        Received("POST", "/model/a:0/converse", request.headers, b"{}"),
        Received("POST", request.target, request.headers, b"{ }"),
        Received("POST", request.target, {**request.headers, "host": "i"}, b"{}"),
    ):
        with pytest.raises(AssertionError):
            verify(changed, region="us-east-1")


async def sent(bench: Bench, upstream: ScriptedUpstream, fields: dict[str, Any], *, model: str = CLAUDE) -> Any:
    """What the upstream gets for a request with these fields."""
    upstream.offer(bench, "bedrock", options={"region": "us-east-1"}, upstream_model=model, api_key=CREDENTIAL)
    upstream.answers = []
    upstream.answer(orjson.dumps(WHOLE))
    call = await bench.call("/api/v1/chat/completions", {"model": PUBLIC_MODEL, "messages": [HELLO], **fields})
    assert call.status == 200, call.body
    return upstream.requests[-1].json


@pytest.mark.asyncio
async def test_a_conversation_with_tools_is_sent_in_converses_form(bench: Bench, upstream: ScriptedUpstream) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    got = await sent(bench, upstream, {"messages": TALK, "tools": [WEATHER], "tool_choice": choice})
    assert got["system"] == [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}]
    assert got["messages"] == [
        {"role": "user", "content": [{"text": "hello"}]},
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
                {"text": "I look."},
                {"toolUse": {"toolUseId": "a", "name": "weather", "input": {"town": "Ulm"}}},
                {"toolUse": {"toolUseId": "b", "name": "weather", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "a", "content": [{"text": "sun"}]}},
                {"toolResult": {"toolUseId": "b", "content": []}},
                {"text": "And?"},
            ],
        },
    ]
    schema = {"type": "object", "properties": {"town": {}}}
    spec = {"name": "weather", "description": "The weather", "inputSchema": {"json": schema}}
    assert got["toolConfig"] == {"tools": [{"toolSpec": spec}], "toolChoice": {"tool": {"name": "weather"}}}


@pytest.mark.asyncio
async def test_earlier_calls_keep_their_tools(bench: Bench, upstream: ScriptedUpstream) -> None:
    got = await sent(bench, upstream, {"messages": TALK})
    assert [each["toolSpec"]["name"] for each in got["toolConfig"]["tools"]] == ["weather"]
    got = await sent(bench, upstream, {"tools": [WEATHER], "tool_choice": "none"})
    assert "toolConfig" not in got


THINKING = {"thinking": {"type": "enabled", "budget_tokens": 2_500}}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        (CLAUDE, {"temperature": 0.5, "top_p": 0.9}, {"inferenceConfig": {"maxTokens": 5_000, "temperature": 0.5}}),
        (
            "amazon.nova-pro-v1:0",
            {"temperature": 0.5, "top_p": 0.9, "stop": "END"},
            {"inferenceConfig": {"maxTokens": 5_000, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}},
        ),
        (CLAUDE, {"max_tokens": 9}, {"inferenceConfig": {"maxTokens": 9}}),
        (CLAUDE, {"reasoning_effort": "medium"}, {"additionalModelRequestFields": THINKING}),
        (CLAUDE, {"top_k": 5}, {"additionalModelRequestFields": {"top_k": 5}}),
        (
            "us.anthropic.claude-opus-4-6-v1",
            {"reasoning_effort": "high"},
            {
                "additionalModelRequestFields": {"thinking": {"type": "adaptive", "display": "summarized"}},
                "outputConfig": {"effort": "high"},
            },
        ),
        (
            "openai.gpt-oss-120b-1:0",
            {"reasoning_effort": "low"},
            {"additionalModelRequestFields": {"reasoning_effort": "low"}},
        ),
        (
            CLAUDE,
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
            {
                "outputConfig": {
                    "textFormat": {
                        "type": "json_schema",
                        "structure": {"jsonSchema": {"schema": '{"type":"object"}', "name": "x"}},
                    }
                }
            },
        ),
    ],
)
async def test_parameters_have_their_counterparts(
    bench: Bench, upstream: ScriptedUpstream, model: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    got = await sent(bench, upstream, fields, model=model)
    del got["messages"]
    assert got == {"inferenceConfig": {"maxTokens": 5_000}} | expected


@pytest.mark.asyncio
async def test_media_come_with_the_request(bench: Bench, upstream: ScriptedUpstream) -> None:
    content = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}},
        {"type": "file", "file": {"filename": "my_report (1).pdf", "file_data": "data:application/pdf;base64,CCCC"}},
    ]
    got = await sent(bench, upstream, {"messages": [{"role": "user", "content": content}]})
    assert got["messages"][0]["content"] == [
        {"text": "Look:"},
        {"image": {"format": "jpeg", "source": {"bytes": "AAAA"}}},
        {"document": {"format": "pdf", "source": {"bytes": "CCCC"}, "name": "my report (1) 3"}},
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        (image("https://images.example/cat.png"), "messages[0].content[0]"),
        (image("data:image/tiff;base64,AAAA"), "messages[0].content[0]"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}], "tool_choice": {"type": "custom"}}, "tool_choice"),
    ],
)
async def test_what_would_change_the_answer_is_refused_and_not_sent(
    bench: Bench, upstream: ScriptedUpstream, fields: dict[str, Any], param: str
) -> None:
    upstream.offer(bench, "bedrock", options={"region": "us-east-1"}, upstream_model=CLAUDE, api_key=CREDENTIAL)
    call = await bench.call("/api/v1/chat/completions", {"model": PUBLIC_MODEL, "messages": [HELLO], **fields})
    assert (call.status, call.json["error"]["param"]) == (400, param)
    assert upstream.requests == []
    assert (bench.record(call).outcome, bench.record(call).cost_nanos) == (Outcome.FAILED, 0)


def test_what_has_no_counterpart_is_named() -> None:
    fields = {
        "seed": 7, "logprobs": True, "user": "u", "n": 1, "store": False, "top_p": 0.9, "temperature": 0.5, "top_k": 3,
        "tools": [WEATHER, {"type": "custom", "custom": {"name": "x"}}], "metadata": {"a": "b"}, "logit_bias": {},
    }  # fmt: skip
    chat = parse_chat(orjson.dumps({"model": "m", "messages": [HELLO], **fields}))
    nova = msgspec.structs.replace(TARGET, upstream_model="amazon.nova-pro-v1:0")
    assert losses(chat, offered(), nova) == ("seed", "logprobs", "user", "tools[1]", "top_k")
    claude = msgspec.structs.replace(TARGET, upstream_model=CLAUDE)
    assert losses(chat, offered(), claude) == ("seed", "logprobs", "user", "tools[1]", "top_p")
    plain = parse_chat(orjson.dumps({"model": "m", "messages": TALK, "tools": [WEATHER], "tool_choice": "none"}))
    assert losses(plain, offered(), claude) == ("tool_choice",)


def test_an_hour_in_the_cache_is_asked_for_where_it_has_a_price() -> None:
    hour = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    chat = parse_chat(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": [hour]}]}))
    request, lost = converse_request(chat, offered(), TARGET)
    assert request["messages"][0]["content"] == [{"text": "x"}, {"cachePoint": {"type": "default"}}]
    assert lost == ("cache_control.ttl",)
    priced = offered(prices=(msgspec.structs.replace(PRICE, cache_write_1h=1),))
    request, lost = converse_request(chat, priced, TARGET)
    assert request["messages"][0]["content"][1] == {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert lost == ()


def test_a_temperature_is_never_more_than_converse_takes() -> None:
    chat = parse_chat(orjson.dumps({"model": "m", "messages": [HELLO], "temperature": 1.7, "top_p": 0.5}))
    nova = msgspec.structs.replace(TARGET, upstream_model="amazon.nova-pro-v1:0")
    request, lost = converse_request(chat, offered(), nova)
    assert request["inferenceConfig"] == {"maxTokens": 100, "temperature": 1, "topP": 0.5}
    assert lost == ("temperature",)


def test_who_cannot_stop_thinking_thinks_little_and_that_is_named() -> None:
    chat = parse_chat(orjson.dumps({"model": "m", "messages": [HELLO], "reasoning_effort": "none"}))
    claude = msgspec.structs.replace(TARGET, upstream_model="eu.anthropic.claude-opus-5-20260801-v1:0")
    request, lost = converse_request(chat, offered(), claude)
    assert (request["outputConfig"], lost) == ({"effort": "low"}, ("reasoning_effort",))
