"""What a request of Chat Completions asks its vendor to do by itself: searches, and tools that are neither functions
nor custom. Pure.

Vendors take a fee for it that no count of tokens shows, and read the context again. So it is passed on only where the
operator names it (options `tools` and `max_tool_calls` of a provider with the dialect `openai`)."""

from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.errors import bad_field

DIALECT: Final = "openai"
"""Of upstreams that may be asked for it."""
SEARCHES: Final = ("web_search_options", "search_parameters", "plugins", "enable_search")
"""Fields of OpenAI, xAI, OpenRouter and Alibaba that have the vendor search the web or read files."""
WEB_SEARCH: Final = "web_search"
"""What the option `tools` calls these fields."""
_OF_THE_CALLER: Final = ("function", "custom")
_KEEP_STATE: Final = ("file_search", "retrieval", "mcp")
"""Kinds of tools that read what lies in the operator's account, which all customers share, or lead to servers of the
caller's choice with the operator's credential."""
_SEARCHES: Final = frozenset(SEARCHES)


def asks_vendor(body: dict[str, Any]) -> bool:
    """Whether there is any of it in a request."""
    tools = body.get("tools")
    is_odd = tools and any(tool["type"] not in _OF_THE_CALLER for tool in tools)
    return bool(is_odd) or not _SEARCHES.isdisjoint(body)


def may_run(target: Target) -> tuple[str, ...]:
    """Kinds of tools that the operator lets the vendor run."""
    named = (target.options.get("tools") or "").split(",") if target.dialect == DIALECT else []
    return tuple(kind for kind in named if kind and kind not in _KEEP_STATE)


def without_vendors(body: dict[str, Any], kinds: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the request without what the vendor may not do, the names of that). Raises GatewayError (400) for a tool that is
    forced and may not run: to answer without it would be another answer."""
    plain = dict(body)
    lost: list[str] = []
    for name in SEARCHES:
        if name in plain and WEB_SEARCH not in kinds and plain.pop(name) not in (None, False):
            lost.append(name)
    tools: list[dict[str, Any]] = plain.pop("tools", None) or []
    odd = {index for index, tool in enumerate(tools) if not _passes(tool, kinds)}
    kept = [tool for index, tool in enumerate(tools) if index not in odd]
    if kept:
        plain["tools"] = kept
    if odd:
        lost += [f"tools[{index}]" for index in sorted(odd)]
        _choose(plain, kept)
    return plain, tuple(lost)


def rounds(body: dict[str, Any], model: OfferedModel) -> int:
    """How often the context of the model can be read to answer a request: once, and once after each thing that its
    vendor does by itself on one of the model's routes."""
    most = 0
    for target in model.targets:
        kinds = may_run(target)
        searches = WEB_SEARCH in kinds and any(body.get(name) not in (None, False) for name in SEARCHES)
        runs = any(tool["type"] not in _OF_THE_CALLER and _passes(tool, kinds) for tool in body.get("tools") or ())
        if searches or runs:
            most = max(most, int(target.options.get("max_tool_calls") or 1))
    return 1 + most


def _passes(tool: dict[str, Any], kinds: tuple[str, ...]) -> bool:
    kind = tool["type"]
    return kind in _OF_THE_CALLER or kind in kinds


def _choose(plain: dict[str, Any], kept: list[dict[str, Any]]) -> None:
    """Put the choice right where tools were left out."""
    choice = plain.get("tool_choice")
    is_there = True
    if choice == "required":
        is_there = bool(kept)
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        among = allowed.get("tools") if isinstance(allowed, dict) else None
        kinds = {tool["type"] for tool in kept}
        left = [tool for tool in among if isinstance(tool, dict) and tool.get("type") in kinds] if among else []
        is_there = bool(left) or not isinstance(allowed, dict) or allowed.get("mode") != "required"
        plain["tool_choice"] = {**choice, "allowed_tools": {**(allowed or {}), "tools": left}} if left else "none"
    elif isinstance(choice, dict):
        is_there = any(tool["type"] == choice.get("type") for tool in kept)
    if not is_there:
        raise bad_field("tool_choice", "tool_choice forces a tool that is not offered here.")
    if not kept:
        plain.pop("tool_choice", None)
        plain.pop("parallel_tool_calls", None)
