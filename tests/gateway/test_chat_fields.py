"""Every field of a Chat Completions request: 200 and more wrong values, each refused by its name, and right ones."""

import unicodedata
from typing import Any

import orjson
import pytest

from apps.gateway.dialects.chat import ChatRequest, parse_chat
from apps.gateway.errors import GatewayError

MESSAGES = [{"role": "user", "content": "Hi"}]
VALID: dict[str, Any] = {"model": "bench-model", "messages": MESSAGES}
NO_NUMBERS = ["5", "", True, False, [], [1], {}]
NO_INTEGERS = [*NO_NUMBERS, 1.0, 0.5, 1e3]
NO_BOOLS = [0, 1, "true", "", [], {}, 1.0]
NO_STRINGS = [0, 1.5, True, [], ["a"], {}]
NO_OBJECTS = [0, True, "x", [], [{}]]
NO_LISTS = [0, True, "x", {}, {"0": "a"}]
UNSHOWABLE = [
    "a\r\nb",
    "a\nb",
    "a\x00b",
    "a\x1bb",
    "a\x7fb",
    "a\u0085b",
    "a\u202eb",
    "a\u2066b",
    "\u200eab",
    "a\u2028b",
]

MUTANTS: list[tuple[str, list[Any]]] = [
    ("model", [None, "", "x" * 129, *NO_STRINGS, *UNSHOWABLE]),
    ("messages", [None, [], *NO_LISTS]),
    ("temperature", [-0.01, 2.01, -1, 3, 1e300, *NO_NUMBERS]),
    ("top_p", [-0.01, 1.01, 2, *NO_NUMBERS]),
    ("n", [0, 9, -1, *NO_INTEGERS]),
    ("max_tokens", [0, -1, *NO_INTEGERS]),
    ("max_completion_tokens", [0, -1, *NO_INTEGERS]),
    ("presence_penalty", [-2.01, 2.01, *NO_NUMBERS]),
    ("frequency_penalty", [-2.01, 2.01, *NO_NUMBERS]),
    ("seed", NO_INTEGERS),
    ("logprobs", NO_BOOLS),
    ("top_logprobs", [-1, 21, *NO_INTEGERS]),
    ("logit_bias", NO_OBJECTS),
    ("stop", [0, 1.5, True, {}, [1], ["a", None], [["a"]], ["a"] * 65]),
    ("stream", NO_BOOLS),
    ("stream_options", NO_OBJECTS),
    ("response_format", NO_OBJECTS),
    ("tools", NO_LISTS),
    ("tool_choice", [0, 1.5, True, []]),
    ("parallel_tool_calls", NO_BOOLS),
    ("functions", NO_LISTS),
    ("function_call", [0, True, [], {}, {"name": 1}]),
    ("service_tier", ["batch", "fast", *NO_STRINGS]),
    ("reasoning_effort", NO_STRINGS),
    ("verbosity", NO_STRINGS),
    ("modalities", [*NO_LISTS, [1], ["text", None]]),
    ("audio", NO_OBJECTS),
    ("prediction", NO_OBJECTS),
    ("web_search_options", NO_OBJECTS),
    ("store", NO_BOOLS),
    ("metadata", [*NO_OBJECTS, {str(number): "" for number in range(17)}]),
    ("user", ["x" * 257, *NO_STRINGS, *UNSHOWABLE]),
    ("session_id", ["", "x" * 257, *NO_STRINGS, *UNSHOWABLE]),
    ("safety_identifier", ["x" * 257, *NO_STRINGS, *UNSHOWABLE]),
    ("prompt_cache_key", NO_STRINGS),
]


def function(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **changes}}


