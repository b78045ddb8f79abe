"""Every field of a Chat Completions request, in every dialect: sent, named as dropped, or refused; never just gone."""

import copy
import time
from typing import Any

import msgspec
import orjson
import pytest

from apps.catalog.dialects import DIALECTS, with_defaults
from apps.gateway.dialects.chat import parse_chat
from apps.gateway.dialects.dropped_params import header_value
from apps.gateway.dialects.vendor_runs import SEARCHES
from apps.gateway.errors import GatewayError
from apps.gateway.providers import PROVIDERS
from apps.gateway.providers.base import UpstreamRequest
from tests.factories import TARGET, offered
from tests.upstream.bedrock_shapes import CREDENTIAL

FOREIGN = ("anthropic", "gemini", "bedrock")
MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash", "bedrock": "eu.anthropic.claude-sonnet-4-5"}
CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}}
SCHEMA = {"type": "object", "properties": {"town": {"type": "string"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
BASE: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "hello"}, IMAGE]},
        {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {"role": "user", "content": "And?"},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "description": "Of a town", "parameters": SCHEMA}}],
}
MARK = {"type": "ephemeral"}
FIELDS: list[tuple[str, Any]] = [
    ("audio", {"voice": "alloy", "format": "wav"}), ("frequency_penalty", 0.5), ("function_call", "none"),
    ("functions", [{"name": "f"}]), ("logit_bias", {"50256": -100}), ("logprobs", True), ("max_completion_tokens", 7),
    ("max_tokens", 7), ("min_p", 0.1), ("modalities", ["text", "audio"]), ("n", 2), ("parallel_tool_calls", False),
    ("prediction", {"type": "content", "content": "x"}), ("presence_penalty", 0.5), ("prompt_cache_key", "k"),
    ("prompt_cache_retention", "24h"), ("reasoning", {"max_tokens": 2_000}), ("reasoning", {"effort": "high"}),
    ("reasoning_effort", "high"), ("reasoning_effort", "none"), ("repetition_penalty", 1.1), ("seed", 0), ("seed", 7),
    ("response_format", {"type": "json_object"}), ("safety_identifier", "s"), ("service_tier", "flex"), ("stop", "x"),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}), ("store", True),
    ("stream", True), ("temperature", 0), ("temperature", 1.7), ("thinking", {"type": "enabled"}),
    ("tool_choice", "required"), ("tool_choice", "none"), ("top_k", 3), ("top_logprobs", 2), ("top_p", 0.5),
    ("tool_choice", {"type": "function", "function": {"name": "weather"}}), ("user", "u"), ("verbosity", "low"),
    ("web_search_options", {}), ("web_search_options", {"search_context_size": "low"}), ("cache_control", MARK),
    ("messages.0.name", "n"), ("messages.1.name", "n"), ("messages.2.name", "n"), ("messages.0.cache_control", MARK),
    ("messages.1.cache_control", MARK), ("messages.2.cache_control", MARK), ("messages.3.cache_control", MARK),
    ("messages.2.audio", {"id": "audio_1"}), ("messages.2.refusal", "No."), ("messages.2.function_call", {"name": "f"}),
    ("messages.2.content", [{"type": "refusal", "refusal": "No."}]), ("messages.0.content.0.cache_control", MARK),
    ("messages.1.content.0.cache_control", MARK), ("messages.1.content.1.cache_control", MARK),
    ("messages.1.content.1.image_url.detail", "low"), ("messages.4.role", "developer"), ("messages.4.role", "function"),
    ("tools.0.function.strict", True), ("tools.0.function.description", "Another"), ("tools.0.cache_control", MARK),
    ("tools.0.function.parameters", {"type": "object"}), ("tools.0", {"type": "web_search"}),
    ("tools.0", {"type": "custom", "custom": {"name": "c"}}),
]  # fmt: skip
SAME = {
    ("anthropic", "reasoning_effort", "none"): "Claude 4.5 does not think unasked",
    ("bedrock", "reasoning_effort", "none"): "Claude 4.5 does not think unasked",
    ("gemini", "top_logprobs", 2): "OpenAI has it beside logprobs only",
    ("openai-responses", "top_logprobs", 2): "OpenAI has it beside logprobs only",
}
"""Values that say nothing here."""


def asked(dialect: str, body: dict[str, Any], *, options: dict[str, str] | None = None) -> UpstreamRequest:
    """What is sent for a request. Raises GatewayError."""
    given = {"region": "us-east-1"} if dialect == "bedrock" else options or {}
    target = msgspec.structs.replace(
        TARGET,
        dialect=dialect,
        api_key=CREDENTIAL,
        upstream_model=MODELS.get(dialect, "gpt-x"),
        base_url="https://vendor.example/v1",
        options=with_defaults(dialect, given),
    )
    model = offered(max_output_tokens=8_000, input_modalities=("text", "image", "audio", "file", "video"))
    return PROVIDERS[dialect].chat_request(parse_chat(orjson.dumps(body)), model, target, request_id="req_1")


