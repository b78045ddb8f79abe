"""What a vendor is to do by itself, asked through Chat Completions and Messages: sent where the operator names it, held
for, and else dropped and named, or refused."""

from typing import Any

import msgspec
import orjson
import pytest

from apps.catalog.contracts import OfferedModel
from apps.catalog.dialects import with_defaults
from apps.gateway.dialects.chat import parse_chat
from apps.gateway.dialects.messages.request import MessagesRequest, parse_messages
from apps.gateway.errors import GatewayError
from apps.gateway.providers import upstream_request
from apps.gateway.providers.base import UpstreamRequest
from tests.factories import TARGET, offered

HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
BROWSER = {"type": "browser_search"}
KIMI = {"type": "builtin_function", "function": {"name": "$web_search"}}
PATCH = {"type": "custom", "custom": {"name": "patch"}}


def model_of(dialect: str, **options: str) -> OfferedModel:
    target = msgspec.structs.replace(TARGET, dialect=dialect, options=with_defaults(dialect, options))
    return offered(targets=(target,))


def chat(model: OfferedModel, **fields: Any) -> UpstreamRequest:
    asked = parse_chat(orjson.dumps({"model": "m", "messages": HELLO, **fields}))
    asked.check_model(model)
    return upstream_request(asked, model, model.targets[0], request_id="req_1")


def sent(request: UpstreamRequest) -> Any:
    return orjson.loads(request.body)


@pytest.mark.parametrize("dialect", ["openai", "azure"])
def test_a_tool_that_the_vendor_runs_is_dropped_and_named(dialect: str) -> None:
    request = chat(model_of(dialect), tools=[BROWSER, WEATHER, KIMI, PATCH], tool_choice="auto")
    assert (sent(request)["tools"], request.dropped) == ([WEATHER, PATCH], ("tools[0]", "tools[2]"))
    request = chat(model_of(dialect), tools=[BROWSER], tool_choice="auto", parallel_tool_calls=False)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(sent(request))
    assert request.dropped == ("tools[0]",)


def test_it_runs_where_the_operator_names_its_kind() -> None:
    model = model_of("openai", tools="browser_search,builtin_function")
    request = chat(model, tools=[BROWSER, {"type": "web_search"}, KIMI], tool_choice={"type": "browser_search"})
    assert (sent(request)["tools"], request.dropped) == ([BROWSER, KIMI], ("tools[1]",))
    assert sent(request)["tool_choice"] == {"type": "browser_search"}


@pytest.mark.parametrize("kind", ["file_search", "retrieval", "mcp"])
def test_what_reads_the_operators_account_never_runs(kind: str) -> None:
    assert chat(model_of("openai", tools=kind), tools=[{"type": kind}]).dropped == ("tools[0]",)


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "browser_search"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [BROWSER]}},
    ],
)
def test_a_forced_one_that_may_not_run_is_refused(choice: Any) -> None:
    with pytest.raises(GatewayError) as refusal:
        chat(model_of("openai"), tools=[BROWSER], tool_choice=choice)
    assert (refusal.value.kind.status, refusal.value.param) == (400, "tool_choice")


def test_a_choice_among_tools_keeps_those_that_are_left() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [BROWSER, named]}}
    request = chat(model_of("openai"), tools=[BROWSER, WEATHER], tool_choice=choice)
    assert sent(request)["tool_choice"]["allowed_tools"] == {"mode": "auto", "tools": [named]}


@pytest.mark.parametrize(
    ("fields", "contexts"),
    [
        ({"tools": [BROWSER]}, 4), ({"tools": [WEATHER]}, 0), ({"tools": [{"type": "web_search"}]}, 0),
        ({"search_parameters": {"mode": "auto"}}, 0), ({"tools": [BROWSER], "web_search_options": {}}, 4), ({}, 0),
    ],
)  # fmt: skip
def test_money_is_held_for_a_context_after_each_call(fields: dict[str, Any], contexts: int) -> None:
    model = model_of("openai", tools="browser_search", max_tool_calls="3")
    asked = parse_chat(orjson.dumps({"model": "m", "messages": HELLO, **fields}))
    asked.check_model(model)
    assert asked.inputs == max(contexts, 1)
    bound = asked.input_bound(model.context_length)
    assert bound == contexts * model.context_length if contexts else bound < 5_000
    asked.check_model(model_of("openai"))
    assert asked.inputs == 1, "where nothing may run, nothing more is held"


