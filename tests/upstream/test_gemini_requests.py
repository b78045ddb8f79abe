"""What Google Gemini is sent for a request of ours, and what is refused before."""

from typing import Any

import orjson
import pytest

from apps.gateway.dialects.chat import parse_chat
from apps.gateway.providers.gemini_request import losses
from apps.usage.contracts import Outcome
from tests.factories import TARGET, offered
from tests.gateway.conftest import Bench
from tests.upstream.gemini_shapes import HELLO, USAGE, WEATHER, response
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream


async def sent(bench: Bench, upstream: ScriptedUpstream, fields: dict[str, Any], **offer: Any) -> Any:
    """What the upstream gets for a request with these fields."""
    upstream.offer(bench, "gemini", **offer)
    upstream.answers = []
    upstream.answer(orjson.dumps(response({"text": "ok"}, finish="STOP", usage=USAGE)))
    call = await bench.call("/api/v1/chat/completions", {"model": PUBLIC_MODEL, "messages": [HELLO], **fields})
    assert call.status == 200, call.body
    return upstream.requests[-1].json


@pytest.mark.asyncio
async def test_a_conversation_with_tools_is_sent_in_geminis_form(bench: Bench, upstream: ScriptedUpstream) -> None:
    signed = {"extra_content": {"google": {"thought_signature": "c2lnbmVk"}}}
    made = [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}, **signed},
        {"id": "b", "type": "function", "function": {"name": "time", "arguments": ""}},
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
        HELLO,
        {"role": "assistant", "content": "I look.", "tool_calls": made},
        {"role": "tool", "tool_call_id": "a", "content": '{"sky":"blue"}'},
        {"role": "tool", "tool_call_id": "b", "content": "noon"},
        {"role": "user", "content": "And?"},
    ]
    got = await sent(bench, upstream, {"messages": messages, "tools": [WEATHER], "tool_choice": "required"})
    assert got["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "And kind."}]}
    assert got["contents"] == [
        {"role": "user", "parts": [{"text": "hello"}]},
        {
            "role": "model",
            "parts": [
                {"text": "I look."},
                {
                    "functionCall": {"id": "a", "name": "weather", "args": {"town": "Ulm"}},
                    "thoughtSignature": "c2lnbmVk",
                },
                {"functionCall": {"id": "b", "name": "time", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "a", "name": "weather", "response": {"sky": "blue"}}},
                {"functionResponse": {"id": "b", "name": "time", "response": {"output": "noon"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "And?"}]},
    ]
    (declared,) = got["tools"][0]["functionDeclarations"]
    assert declared["parametersJsonSchema"] == WEATHER["function"]["parameters"]  # type: ignore[index]  # a plain dict
    assert got["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}


@pytest.mark.asyncio
async def test_a_call_without_its_signature_is_marked_for_models_that_demand_one(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    made = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [HELLO, {"role": "assistant", "tool_calls": made}, {"role": "tool", "tool_call_id": "a", "content": "1"}]
    for name, marks in (("gemini-2.5-flash", [None]), ("gemini-3.1-pro-preview", ["skip_thought_signature_validator"])):
        got = await sent(bench, upstream, {"messages": messages}, upstream_model=name)
        assert [part.get("thoughtSignature") for part in got["contents"][1]["parts"]] == marks


@pytest.mark.asyncio
async def test_the_stable_api_gets_schemas_in_its_subset(bench: Bench, upstream: ScriptedUpstream) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER["function"]["parameters"]}}  # type: ignore[index]  # a plain dict
    fields = {"tools": [WEATHER], "response_format": schema}
    got = await sent(bench, upstream, fields, options={"api_version": "v1"})
    expected = {
        "type": "OBJECT",
        "properties": {
            "town": {"type": "STRING", "minLength": 1},
            "unit": {"type": "STRING", "enum": ["c", "f"]},
            "day": {"type": "STRING", "nullable": True},
        },
        "required": ["town"],
    }
    assert upstream.requests[-1].target.startswith("/v1/models/")
    assert got["tools"][0]["functionDeclarations"][0]["parameters"] == expected
    assert got["generationConfig"]["responseSchema"] == expected
    assert got["generationConfig"]["responseMimeType"] == "application/json"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 0.5, "top_p": 0.9, "seed": 7}, {"temperature": 0.5, "topP": 0.9, "seed": 7}),
        ({"stop": "END"}, {"stopSequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"n": 2}, {"candidateCount": 2}),
        ({"presence_penalty": 1, "frequency_penalty": -1}, {"presencePenalty": 1, "frequencyPenalty": -1}),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        ({"max_completion_tokens": 9}, {"maxOutputTokens": 9}),
        ({"max_tokens": 9_000}, {"maxOutputTokens": 5_000}),
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        ({"reasoning_effort": "none"}, {"thinkingConfig": {"thinkingBudget": 0, "includeThoughts": False}}),
        ({"reasoning_effort": "medium"}, {"thinkingConfig": {"thinkingBudget": 8_192, "includeThoughts": True}}),
    ],
)
async def test_parameters_have_their_counterparts(
    bench: Bench, upstream: ScriptedUpstream, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    got = (await sent(bench, upstream, fields))["generationConfig"]
    assert got == {"maxOutputTokens": 5_000} | expected


@pytest.mark.asyncio
async def test_an_effort_is_a_level_from_gemini_3_on(bench: Bench, upstream: ScriptedUpstream) -> None:
    levels = {}
    for name in ("gemini-3-flash-preview", "gemini-3.1-pro-preview"):
        for effort in ("none", "minimal", "high", "xhigh"):
            got = await sent(bench, upstream, {"reasoning_effort": effort}, upstream_model=name)
            levels[name[9:12], effort] = got["generationConfig"]["thinkingConfig"]["thinkingLevel"]
    assert list(levels.values()) == ["minimal", "minimal", "high", "high", "low", "low", "high", "high"]


@pytest.mark.asyncio
async def test_media_are_sent_inline_or_by_their_address(bench: Bench, upstream: ScriptedUpstream) -> None:
    content = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://images.example/cat.jpg?x=1"}},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,CCCC"}},
    ]
    got = await sent(bench, upstream, {"messages": [{"role": "user", "content": content}]})
    assert got["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"fileData": {"fileUri": "https://images.example/cat.jpg?x=1", "mimeType": "image/jpeg"}},
        {"inlineData": {"mimeType": "audio/mp3", "data": "BBBB"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "CCCC"}},
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}], "tool_choice": {"type": "custom"}}, "tool_choice"),
        ({"messages": [{"role": "tool", "tool_call_id": "no", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f_1"}}]}]},
            "messages[0].content[0].file",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a.io/b"}}]}]},
            "messages",
        ),
    ],
)
async def test_what_would_change_the_answer_is_refused_and_not_sent(
    bench: Bench, upstream: ScriptedUpstream, fields: dict[str, Any], param: str
) -> None:
    upstream.offer(bench, "gemini")
    call = await bench.call("/api/v1/chat/completions", {"model": PUBLIC_MODEL, "messages": [HELLO], **fields})
    assert (call.status, call.json["error"]["param"]) == (400, param)
    assert upstream.requests == []
    assert (bench.record(call).outcome, bench.record(call).cost_nanos) == (Outcome.FAILED, 0)


def test_what_has_no_counterpart_is_named() -> None:
    fields = {
        "seed": 7, "logprobs": True, "user": "u", "n": 2, "store": True, "logit_bias": {"1": 2}, "top_k": 3,
        "tools": [{"type": "custom", "custom": {"name": "x"}}, WEATHER], "metadata": {"a": "b"}, "service_tier": "auto",
        "parallel_tool_calls": False,
    }  # fmt: skip
    chat = parse_chat(orjson.dumps({"model": "m", "messages": [HELLO], **fields}))
    assert losses(chat, offered(), TARGET) == ("user", "store", "logit_bias", "parallel_tool_calls", "tools[0]")