def changed(path: str, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(BASE)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    holder: Any = body
    for step in way:
        holder = holder[step]
    holder[last] = value
    return body


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("path", "value"), FIELDS)
def test_no_field_vanishes_silently(dialect: str, path: str, value: Any) -> None:
    plain = asked(dialect, BASE)
    assert plain.dropped == ()
    key = (dialect, path, value if isinstance(value, str | int) else repr(value))
    try:
        request = asked(dialect, changed(path, value))
    except GatewayError as refusal:
        told = refusal.kind.status == 400 and bool(refusal.param)
    else:
        told = (request.body, request.url) != (plain.body, plain.url) or bool(request.dropped)
    assert told is (key not in SAME)


@pytest.mark.parametrize("dialect", FOREIGN)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("audio", {"voice": "alloy"}),
        ("web_search_options", {"search_context_size": "low"}),
        ("messages.2.audio", {"id": "audio_1"}),
        ("messages.2.function_call", {"name": "f", "arguments": "{}"}),
    ],
)
def test_what_changes_the_answer_is_refused_by_all_that_have_no_words_for_it(
    dialect: str, path: str, value: Any
) -> None:
    with pytest.raises(GatewayError) as refusal:
        asked(dialect, changed(path, value))
    assert refusal.value.param == path.replace("messages.2", "messages[2]")


@pytest.mark.parametrize("name", SEARCHES)
def test_the_vendor_searches_only_where_the_operator_says_so(name: str) -> None:
    asking = BASE | {name: {"search_context_size": "low"}}
    priced = asked("openai", asking, options={"tools": "web_search"})
    assert name in orjson.loads(priced.body) and priced.dropped == ()
    for dialect in ("openai", "azure"):
        unpriced = asked(dialect, asking)
        assert name not in orjson.loads(unpriced.body) and unpriced.dropped == (name,)


@pytest.mark.parametrize("dialect", FOREIGN)
def test_a_refusal_stays_a_turn_of_the_model(dialect: str) -> None:
    body = {
        "model": "m",
        "messages": [BASE["messages"][4], {"role": "assistant", "refusal": "No."}, BASE["messages"][4]],
    }
    told = orjson.loads(asked(dialect, body).body)
    turns = told["contents"] if dialect == "gemini" else told["messages"]
    texts = [(turn["role"], [part["text"] for part in turn.get("parts", turn.get("content"))]) for turn in turns]
    assert texts[1][1] == ["No."] and [role for role, _ in texts][::2] == ["user", "user"]


ADDRESSES = ("https://vendor.test/film.mp4", "https://www.YouTube.com./watch?v=x", "https://youtu.be/x")
DATA = ("data:video/mp4;base64,AAAA", "data:application/pdf;base64,AAAA", "data:Audio/mp3;base64,AAAA")


@pytest.mark.parametrize(
    ("dialect", "part"),
    [
        *((dialect, {"type": "image_url", "image_url": {"url": url}}) for dialect in FOREIGN for url in DATA),
        *(("gemini", {"type": "image_url", "image_url": {"url": url}}) for url in ADDRESSES),
        *((dialect, {"type": "input_audio", "input_audio": {"data": DATA[0]}}) for dialect in FOREIGN),
    ],
)
def test_nothing_is_sent_as_an_image_or_sound_that_is_none(dialect: str, part: dict[str, Any]) -> None:
    """What is held for an image or for sound would not cover a film. At an address Anthropic opens images only."""
    with pytest.raises(GatewayError) as refusal:
        asked(dialect, {"model": "m", "messages": [{"role": "user", "content": [part]}]})
    assert str(refusal.value.param).startswith("messages[0].content[0]")


@pytest.mark.parametrize("host", ["vendor.example", "VENDOR.example.", "generativelanguage.googleapis.com"])
def test_files_that_our_credential_would_open_are_refused(host: str) -> None:
    part = {"type": "file", "file": {"file_data": f"https://{host}/v1beta/files/abc"}}
    with pytest.raises(GatewayError):
        asked("gemini", {"model": "m", "messages": [{"role": "user", "content": [part]}]})


@pytest.mark.parametrize("dialect", FOREIGN)
@pytest.mark.parametrize("tools", [["x"], [None], [{"type": "function", "function": "weather"}], [{"function": 5}], {}])
def test_allowed_tools_that_cannot_be_read_are_no_bug_of_ours(dialect: str, tools: Any) -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    with pytest.raises(GatewayError) as refusal:
        asked(dialect, {**BASE, "tool_choice": choice})
    assert refusal.value.kind.status == 400


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/0", "$defs": {str(n): {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}] * 9} for n in range(14)}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
    ],
)
def test_a_schema_that_grows_without_end_is_refused_at_once(schema: dict[str, Any]) -> None:
    schema.get("$defs", {})["14"] = {"type": "string"}
    started = time.process_time()
    with pytest.raises(GatewayError):
        asked("gemini", changed("tools.0.function.parameters", schema), options={"api_version": "v1"})
    assert time.process_time() - started < 1
    broken = {"type": "object", "allOf": 5, "anyOf": {"a": 1}, "properties": [], "enum": "x", "items": [1]}
    assert asked("gemini", changed("tools.0.function.parameters", broken), options={"api_version": "v1"}).body


def test_the_place_of_a_tool_can_be_named_in_the_header() -> None:
    assert header_value(("tools[0]", "messages.name", "a b", "x\r\ny: z")) == "tools[0], messages.name, other"
