"""What callers of Messages and Responses can ask for, feature by feature: tables of docs/conformance.md."""

from typing import Any, Final

from tests.conformance.asked import Feature
from tests.upstream.scripted import PUBLIC_MODEL

MARK: Final = {"type": "ephemeral"}
SCHEMA: Final = {
    "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"], "additionalProperties": False,
}  # fmt: skip
HELLO: Final = [{"role": "user", "content": "hello"}]
PNG: Final = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PDF: Final = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
WORDS: Final = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "w"}}
TOOL: Final = {"name": "weather", "input_schema": SCHEMA}
TIME: Final = {"name": "time", "input_schema": {"type": "object"}}
USED: Final = {"type": "tool_use", "id": "a", "name": "weather", "input": {"town": "Ulm"}}
THOUGHT: Final = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}


def _said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}, *blocks]}]}


def _result(content: Any, *before: dict[str, Any], **more: Any) -> dict[str, Any]:
    result = {"type": "tool_result", "tool_use_id": "a", "content": content, **more}
    answer = {"role": "assistant", "content": [*before, USED]}
    return {"tools": [TOOL], "messages": [*HELLO, answer, {"role": "user", "content": [result]}]}


_TOOLS: Final = {"tools": [TOOL, TIME]}
_CACHED: Final = {"type": "text", "text": "Be brief.", "cache_control": MARK}
OF_MESSAGES: Final = [
    Feature("`system`", {"system": "Be brief."}),
    Feature("`cache_control`", {"system": [_CACHED]}, {"system": "Be brief."}),
    Feature("image", _said(PNG), _said()),
    Feature("PDF", _said(PDF), _said()),
    Feature("document of text", _said(WORDS), _said()),
    Feature("`citations` of a document", _said({**WORDS, "citations": {"enabled": True}}), _said(WORDS)),
    Feature("`tools`", _TOOLS),
    Feature("`tool_choice: any`", {**_TOOLS, "tool_choice": {"type": "any"}}, _TOOLS),
    Feature("a tool that is forced", {**_TOOLS, "tool_choice": {"type": "tool", "name": "weather"}}, _TOOLS),
    Feature("`disable_parallel_tool_use`",
            {**_TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, _TOOLS),
    Feature("Anthropic's own tools, run by the caller",
            {"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}, {"tools": [TOOL]}),
    Feature("Anthropic's server tools",
            {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]}, {"tools": [TOOL]}),
    Feature("result of a tool", _result("sun"), {"tools": [TOOL]}),
    Feature("image in a result", _result([{"type": "text", "text": "sun"}, PNG]), _result("sun")),
    Feature("`is_error` of a result", _result("sun", is_error=True), _result("sun")),
    Feature("signed thought of an earlier answer", _result("sun", THOUGHT), _result("sun")),
    Feature("`thinking`", {"thinking": {"type": "enabled", "budget_tokens": 2_000}}),
    Feature("`output_config.effort`", {"output_config": {"effort": "high"}}),
    Feature("`output_config.format`", {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    Feature("`stop_sequences`", {"stop_sequences": ["END"]}),
    Feature("`temperature`", {"temperature": 0.5}),
    Feature("`top_k`", {"top_k": 3}),
    Feature("`metadata.user_id`", {"metadata": {"user_id": "u"}}),
    Feature("`stream`", {"stream": True}),
]  # fmt: skip
_FUNCTION: Final = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
_OTHER: Final = {"type": "function", "name": "time", "parameters": {"type": "object"}, "strict": False}
_CUSTOM: Final = {"type": "custom", "name": "patch"}
_GRAMMAR: Final = {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}
_CALL: Final = {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"town":"Ulm"}'}
_FUNCTIONS: Final = {"tools": [_FUNCTION, _OTHER]}


def _input(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}, *parts]}]}


def _output(output: Any) -> dict[str, Any]:
    given = {"type": "function_call_output", "call_id": "a", "output": output}
    return {"tools": [_FUNCTION], "input": [*HELLO, _CALL, given]}


_IMAGE: Final = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
_FILE: Final = {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}
OF_RESPONSES: Final = [
    Feature("`instructions`", {"instructions": "Be brief."}),
    Feature("image", _input(_IMAGE), _input()),
    Feature("file", _input(_FILE), _input()),
    Feature("functions", _FUNCTIONS),
    Feature("custom tool", {"tools": [_FUNCTION, _CUSTOM]}, {"tools": [_FUNCTION]}),
    Feature("grammar of a custom tool", {"tools": [{**_CUSTOM, "format": _GRAMMAR}]}, {"tools": [_CUSTOM]}),
    Feature("OpenAI's own tools", {"tools": [_FUNCTION, {"type": "web_search"}]}, {"tools": [_FUNCTION]}),
    Feature("`tool_choice: required`", {**_FUNCTIONS, "tool_choice": "required"}, _FUNCTIONS),
    Feature("a function that is forced",
            {**_FUNCTIONS, "tool_choice": {"type": "function", "name": "weather"}}, _FUNCTIONS),
    Feature("`allowed_tools`", {**_FUNCTIONS, "tool_choice": {"type": "allowed_tools", "mode": "auto",
            "tools": [{"type": "function", "name": "weather"}]}}, _FUNCTIONS),
    Feature("`parallel_tool_calls: false`", {**_FUNCTIONS, "parallel_tool_calls": False}, _FUNCTIONS),
    Feature("`function_call_output`", _output("sun"), {"tools": [_FUNCTION]}),
    Feature("image in an output", _output([{"type": "input_text", "text": "sun"}, _IMAGE]), _output("sun")),
    Feature("`reasoning.effort`", {"reasoning": {"effort": "high"}}),
    Feature("`text.format: json_schema`",
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}}}),
    Feature("`text.format: json_object`", {"text": {"format": {"type": "json_object"}}}),
    Feature("`text.verbosity`", {"text": {"verbosity": "low"}}),
    Feature("`top_logprobs`", {"top_logprobs": 2}),
    Feature("`temperature`", {"temperature": 0.5}),
    Feature("`truncation: auto`", {"truncation": "auto"}),
    Feature("`prompt_cache_key`", {"prompt_cache_key": "k"}),
    Feature("`stream`", {"stream": True}),
]  # fmt: skip
CALLERS: Final = {
    "Messages": ("/api/v1/messages", {"model": PUBLIC_MODEL, "max_tokens": 4_000, "messages": HELLO}, OF_MESSAGES),
    "Responses": ("/api/v1/responses", {"model": PUBLIC_MODEL, "max_output_tokens": 4_000, "input": "hello"},
                  OF_RESPONSES),
}  # fmt: skip
"""Dialect of callers -> where they ask, with the least that they say, and the features of it."""
