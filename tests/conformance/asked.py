"""What a request can ask for, feature by feature: the rows of the first tables of docs/conformance.md."""

from typing import Any, Final, NamedTuple

from tests.upstream.scripted import PUBLIC_MODEL

HELLO: Final = [{"role": "user", "content": "hello"}]
SCHEMA: Final = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
WEATHER: Final = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TIME: Final = {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}
CALL: Final = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}}
OTHER_CALL: Final = {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}}
CALLED: Final = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
ANSWERED: Final = [*CALLED, {"role": "tool", "tool_call_id": "a", "content": "sun"}]
CUSTOM: Final = {"type": "custom", "custom": {"name": "c"}}
MARK: Final = {"type": "ephemeral"}
THOUGHT: Final = {
    "type": "reasoning.text", "text": "Hm.", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0,
}  # fmt: skip


class Feature(NamedTuple):
    """One thing to ask for: the fields of a request with it, and of the same request without."""

    name: str
    fields: dict[str, Any]
    plain: dict[str, Any] = {}


def _parts(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}, *parts]}]}


def _field(name: str, value: Any, **beside: Any) -> Feature:
    shown = f"`{name}`" if not isinstance(value, bool | int | float | str) else f"`{name}: {_as_json(value)}`"
    return Feature(shown, {name: value, **beside}, beside)


def _as_json(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_TOOLS: Final = {"tools": [WEATHER, TIME]}
_IMAGE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

CONTENT: Final = [
    Feature("text", {"messages": [*HELLO, {"role": "user", "content": "more"}]}),
    Feature("`system` message", {"messages": [{"role": "system", "content": "Be brief."}, *HELLO]}),
    Feature("`developer` message", {"messages": [{"role": "developer", "content": "Be brief."}, *HELLO]}),
    Feature("`name` of a message", {"messages": [{**HELLO[0], "name": "ann"}]}),
    Feature("image as data", _parts(_IMAGE), _parts()),
    Feature(
        "image at an address",
        _parts({"type": "image_url", "image_url": {"url": "https://pictures.example.com/a.png"}}),
        _parts(),
    ),
    Feature(
        "`detail` of an image",
        _parts({**_IMAGE, "image_url": {**_IMAGE["image_url"], "detail": "low"}}),
        _parts(_IMAGE),
    ),
    Feature(
        "document (PDF) as data",
        _parts({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}),
        _parts(),
    ),
    Feature("document by id", _parts({"type": "file", "file": {"file_id": "file-1"}}), _parts()),
    Feature("sound", _parts({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}), _parts()),
    Feature(
        "video as data", _parts({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}), _parts()
    ),
    Feature("earlier refusal", {"messages": [*HELLO, {"role": "assistant", "refusal": "No."}, *HELLO]}),
    Feature(
        "earlier signed thoughts (`reasoning_details`)",
        {"messages": [*HELLO, {"role": "assistant", "content": "Hi", "reasoning_details": [THOUGHT]}, *HELLO]},
        {"messages": [*HELLO, {"role": "assistant", "content": "Hi"}, *HELLO]},
    ),
    Feature("`cache_control` on a part", _parts({"type": "text", "text": "x", "cache_control": MARK}), {
        "messages": [{"role": "user", "content": [{"type": "text", "text": t} for t in ("hello", "x")]}],
    }),
    Feature(
        "`cache_control` for an hour",
        _parts({"type": "text", "text": "x", "cache_control": {**MARK, "ttl": "1h"}}),
        _parts({"type": "text", "text": "x", "cache_control": MARK}),
    ),
]  # fmt: skip
TOOLS: Final = [
    Feature("functions", {"tools": [WEATHER]}),
    Feature("several functions", _TOOLS, {"tools": [WEATHER]}),
    Feature("function without parameters", {"tools": [{"type": "function", "function": {"name": "now"}}]}),
    Feature(
        "`strict` of a function",
        {"tools": [{**WEATHER, "function": {**WEATHER["function"], "strict": True}}]},
        {"tools": [WEATHER]},
    ),
    Feature("`tool_choice: none`", {**_TOOLS, "tool_choice": "none"}, _TOOLS),
    Feature("`tool_choice: required`", {**_TOOLS, "tool_choice": "required"}, _TOOLS),
    Feature(
        "`tool_choice` of one function",
        {**_TOOLS, "tool_choice": {"type": "function", "function": {"name": "time"}}},
        _TOOLS,
    ),
    Feature("`parallel_tool_calls: false`", {**_TOOLS, "parallel_tool_calls": False}, _TOOLS),
    Feature("earlier call", {"messages": [*ANSWERED], **_TOOLS}, _TOOLS),
    Feature(
        "earlier calls made together",
        {
            "messages": [
                *HELLO,
                {"role": "assistant", "content": None, "tool_calls": [CALL, OTHER_CALL]},
                {"role": "tool", "tool_call_id": "a", "content": "sun"},
                {"role": "tool", "tool_call_id": "b", "content": "noon"},
            ],
            **_TOOLS,
        },
        {"messages": ANSWERED, **_TOOLS},
    ),
    Feature("tool of another kind", {"tools": [WEATHER, {"type": "web_search"}]}, {"tools": [WEATHER]}),
    Feature(
        "forced tool of another kind",
        {"tools": [CUSTOM], "tool_choice": CUSTOM},
    ),
    Feature("`functions` (old form)", {"functions": [{"name": "f"}]}),
    Feature("`web_search_options`", {"web_search_options": {"search_context_size": "low"}}),
]  # fmt: skip
FIELDS: Final = [
    _field("max_tokens", 7),
    _field("max_completion_tokens", 7),
    _field("stop", ["END"]),
    _field("n", 2),
    _field("temperature", 0.5),
    _field("temperature", 1.7),
    _field("top_p", 0.5),
    Feature("`top_p` beside `temperature`", {"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5}),
    _field("top_k", 3),
    _field("min_p", 0.1),
    _field("seed", 7),
    _field("frequency_penalty", 0.5),
    _field("presence_penalty", 0.5),
    _field("repetition_penalty", 1.1),
    _field("logit_bias", {"50256": -100}),
    _field("logprobs", True),
    _field("top_logprobs", 2, logprobs=True),
    _field("modalities", ["text", "audio"]),
    _field("audio", {"voice": "alloy", "format": "wav"}),
    Feature("`response_format` `json_object`", {"response_format": {"type": "json_object"}}),
    Feature(
        "`response_format` `json_schema`",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    ),
    _field("reasoning_effort", "high"),
    _field("reasoning_effort", "none"),
    Feature("`reasoning.effort`", {"reasoning": {"effort": "high"}}),
    Feature("`thinking` (Anthropic's)", {"thinking": {"type": "enabled", "budget_tokens": 2_000}}),
    _field("verbosity", "low"),
    _field("prediction", {"type": "content", "content": "x"}),
    _field("service_tier", "flex"),
    _field("service_tier", "priority"),
    _field("user", "ann"),
    _field("safety_identifier", "ann"),
    _field("prompt_cache_key", "k"),
    _field("store", True),
    _field("metadata", {"a": "b"}),
    _field("stream", True),
]
FEATURES: Final = {"Messages": CONTENT, "Tools": TOOLS, "Fields": FIELDS}
"""Heading -> rows."""


def body_of(fields: dict[str, Any]) -> dict[str, Any]:
    """A whole request with these fields."""
    return {"model": PUBLIC_MODEL, "messages": HELLO, **fields}