INSIDE: list[tuple[dict[str, Any], str]] = [
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [*MESSAGES, None]}, "messages[1]"),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": True, "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["Hi"]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": "Hi", "name": 5}]}, "messages[0].name"),
    ({"messages": [{"role": "tool", "tool_call_id": []}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "tool", "content": "Hi", "tool_call_id": 5}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": {}}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
    (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": 1}}]}]},
        "messages[0].tool_calls[0].function.name",
    ),
    (
        {
            "messages": [
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
            ]
        },
        "messages[0].tool_calls[0].function.arguments",
    ),
    ({"tools": ["f"]}, "tools[0]"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": 5}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [function(), {"type": "function", "function": {}}]}, "tools[1].function.name"),
    ({"tools": [function(name=5)]}, "tools[0].function.name"),
    ({"tools": [function(description=5)]}, "tools[0].function.description"),
    ({"tools": [function(parameters="{}")]}, "tools[0].function.parameters"),
    ({"tools": [function(strict=1)]}, "tools[0].function.strict"),
    ({"tools": [function(strict=1.0)]}, "tools[0].function.strict"),
    ({"tools": [function(strict="true")]}, "tools[0].function.strict"),
    ({"functions": [{"name": 5}]}, "functions[0].name"),
    ({"tool_choice": {}}, "tool_choice.type"),
    ({"tool_choice": {"type": 1}}, "tool_choice.type"),
    ({"tool_choice": {"type": "function"}, "tools": [function()]}, "tool_choice.function.name"),
    ({"tool_choice": function(name="g"), "tools": [function()]}, "tool_choice.function.name"),
    ({"tool_choice": function()}, "tool_choice.function.name"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": 1}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": "x"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": 1}}}, "response_format.json_schema.name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": []}}}, "response_format.json_schema.schema"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"stream_options": {"include_obfuscation": "no"}}, "stream_options.include_obfuscation"),
    ({"logit_bias": {"50256": "1"}}, "logit_bias.50256"),
    ({"logit_bias": {"50256": True}}, "logit_bias.50256"),
    ({"logit_bias": {"50256": 101}}, "logit_bias.50256"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {"a": None}}, "metadata.a"),
    ({"metadata": {"a": "x" * 513}}, "metadata.a"),
    ({"metadata": {"a": "x\r\ny"}}, "metadata.a"),
    ({"metadata": {"x" * 65: "a"}}, "metadata." + "x" * 64),
]


def parse(**changes: Any) -> ChatRequest:
    return parse_chat(orjson.dumps({**VALID, **changes}))


def refused_param(**changes: Any) -> str | None:
    with pytest.raises(GatewayError) as caught:
        parse(**changes)
    assert (caught.value.kind.status, caught.value.kind.type) == (400, "invalid_request_error")
    assert caught.value.message
    return caught.value.param


def test_there_are_200_mutants() -> None:
    assert sum(len(values) for _, values in MUTANTS) + len(INSIDE) > 200


@pytest.mark.parametrize(("field", "values"), MUTANTS, ids=[field for field, _ in MUTANTS])
def test_a_wrong_value_is_400_by_the_name_of_its_field(field: str, values: list[Any]) -> None:
    for value in values:
        assert refused_param(**{field: value}) == field, f"{field}={value!r}"


@pytest.mark.parametrize(
    ("changes", "param"), INSIDE, ids=[f"{number} {param}" for number, (_, param) in enumerate(INSIDE)]
)
def test_a_wrong_value_inside_is_400_by_its_place(changes: dict[str, Any], param: str) -> None:
    assert refused_param(**changes) == param


@pytest.mark.parametrize(
    "changes",
    [
        *({field: None} for field, _ in MUTANTS if field not in ("model", "messages")),
        {"temperature": 2, "top_p": 0, "n": 8, "max_tokens": 2**53, "max_completion_tokens": 1, "seed": -(2**53)},
        {"temperature": 0.0, "presence_penalty": -2.0, "frequency_penalty": 2, "top_logprobs": 20, "logprobs": True},
        {"stop": []}, {"stop": "x"}, {"stop": ["a"] * 10}, {"logit_bias": {"1": -100, "2": 0.5}},
        {"user": ""}, {"user": "é" * 256}, {"user": "👩‍👩‍👧 Müller"}, {"session_id": "s"},
        {"metadata": {}}, {"metadata": {"x" * 64: "y" * 512, "empty": ""}},
        {"tools": []}, {"tools": [function(), {"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [function(parameters=None, strict=None, description="d")], "tool_choice": function()},
        {"tools": [function(strict=True)], "tool_choice": "required"}, {"tool_choice": "any"},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
        {"functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}}, {"function_call": "auto"},
        {"response_format": {"type": "text"}}, {"response_format": {"type": "grammar", "grammar": "x"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}}},
        {"stream": True, "stream_options": {}}, {"stream_options": {"include_usage": None, "other": 5}},
        {"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}},
        {"reasoning_effort": "xhigh", "verbosity": "low", "service_tier": "priority"},
        {"a_field_of_some_vendor": {"deep": [1, 2.5, "x", None, True]}, "top_k": 40, "thinking": {"type": "enabled"}},
        {"messages": [{"role": "developer", "content": None, "name": "n"}, {"role": "x", "content": [], "odd": 1}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {}}]}]},
    ],
)  # fmt: skip
def test_what_clients_send_passes(changes: dict[str, Any]) -> None:
    sent = {**VALID, **changes}
    assert parse(**changes).body == sent


def test_names_are_taken_in_their_composed_form() -> None:
    decomposed = unicodedata.normalize("NFD", "Zoë")
    chat = parse(user=decomposed, model=decomposed)
    assert chat.body["user"] == chat.body["model"] == chat.model == "Zoë"
