"""Tools of the Messages API that Anthropic runs: which of them may be asked for, and how often. Pure.

Anthropic takes a fee for each search, and its model reads the context again after each call. So they are passed on only
where the operator names them (options `tools` and `max_tool_calls` of the provider). Code runs in a container, which is
state of the account that all customers share: it never is.

Source: the pages on server tools, web search and web fetch in Anthropic's documentation."""

from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target

DIALECT: Final = "anthropic"
"""Of upstreams that get a request as it came."""
_NAMES: Final = {
    "web_search_20250305": "web_search",
    "web_search_20260209": "web_search",
    "web_search_20260318": "web_search",
    "web_fetch_20250910": "web_fetch",
    "web_fetch_20260209": "web_fetch",
    "web_fetch_20260309": "web_fetch",
    "web_fetch_20260318": "web_fetch",
}
"""Kind of a tool -> what the option `tools` calls it. What is newer has not been looked at, and is dropped."""
_BETAS: Final = {"web_search": "web-search-", "web_fetch": "web-fetch-"}
_FIRST: Final = ("web_search_20250305", "web_fetch_20250910")
"""Those that code cannot call unless somebody says so."""
_CALLERS: Final = "allowed_callers"
_FROM_MODEL: Final = ["direct"]


def name_of(tool: Any) -> str:
    """What the option `tools` calls a tool that Anthropic runs; "" for all others."""
    return _NAMES.get(str(tool.get("type")), "") if isinstance(tool, dict) else ""


def may_run(target: Target) -> list[str]:
    """Names of the tools that the operator lets Anthropic run."""
    return (target.options.get("tools") or "").split(",")


def bounded(tool: dict[str, Any], target: Target) -> dict[str, Any]:
    """The tool as it is asked for: no more uses than its caller and the operator allow, and called by the model alone,
    since code that calls it would run in a container."""
    made = {**tool, "max_uses": _uses(tool, target)}
    if _CALLERS in tool or tool.get("type") not in _FIRST:
        made[_CALLERS] = _FROM_MODEL
    return made


def loses_callers(tool: dict[str, Any]) -> bool:
    """Whether its caller named others who may call it than the model."""
    return tool.get(_CALLERS) not in (None, _FROM_MODEL)


def betas_of(target: Target) -> tuple[str, ...]:
    """How the names of betas begin that come with tools which the operator lets Anthropic run."""
    return tuple(_BETAS[name] for name in may_run(target) if name in _BETAS)


def rounds(native: dict[str, Any], model: OfferedModel) -> int:
    """How often the context of the model can be read to answer a request: once, and once after each call of a tool that
    Anthropic runs on one of the model's routes."""
    tools = [tool for tool in native.get("tools") or () if name_of(tool)]
    if not tools:
        return 1
    targets = [target for target in model.targets if target.dialect == DIALECT]
    return 1 + max((_calls(tools, target) for target in targets), default=0)


def _calls(tools: list[dict[str, Any]], target: Target) -> int:
    allowed = {name_of(tool): tool for tool in reversed(tools) if name_of(tool) in may_run(target)}
    return sum(_uses(tool, target) for tool in allowed.values())


def _uses(tool: dict[str, Any], target: Target) -> int:
    most, asked = int(target.options.get("max_tool_calls") or 1), tool.get("max_uses")
    return min(most, asked) if type(asked) is int and asked > 0 else most
