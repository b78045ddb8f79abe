"""Tools of the Responses API that are no functions: who runs them, and which of the vendor's may be asked for. Pure.

A vendor takes a fee for each call of the tools that it runs, and reads its model's context again after each. So they
are passed on only where the operator names them (options `tools` and `max_tool_calls` of the provider). What keeps
state at the vendor (files, containers) never is: all customers have one account there."""

from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target

DIALECT: Final = "openai-responses"
"""Of upstreams that get such a request as it came."""
_OF_THE_CALLER: Final = (
    "function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview", "tool_search",
)  # fmt: skip
"""Kinds of tools that the caller runs itself, so that they cost their tokens and nothing else."""
_RUN_AT_VENDOR: Final = ("web_search", "mcp")


def is_of_the_caller(tool: dict[str, Any]) -> bool:
    """Whether the caller runs it itself; a shell only where it says so, a group where that is so of all of it."""
    kind = tool.get("type")
    if kind == "namespace":
        return all_of_the_caller(tool.get("tools"))
    if kind == "shell":
        environment = tool.get("environment")
        return isinstance(environment, dict) and environment.get("type") == "local"
    return kind in _OF_THE_CALLER


def all_of_the_caller(tools: Any) -> bool:
    """Whether these are tools, and all run by the caller."""
    return isinstance(tools, list) and all(isinstance(tool, dict) and is_of_the_caller(tool) for tool in tools)


def runs_at_vendor(kind: str) -> str:
    """What the option `tools` calls a tool of this kind that the vendor runs; "" for all others. Kinds of web search
    have dates and `preview` in their names."""
    return next((name for name in _RUN_AT_VENDOR if kind == name or kind.startswith(f"{name}_")), "")


def may_run(tool: dict[str, Any], target: Target) -> bool:
    """Whether the operator lets the vendor run it."""
    name = runs_at_vendor(str(tool.get("type")))
    return bool(name) and name in (target.options.get("tools") or "").split(",")


def most_calls(told: dict[str, Any], target: Target) -> int:
    """How many calls of such tools one request may have: by its caller, and by the operator."""
    most, asked = int(target.options.get("max_tool_calls") or 1), told.get("max_tool_calls")
    return min(most, asked) if type(asked) is int else most


def rounds(told: dict[str, Any], model: OfferedModel) -> int:
    """How often the context of the model can be read to answer a request: once, and once after each call of a tool that
    the vendor runs on one of the model's routes."""
    tools = [tool for tool in told.get("tools") or () if isinstance(tool, dict)]
    if not any(runs_at_vendor(str(tool.get("type"))) for tool in tools):
        return 1
    native = (target for target in model.targets if target.dialect == DIALECT)
    return 1 + max(
        (most_calls(told, target) for target in native if any(may_run(tool, target) for tool in tools)), default=0
    )
