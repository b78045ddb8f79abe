"""Tools whose input is a text, for upstreams that know functions only: a function of one text, there and back. Pure."""

from typing import Any, Final

from apps.gateway.dialects.vendor_json import read_json, write_json

FIELD: Final = "input"
"""The one parameter of such a function."""
_ONE_TEXT: Final = {
    "type": "object",
    "properties": {FIELD: {"type": "string"}},
    "required": [FIELD],
    "additionalProperties": False,
}


def custom_tool(name: str, description: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """A custom tool of the Responses API as one of Chat Completions. `wanted` is the format of its input."""
    told = {"description": description} if description is not None else {}
    if wanted.get("type") == "grammar":
        grammar = {name: value for name, value in wanted.items() if name != "type"}
        wanted = {"type": "grammar", "grammar": grammar}
    return {"type": "custom", "custom": {"name": name, **told, "format": wanted}}


def as_functions(body: dict[str, Any]) -> dict[str, Any]:
    """The chat with its custom tools, their calls and a choice of them as functions. Grammars are lost."""
    changed = {**body, "messages": [_message(message) for message in body["messages"]]}
    if body.get("tools"):
        changed["tools"] = [_tool(tool) for tool in body["tools"]]
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "custom":
        changed["tool_choice"] = {"type": "function", "function": {"name": choice["custom"]["name"]}}
    return changed


def text_of_call(arguments: str) -> str:
    """The text that a call of such a function has; arguments of another shape are told as they are."""
    try:
        parsed = read_json(arguments.encode("utf-8", "surrogatepass"))
    except ValueError:
        parsed = None
    text = parsed.get(FIELD) if isinstance(parsed, dict) else None
    return text if isinstance(text, str) else arguments


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "custom":
        return tool
    function = {name: value for name, value in tool["custom"].items() if name != "format"}
    return {"type": "function", "function": {**function, "parameters": _ONE_TEXT}}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    return {**message, "tool_calls": [_call(call) for call in calls]} if calls else message


def _call(call: dict[str, Any]) -> dict[str, Any]:
    if call["type"] != "custom":
        return call
    rest = {name: value for name, value in call.items() if name != "custom"}
    arguments = write_json({FIELD: call["custom"]["input"]}).decode()
    return {**rest, "type": "function", "function": {"name": call["custom"]["name"], "arguments": arguments}}
