"""Chat Completions as Anthropic is asked: messages, tools, media, thinking, and what is refused or named as lost."""

import base64
from typing import Any

import msgspec
import pytest

from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.errors import GatewayError
from apps.gateway.providers.anthropic_request import losses, messages_request
from tests.factories import PRICE, TARGET, offered
from tests.upstream.anthropic_shapes import CALL, SEALED, THOUGHT, text

USER = {"role": "user", "content": "Hello"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
EPHEMERAL = {"type": "ephemeral", "ttl": "1h"}
SCHEMA = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Of a town", "parameters": SCHEMA}}
THEIR_WEATHER = {"name": "weather", "description": "Of a town", "input_schema": SCHEMA}
OPENAI_CALL = {"id": CALL["id"], "type": "function", "function": {"name": "weather", "arguments": '{"town":"Köln"}'}}
THEIR_CALL = {"type": "tool_use", "id": CALL["id"], "name": "weather", "input": {"town": "Köln"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]}
ANSWERED = {"role": "tool", "tool_call_id": CALL["id"], "content": "rain"}


def chat(**fields: Any) -> ChatRequest:
    """A request. The door would not let all of them in: nothing here relies on it."""
    return ChatRequest("m", stream=False, choices=1, body={"model": "m", "messages": [USER], **fields})


def sent(upstream_model: str = "claude-sonnet-4-5", thinking: str = "auto", **fields: Any) -> dict[str, Any]:
    """What Anthropic is sent."""
    return translated(chat(**fields), upstream_model, thinking)[0]


def lost(upstream_model: str = "claude-sonnet-4-5", **fields: Any) -> tuple[str, ...]:
    """What is lost on the way."""
    request = chat(**fields)
    named = translated(request, upstream_model)[1]
    assert losses(request, *_route(upstream_model)) == named
    return named


def translated(
    request: ChatRequest, upstream_model: str, thinking: str = "auto"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request on its route; what the caller sent is left as it was."""
    before = write_json(request.body)
    result = messages_request(request, *_route(upstream_model, thinking))
    assert write_json(request.body) == before
    return result


def _route(upstream_model: str, thinking: str = "auto") -> tuple[Any, Any]:
    target = msgspec.structs.replace(TARGET, upstream_model=upstream_model, options={"thinking": thinking})
    price = msgspec.structs.replace(PRICE, cache_write_1h=300_000_000)
    return offered(max_output_tokens=8_000, prices=(price,)), target


def refused(**fields: Any) -> tuple[str | None, str]:
    """(field, sentence) of the 400 that a request gets."""
    with pytest.raises(GatewayError) as caught:
        sent(**fields)
    assert caught.value.kind.status == 400
    return caught.value.param, caught.value.message


def test_system_and_developer_messages_come_first_and_neighbours_become_one_turn() -> None:
    request = sent(
        messages=[
            {"role": "system", "content": "Be brief."},
            USER,
            {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": " "}]},
            {"role": "assistant", "content": "Hi."},
            {"role": "assistant", "content": [{"type": "text", "text": "So?"}, {"type": "refusal", "refusal": "No."}]},
            {"role": "developer", "content": [{"type": "text", "text": "In verse.", "cache_control": EPHEMERAL}]},
            {"role": "user", "content": ""},
            {"role": "user", "content": "Go"},
        ]
    )
    assert request["system"] == [text("Be brief."), text("In verse.") | {"cache_control": EPHEMERAL}]
    assert request["messages"] == [
        {"role": "user", "content": [text("Hello"), text("and")]},
        {"role": "assistant", "content": [text("Hi."), text("So?"), text("No.")]},
        {"role": "user", "content": [text("Go")]},
    ]
    assert request["max_tokens"] == 8_000


def test_tools_their_calls_and_their_results_are_mapped() -> None:
    second = {**OPENAI_CALL, "id": "toolu_2", "function": {"name": "now", "arguments": ""}}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    request = sent(
        messages=[
            USER,
            {**ASKED, "tool_calls": [OPENAI_CALL, second]},
            ANSWERED,
            {"role": "tool", "tool_call_id": "toolu_2", "content": [{"type": "text", "text": "12:00"}, picture]},
            {"role": "user", "content": "And?"},
        ],
        tools=[WEATHER, {"type": "function", "function": {"name": "now", "strict": True}, "cache_control": EPHEMERAL}],
    )
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    assert request["messages"][1:] == [
        {"role": "assistant", "content": [THEIR_CALL, {**THEIR_CALL, "id": "toolu_2", "name": "now", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": CALL["id"], "content": "rain"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("12:00"), image]},
                text("And?"),
            ],
        },
    ]
    bare = {"name": "now", "input_schema": {"type": "object"}, "strict": True, "cache_control": EPHEMERAL}
    assert request["tools"] == [THEIR_WEATHER, bare]
    assert "tool_choice" not in request


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, {"type": "tool", "name": "weather"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"tool_choice": "required", "parallel_tool_calls": False}, {"type": "any", "disable_parallel_tool_use": True}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ],
)
def test_the_choice_of_a_tool_is_mapped(fields: dict[str, Any], choice: dict[str, Any] | None) -> None:
    assert sent(tools=[WEATHER], **fields).get("tool_choice") == choice


def test_images_and_documents_are_mapped_with_their_cache_marks() -> None:
    pdf, note = "JVBERi0xLjQ=", base64.b64encode("Grüße".encode()).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PIXEL}"}, "cache_control": EPHEMERAL},
        {"type": "image_url", "image_url": {"url": "https://pictures.example/a.webp", "detail": "high"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{pdf}"}},
        {"type": "file", "file": {"file_data": f"data:text/plain;charset=utf-8;base64,{note}"}},
        {"type": "file", "file": {"file_data": "https://papers.example/b.pdf"}},
    ]
    assert sent(messages=[{"role": "user", "content": parts, "cache_control": {"type": "ephemeral"}}])["messages"] == [
        {
            "role": "user",
            "content": [
                {
                    "type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PIXEL},
                    "cache_control": EPHEMERAL,
                },
                {"type": "image", "source": {"type": "url", "url": "https://pictures.example/a.webp"}},
                {
                    "type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": pdf},
                    "title": "a.pdf",
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
                {
                    "type": "document", "source": {"type": "url", "url": "https://papers.example/b.pdf"},
                    "cache_control": {"type": "ephemeral"},
                },
            ],
        }
    ]  # fmt: skip


def test_only_signed_thoughts_of_this_vendor_go_back() -> None:
    said = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "native", "signature": "s"}, {"type": "text", "text": "Hi."}],
        "reasoning_content": "unsigned",
        "reasoning_details": [
            {"type": "reasoning.text", "text": THOUGHT["thinking"], "signature": THOUGHT["signature"], "index": 0},
            {"type": "reasoning.encrypted", "data": SEALED["data"], "format": "anthropic-claude-v1"},
            {"type": "reasoning.text", "text": "unsigned"},
            {"type": "reasoning.encrypted", "data": "theirs", "format": "google-gemini-v1"},
            "noise",
        ],
    }
    native = {"type": "thinking", "thinking": "native", "signature": "s"}
    assert sent(messages=[USER, said, USER])["messages"][1]["content"] == [THOUGHT, SEALED, native, text("Hi.")]


@pytest.mark.parametrize(
    ("model", "effort", "asked"),
    [
        ("claude-sonnet-4-5", "low", {"thinking": {"type": "enabled", "budget_tokens": 2_000}}),
        ("claude-3-7-sonnet-20250219", "high", {"thinking": {"type": "enabled", "budget_tokens": 5_333}}),
        ("claude-haiku-4-5", "minimal", {"thinking": {"type": "enabled", "budget_tokens": 1_024}}),
        ("kimi-k9", "medium", {"thinking": {"type": "enabled", "budget_tokens": 4_000}}),
        ("claude-opus-4-6", "xhigh", "high"),
        ("claude-opus-4-7", "xhigh", "xhigh"),
        ("claude-sonnet-5-20260701", "minimal", "low"),
        ("claude-mythos-preview", "max", "max"),
        ("claude-opus-4-6", "none", {}),
        ("claude-opus-5", "none", {"output_config": {"effort": "low"}}),
    ],
)
def test_effort_is_asked_for_as_the_model_takes_it(model: str, effort: str, asked: Any) -> None:
    request = sent(model, reasoning_effort=effort)
    if isinstance(asked, str):
        asked = {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": asked}}
    assert {name: request[name] for name in ("thinking", "output_config") if name in request} == asked
    assert sent(model, reasoning={"effort": effort}) == request
    is_lost = (model, effort) == ("claude-opus-5", "none")  # it cannot be kept from thinking
    assert lost(model, reasoning_effort=effort) == (("reasoning_effort",) if is_lost else ())


def test_the_operator_can_say_how_a_model_thinks() -> None:
    assert sent("claude-opus-4-7", "budget", reasoning_effort="low")["thinking"]["type"] == "enabled"
    assert sent("kimi-k9", "adaptive", reasoning_effort="low")["thinking"]["type"] == "adaptive"


def test_thinking_that_cannot_be_had_is_named_as_lost() -> None:
    small = {"reasoning_effort": "high", "max_tokens": 1_024}
    assert "thinking" not in sent(**small)
    assert lost(**small) == ("reasoning_effort",)
    assert sent(reasoning_effort="low", max_tokens=1_025)["thinking"]["budget_tokens"] == 1_024
    forced = {"reasoning_effort": "high", "tools": [WEATHER], "tool_choice": "required"}
    assert "thinking" not in sent(**forced)
    assert lost(**forced) == ("reasoning_effort",)
    torn = {"reasoning_effort": "high", "messages": [USER, ASKED, ANSWERED]}
    assert "thinking" not in sent(**torn)
    assert lost(**torn) == ("reasoning_effort",)
    details = [{"type": "reasoning.text", "text": "Hm.", "signature": "s"}]
    assert "thinking" in sent(**{**torn, "messages": [USER, {**ASKED, "reasoning_details": details}, ANSWERED]})
    assert "thinking" in sent("claude-opus-4-6", **torn)
    assert lost(reasoning={"max_tokens": 2_000}) == ("reasoning",)


def test_a_thinking_field_of_anthropics_own_is_passed_on() -> None:
    own = {"type": "enabled", "budget_tokens": 3_000}
    fields = {"thinking": own, "reasoning_effort": "low", "cache_control": EPHEMERAL}
    request = translated(chat(**fields, top_k=5, temperature=0.5), "claude-sonnet-4-5")
    assert request[0]["thinking"] == own
    assert request[0]["cache_control"] == EPHEMERAL
    assert request[1] == ("temperature", "top_k")


@pytest.mark.parametrize(
    ("model", "asked", "told", "named"),
    [
        ("claude-sonnet-4-5", {"temperature": 0.3}, {"temperature": 0.3}, ()),
        ("claude-sonnet-4-5", {"temperature": 1.5}, {"temperature": 1}, ("temperature",)),
        ("claude-sonnet-4-5", {"temperature": 0}, {"temperature": 0}, ()),
        ("claude-sonnet-4-5", {"temperature": 1, "top_p": 1}, {}, ()),
        ("claude-sonnet-4-5", {"top_p": 0.9}, {"top_p": 0.9}, ()),
        ("claude-sonnet-4-5", {"temperature": 0.3, "top_p": 0.9}, {"temperature": 0.3}, ("top_p",)),
        ("claude-sonnet-4-5", {"temperature": 0.3, "reasoning_effort": "low"}, {}, ("temperature",)),
        ("claude-sonnet-4-5", {"top_k": 5}, {"top_k": 5}, ()),
        ("claude-opus-4-7", {"temperature": 0.3, "top_p": 0.9, "top_k": 5}, {}, ("temperature", "top_p", "top_k")),
        ("claude-opus-4-7", {"temperature": 1, "top_p": 1}, {}, ()),
    ],
)
def test_sampling_is_asked_for_where_the_model_takes_it(
    model: str, asked: dict[str, Any], told: dict[str, Any], named: tuple[str, ...]
) -> None:
    request = sent(model, **asked)
    assert {name: request[name] for name in ("temperature", "top_p", "top_k") if name in request} == told
    assert lost(model, **asked) == named


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
        ({"safety_identifier": "s-1"}, {"metadata": {"user_id": "s-1"}}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "priority"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "t", "schema": SCHEMA, "strict": True},
                }
            },
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
        ({"max_tokens": 20}, {"max_tokens": 20}),
        ({"max_completion_tokens": 9_000}, {"max_tokens": 8_000}),
        ({"n": 1, "modalities": ["text"], "logprobs": False, "metadata": {"a": "b"}, "seed": None}, {}),
    ],
)
def test_other_fields_that_have_a_place_are_put_there(asked: dict[str, Any], told: dict[str, Any]) -> None:
    assert sent(**asked) == sent() | told
    assert lost(**asked) == ()


def test_a_schema_and_an_effort_share_their_place() -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    request = sent("claude-opus-4-7", reasoning_effort="high", response_format=wanted)
    assert request["output_config"] == {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}}


def test_an_hour_in_the_cache_is_not_asked_for_where_it_has_no_price() -> None:
    """It would cost the operator more than a caller pays."""
    part = {"type": "text", "text": "Long", "cache_control": EPHEMERAL}
    request = chat(
        messages=[{"role": "system", "content": [part]}, USER, ASKED, {**ANSWERED, "content": [part]}],
        tools=[WEATHER | {"cache_control": EPHEMERAL}],
        cache_control={"type": "ephemeral", "ttl": "5m"},
    )
    before = write_json(request.body)
    model, target = _route("claude-opus-5")
    with_hour, nothing = messages_request(request, model, target)
    assert (write_json(with_hour).count(b'"ttl":"1h"'), nothing) == (3, ())
    without, lost_marks = messages_request(request, offered(), target)
    assert lost_marks == ("cache_control.ttl",)
    assert write_json(without).count(b'"cache_control":{"type":"ephemeral"}') == 3
    assert without["cache_control"] == {"type": "ephemeral", "ttl": "5m"}
    assert write_json(request.body) == before


def test_a_cut_of_ours_is_the_bound_that_is_sent() -> None:
    request = chat()
    request.cut_output(77)
    assert translated(request, "claude-opus-5")[0]["max_tokens"] == 77


def test_what_has_no_place_is_left_out_and_named() -> None:
    fields = {
        "frequency_penalty": 0.5, "presence_penalty": 1, "seed": 7, "logit_bias": {"50256": -100}, "logprobs": True,
        "top_logprobs": 3, "prediction": {"type": "content", "content": "x"}, "store": True, "verbosity": "low",
        "user": "u" * 300, "service_tier": "flex",
    }  # fmt: skip
    assert sorted(lost(**fields)) == sorted(fields)
    assert sent(**fields) == sent()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"reasoning": {"effort": ["low"]}}, "reasoning.effort"),
        ({"stop": ["END", "\n\n"]}, "stop"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [WEATHER, {"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"thinking": True}, "thinking"),
        ({"cache_control": "yes"}, "cache_control"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    request = chat(**fields)
    with pytest.raises(GatewayError) as caught:
        translated(request, "claude-sonnet-4-5")
    assert (caught.value.kind.status, caught.value.param) == (400, param)


def _user(part: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "system", "content": "alone"}], "messages"),
        ([{"role": "user", "content": "  "}], "messages"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role"),
        (_user({"type": "text"}), "messages[0].content[0].text"),
        (
            _user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
            "messages[0].content[0].type",
        ),
        (_user({"type": "image_url"}), "messages[0].content[0].image_url.url"),
        (
            _user({"type": "image_url", "image_url": {"url": "http://a.example"}}),
            "messages[0].content[0].image_url.url",
        ),
        (
            _user({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}),
            "messages[0].content[0].image_url.url",
        ),
        (_user({"type": "file", "file": {"file_id": "file-1"}}), "messages[0].content[0].file.file_data"),
        (
            _user({"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}),
            "messages[0].content[0].file.file_data",
        ),
        (
            _user({"type": "file", "file": {"file_data": "data:application/zip;base64,AAAA"}}),
            "messages[0].content[0].file.file_data",
        ),
        ([{"role": "system", "content": [{"type": "image_url"}]}, USER], "messages[0].content[0].type"),
        ([USER, {"role": "assistant", "content": [{"type": "image_url"}]}], "messages[1].content[0].type"),
        ([USER, {"role": "assistant", "function_call": {"name": "f"}}], "messages[1].function_call"),
        ([USER, {"role": "assistant", "tool_calls": [{"type": "custom"}]}], "messages[1].tool_calls[0]"),
        ([USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], "messages[1].tool_calls[0]"),
        (
            [USER, {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [USER, {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[1]"}}]}],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [
                USER,
                {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]},
                USER,
            ],
            None,
        ),
        ([USER, {"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
    ],
)
def test_messages_that_cannot_be_said_are_refused_with_their_place(messages: list[Any], param: str | None) -> None:
    if param is None:
        assert sent(messages=messages)["messages"][1]["content"][0]["input"] == {}
    else:
        assert refused(messages=messages)[0] == param
