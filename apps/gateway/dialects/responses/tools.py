"""The tools of a request of the Responses API as those of a chat, and the choice among them. Pure."""

from typing import Any

from apps.gateway.dialects.responses.custom_tools import custom_tool
from apps.gateway.dialects.responses.namespaces import Member, flat_name, members_of
from apps.gateway.dialects.translated_chat import is_strict
from apps.gateway.errors import bad_field


class Tools:
    """The tools of a request and the choice among them. Raises GatewayError (400)."""

    def __init__(self, told: dict[str, Any], lost: list[str]) -> None:
        self.custom: set[str] = set()
        self.members: dict[str, Member] = {}
        self._lost = lost
        self._functions: dict[str, dict[str, Any]] = {}
        self._others: set[str] = set()
        """Kinds of tools that only some vendor has."""
        for index, tool in enumerate(told.get("tools") or ()):
            self._add(tool, f"tools[{index}]")
        choice = self._choice(told.get("tool_choice"))
        self.chat: dict[str, Any] = {"tools": list(self._functions.values())} if self._functions else {}
        if choice not in (None, "auto") and (self._functions or choice != "none"):
            self.chat["tool_choice"] = choice

    def _add(self, tool: Any, place: str) -> None:
        if type(tool) is dict and tool.get("type") == "namespace":
            for index, (member, inner) in enumerate(members_of(tool, place)):
                flat = flat_name(*member)
                self.members[flat] = member
                self._add({**inner, "name": flat}, f"{place}.tools[{index}]")
        elif (made := self._function(tool, place)) is not None:
            self._functions[made[made["type"]]["name"]] = made

    def _function(self, tool: Any, place: str) -> dict[str, Any] | None:
        if type(tool) is not dict or type(tool.get("type")) is not str:
            raise bad_field(place, "A tool must be an object with a type.")
        if tool["type"] not in ("function", "custom"):
            self._lost.append(place)
            self._others.add(tool["type"])
            return None
        name = tool.get("name")
        if type(name) is not str or not name:
            raise bad_field(f"{place}.name", "A tool must have a name, which is a string.")
        if tool["type"] == "custom":
            return self._custom(tool, name, place)
        made: dict[str, Any] = {"name": name}
        if tool.get("description") is not None:
            made["description"] = tool["description"]
        if tool.get("parameters") is not None:
            made["parameters"] = tool["parameters"]
            made["strict"] = strictness(tool)
        return {"type": "function", "function": made}

    def _custom(self, tool: dict[str, Any], name: str, place: str) -> dict[str, Any]:
        self.custom.add(name)
        wanted = tool.get("format") or {"type": "text"}
        if type(wanted) is not dict:
            raise bad_field(f"{place}.format", "format must be an object.")
        if wanted.get("type") != "text":
            self._lost.append(f"{place}.format")
        return custom_tool(name, tool.get("description"), wanted)

    def _choice(self, choice: Any) -> Any:
        if choice is None or choice in ("auto", "none"):
            return choice
        if choice == "required":
            self._demand(bool(self._functions or self._others))
            return choice
        if type(choice) is not dict or type(choice.get("type")) is not str:
            raise bad_field("tool_choice", "tool_choice must be auto, none, required or an object with a type.")
        if choice["type"] == "allowed_tools":
            return self._allowed(choice)
        if choice["type"] in self._others:  # whoever does not have it refuses the request
            return {"type": "function", "function": {"name": choice["type"]}}
        self._demand(choice["type"] in ("function", "custom") and choice.get("name") in list(self._functions))
        kind = self._functions[choice["name"]]["type"]
        return {"type": kind, kind: {"name": choice["name"]}}

    def _allowed(self, choice: dict[str, Any]) -> str:
        """Only these are offered."""
        tools = choice.get("tools")
        if type(tools) is not list or choice.get("mode") not in ("auto", "required"):
            raise bad_field("tool_choice", "allowed_tools must have a mode, auto or required, and a list of tools.")
        names = {name for tool in tools if type(tool) is dict and type(name := tool.get("name")) is str}
        names |= {flat for flat, member in self.members.items() if member.namespace in names}
        self._functions = {name: each for name, each in self._functions.items() if name in names}
        self._demand(bool(self._functions or self._others) or choice["mode"] == "auto")
        return str(choice["mode"])

    @staticmethod
    def _demand(is_possible: bool) -> None:
        if not is_possible:
            raise bad_field("tool_choice", "tool_choice forces a tool that is not among those that can run here.")


def strictness(tool: dict[str, Any]) -> bool:
    """Whether a function is kept to strictly: as its caller says, else where its schema allows it, as OpenAI does."""
    given = tool.get("strict")
    return given if type(given) is bool else is_strict(tool.get("parameters"))
