"""A request of the Messages API as the chat that other upstreams are asked: what is where, and what is refused."""

from typing import Any

import orjson
import pytest

from apps.gateway.dialects.messages.request import MessagesRequest, betas_of, parse_messages
from apps.gateway.dialects.translated_chat import is_strict
from apps.gateway.errors import GatewayError

MARK = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"town": {"type": "string"}}}
TOOL: dict[str, Any] = {"name": "weather", "description": "Of a town", "input_schema": SCHEMA, "cache_control": MARK}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PDF = {
    "type": "document", "title": "Report.pdf",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"},
}  # fmt: skip


def parsed(**fields: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}], **fields}
    return parse_messages(orjson.dumps({name: value for name, value in body.items() if value is not None}))


def turns(*content: Any) -> list[dict[str, Any]]:
    """The messages that these contents of user and assistant in turn become."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": each} for place, each in enumerate(content)]
    made: list[dict[str, Any]] = parsed(messages=messages).body["messages"]
    return made


def refused(**fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        parsed(**fields)
    assert caught.value.kind.status == 400
    return caught.value


def test_fields() -> None:
    asked = parsed(
        system=[{"type": "text", "text": "Be brief.", "cache_control": MARK}], temperature=0.5, top_p=0.9, top_k=3,
        stop_sequences=["END"], stream=True, metadata={"user_id": "u"}, service_tier="standard_only", tools=[TOOL],
        tool_choice={"type": "any", "disable_parallel_tool_use": True}, models=["n"], session_id="s",
    )  # fmt: skip
    body = asked.body
    assert body.pop("messages") == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": MARK}]},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]
    function = {"name": "weather", "description": "Of a town", "parameters": SCHEMA}
    assert body == {
        "model": "m", "max_tokens": 100, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "stop": ["END"], "stream": True,
        "user": "u", "service_tier": "default", "parallel_tool_calls": False, "tool_choice": "required",
        "tools": [{"type": "function", "function": function, "cache_control": MARK}], "models": ["n"],
        "session_id": "s",
    }  # fmt: skip
    assert asked.lost == ()


def test_a_conversation_with_thoughts_calls_and_results() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "a", "name": "weather", "input": {"town": "Ulm"}},
        {"type": "tool_use", "id": "b", "name": "now", "input": {}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "sun"}, PNG]},
        {"type": "tool_result", "tool_use_id": "b", "is_error": True, "content": "no clock"},
        {"type": "text", "text": "And?"},
    ]
    _, assistant, first, second, user = turns("hello", content, results)
    assert assistant == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": "anthropic-claude-v1"},
            {"type": "reasoning.encrypted", "data": "xyz", "format": "anthropic-claude-v1"},
        ],
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}},
            {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ],
    }
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert first == {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "sun"}, image]}
    assert second == {"role": "tool", "tool_call_id": "b", "content": "no clock", "is_error": True}
    assert user == {"role": "user", "content": [{"type": "text", "text": "And?"}]}


def test_documents() -> None:
    plain = {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "words"}}
    away = {"type": "document", "source": {"type": "url", "url": "https://example.com/x.pdf"}}
    found = {
        "type": "search_result", "title": "T", "source": "example.com", "content": [{"type": "text", "text": "words"}],
    }  # fmt: skip
    (user,) = turns([PDF, plain, away, found])
    assert user["content"] == [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,BBBB", "filename": "Report.pdf"}},
        {"type": "text", "text": "T\nC"},
        {"type": "text", "text": "words"},
        {"type": "file", "file": {"file_data": "https://example.com/x.pdf", "filename": "document.pdf"}},
        {"type": "text", "text": "T\nexample.com\nwords"},
    ]


def test_what_openai_takes_of_it() -> None:
    results = [{"type": "tool_result", "tool_use_id": "a", "content": [PNG, {"type": "text", "text": "sun"}]}]
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "tool_use", "id": "a", "name": "weather", "input": {}},
    ]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": content},
                {"role": "user", "content": results}]  # fmt: skip
    asked = parsed(messages=messages, tools=[TOOL], top_k=3, thinking={"type": "enabled", "budget_tokens": 2_000})
    plain, lost = asked.for_openai("gpt-4o")
    assert lost == ("cache_control", "reasoning_effort", "thinking", "top_k")
    assert [message["role"] for message in plain["messages"]] == ["user", "assistant", "tool", "user"]
    assert plain["messages"][2] == {"role": "tool", "tool_call_id": "a", "content": "sun"}
    assert plain["messages"][3]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    ]
    assert not {"reasoning_details", "reasoning_content"} & set(plain["messages"][1])
    assert asked.for_openai("o3-mini")[0]["reasoning_effort"] == "low"
    assert "cache_control" not in plain["tools"][0]
    assert asked.body["tools"][0]["cache_control"] == MARK


def test_an_unsigned_thought_goes_back_while_its_turn_runs() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": "sun"}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [thought, call]},
                {"role": "user", "content": [result]}]  # fmt: skip
    running = parsed(messages=messages).for_openai("deepseek-reasoner")[0]["messages"]
    assert running[1]["reasoning_content"] == "Hm."
    over = parsed(messages=[*messages, {"role": "user", "content": "And?"}]).for_openai("deepseek-reasoner")[0]
    assert "reasoning_content" not in over["messages"][1]


@pytest.mark.parametrize(
    ("thinking", "config", "effort"),
    [
        (None, None, None),
        ({"type": "disabled"}, {"effort": "high"}, None),
        ({"type": "enabled", "budget_tokens": 1_024}, None, "low"),
        ({"type": "enabled", "budget_tokens": 10_000}, None, "medium"),
        ({"type": "enabled", "budget_tokens": 30_000}, None, "high"),
        ({"type": "adaptive"}, None, "medium"),
        ({"type": "adaptive"}, {"effort": "max"}, "xhigh"),
        (None, {"effort": "low"}, "low"),
    ],
)
def test_efforts(thinking: Any, config: Any, effort: str | None) -> None:
    asked = parsed(thinking=thinking, output_config=config)
    assert asked.body.get("reasoning_effort") == effort
    assert asked.shows_thoughts is (thinking is not None and thinking["type"] != "disabled")


def test_what_is_lost_is_named() -> None:
    cited = {**PDF, "citations": {"enabled": True}}
    searched = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    messages = [{"role": "user", "content": [cited]}, {"role": "assistant", "content": [searched]},
                {"role": "user", "content": "x"}]  # fmt: skip
    asked = parsed(
        messages=messages, tools=[TOOL, {"type": "bash_20250124", "name": "bash"}], speed="fast", unheard_of=1,
        context_management={"edits": []}, mcp_servers=[], metadata={"user_id": "x" * 300},
    )  # fmt: skip
    assert set(asked.lost) == {
        "speed", "unheard_of", "context_management", "tools[1]", "metadata.user_id", "citations",
        "messages.server_tool_use",
    }  # fmt: skip
    assert len(asked.body["tools"]) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"temperature": 1.1}, "temperature"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"system": 3}, "system"),
        ({"system": [PNG]}, "system[0].type"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": ["x"], "input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": ["x"]}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "enormous"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format"),
        ({"output_config": {"effort": ["high"]}}, "output_config.effort"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"service_tier": {}}, "service_tier"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"thread": {"id": "t"}}, "thread"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
            "messages[0].content[0].source",
        ),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_betas() -> None:
    assert betas_of("a-2025-01-01, b,a-2025-01-01,, C!,") == ("a-2025-01-01", "b")


def test_schemas_that_openai_keeps_to_strictly() -> None:
    closed = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    assert is_strict({**closed, "additionalProperties": False})
    assert not is_strict(closed)
    assert not is_strict({"type": "array", "items": {"type": "object"}})
    assert not is_strict({**closed, "additionalProperties": False, "required": 3})