def test_searches_by_fields_are_held_for_too() -> None:
    asked = parse_chat(orjson.dumps({"model": "m", "messages": HELLO, "web_search_options": {}}))
    asked.check_model(model_of("openai", tools="web_search", max_tool_calls="1"))
    assert asked.inputs == 2
    off = parse_chat(orjson.dumps({"model": "m", "messages": HELLO, "enable_search": False}))
    off.check_model(model_of("openai", tools="web_search"))
    assert off.inputs == 1 and chat(model_of("openai"), enable_search=False).dropped == ()


SEARCH = {"type": "web_search_20250305", "name": "web_search"}
NEWER = {"type": "web_search_20260209", "name": "web_search", "allowed_callers": ["code_execution_20260120"]}
FETCH = {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 2}
CODE = {"type": "code_execution_20260120", "name": "code_execution"}


def messages(model: OfferedModel, *tools: Any, betas: tuple[str, ...] = (), **more: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 9, "messages": HELLO, "tools": tools, **more}
    asked = parse_messages(orjson.dumps(body), betas)
    asked.check_model(model)
    return asked


def test_anthropic_runs_what_the_operator_names_so_often_as_it_says() -> None:
    model = model_of("anthropic", tools="web_search,web_fetch", max_tool_calls="5")
    betas = ("web-fetch-2025-09-10", "code-execution-2025-08-25")
    asked = messages(model, SEARCH, FETCH, CODE, SEARCH | {"max_uses": 99}, betas=betas)
    request = upstream_request(asked, model, model.targets[0], request_id="req_1")
    assert sent(request)["tools"] == [SEARCH | {"max_uses": 5}, FETCH]
    assert request.dropped == ("tools[2]", "tools[3]", f"anthropic-beta.{betas[1]}")
    assert request.headers["anthropic-beta"] == betas[0]
    assert asked.inputs == 1 + 5 + 2 and asked.input_bound(1_000) == 8_000


def test_no_code_calls_what_anthropic_runs() -> None:
    model = model_of("anthropic", tools="web_search")
    request = upstream_request(messages(model, NEWER), model, model.targets[0], request_id="req_1")
    assert sent(request)["tools"] == [NEWER | {"max_uses": 8, "allowed_callers": ["direct"]}]
    assert request.dropped == ("tools[0].allowed_callers",)


@pytest.mark.parametrize("dialect", ["anthropic", "openai", "gemini", "azure", "openai-responses"])
def test_elsewhere_it_is_dropped_and_named_or_refused(dialect: str) -> None:
    model = model_of(dialect)
    asked = messages(model, SEARCH, FETCH)
    assert asked.inputs == 1
    request = upstream_request(asked, model, model.targets[0], request_id="req_1")
    assert request.dropped[:2] == ("tools[0]", "tools[1]") and "web_search" not in orjson.dumps(sent(request)).decode()
    forced = messages(model, SEARCH, tool_choice={"type": "tool", "name": "web_search"})
    with pytest.raises(GatewayError) as refusal:
        upstream_request(forced, model, model.targets[0], request_id="req_1")
    assert refusal.value.kind.status == 400


def test_what_stands_beside_the_chat_is_held_for() -> None:
    model = model_of("anthropic")
    entry = {"type": "web_search_result", "url": "https://a.test", "title": "t", "encrypted_content": "x" * 9_000}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [entry]}
    used = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    said = [*HELLO, {"role": "assistant", "content": [used, found, {"type": "text", "text": "Well"}]}, *HELLO]
    asked = messages(model, messages=said)
    bound = asked.input_bound(128_000, text_tokens=20)
    assert 9_000 < bound < 12_000, "what was found is read again, and was never in the chat"
    assert messages(model).input_bound(128_000, text_tokens=20) < 100
