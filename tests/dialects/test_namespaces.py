"""Tools grouped under a namespace, as Codex tells those of its MCP servers and of its agents."""

from typing import Any

import orjson
import pytest

from apps.gateway.dialects.responses.namespaces import MAX_NAME, flat_name
from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.errors import GatewayError
from tests.gateway.conftest import Bench, bench, empty_store

__all__ = ["bench", "empty_store"]
FIND: dict[str, Any] = {
    "type": "function", "name": "find", "description": "Find", "strict": False,
    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
}  # fmt: skip
PATCH: dict[str, Any] = {"type": "custom", "name": "patch"}
CRM: dict[str, Any] = {"type": "namespace", "name": "crm", "description": "Customers", "tools": [FIND, PATCH]}


def chat_of(**fields: Any) -> dict[str, Any]:
    return parse_responses(orjson.dumps({"model": "m", "input": "x", **fields})).body


def test_its_tools_are_functions_and_earlier_calls_of_them_too() -> None:
    call = {"type": "function_call", "call_id": "a", "name": "find", "namespace": "crm", "arguments": "{}"}
    given = {"type": "function_call_output", "call_id": "a", "output": "Ann"}
    chat = chat_of(tools=[CRM, FIND], input=[{"role": "user", "content": "x"}, call, given])
    assert [tool[tool["type"]]["name"] for tool in chat["tools"]] == ["crm__find", "crm__patch", "find"]
    assert chat["tools"][0]["function"]["description"] == "crm: Customers\n\nFind"
    assert chat["messages"][1]["tool_calls"][0]["function"]["name"] == "crm__find"


def test_a_choice_may_allow_the_whole_of_it() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "namespace", "name": "crm"}]}
    chat = chat_of(tools=[CRM, FIND], tool_choice=choice)
    assert [tool[tool["type"]]["name"] for tool in chat["tools"]] == ["crm__find", "crm__patch"]


def test_a_name_that_is_too_long_for_vendors_is_cut_and_stays_its_own() -> None:
    names = {flat_name("n" * 40, f"{'t' * 40}{each}") for each in range(3)}
    assert len(names) == 3 and {len(name) for name in names} == {MAX_NAME}


@pytest.mark.parametrize(
    ("wrong", "param"),
    [({"name": ""}, "tools[0].name"), ({"tools": 3}, "tools[0].tools"), ({"tools": [3]}, "tools[0].tools[0]")],
)
def test_what_is_wrong_in_it_is_named(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        chat_of(tools=[{**CRM, **wrong}])
    assert caught.value.param == param


@pytest.mark.asyncio
async def test_its_calls_come_back_under_its_name(bench: Bench) -> None:
    bench.offer("sandbox-tools")
    for tools, kind in (([FIND], "function_call"), ([PATCH], "custom_tool_call")):
        body = {"model": "sandbox-tools", "input": "x", "store": False, "tools": [{**CRM, "tools": tools}]}
        call = await bench.call("/api/v1/responses", body)
        (item,) = call.json["output"]
        assert (item["type"], item["namespace"], item["name"]) == (kind, "crm", tools[0]["name"])
        assert "x-crun-dropped-params" not in call.headers
