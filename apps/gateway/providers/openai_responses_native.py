"""A request of the Responses API for an upstream that speaks it: as it came, but for its model, its limits, and what
this installation does not keep or sell. Pure.

Source: `ResponseCreateParams`, `ResponseInputItem` and the tool types in the Responses reference of OpenAI."""

from collections.abc import Callable
from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.large_content import written
from apps.gateway.dialects.plain_chat import takes_effort
from apps.gateway.dialects.responses.items import SEALED
from apps.gateway.dialects.responses.request import ENCRYPTED, ResponsesRequest
from apps.gateway.dialects.responses.vendor_tools import (
    all_of_the_caller,
    is_of_the_caller,
    may_run,
    most_calls,
    runs_at_vendor,
)
from apps.gateway.dialects.thoughts import OPENAI, is_packed, unpack
from apps.gateway.errors import bad_field
from apps.gateway.providers.base import UpstreamRequest
from apps.gateway.providers.conversation import output_limit
from apps.gateway.providers.openai import request_headers, takes_custom_tools
from apps.gateway.providers.openai_responses_request import refuse_inexpressible

Item = dict[str, Any]
_TAKEN: Final = (
    "instructions", "temperature", "top_p", "top_logprobs", "parallel_tool_calls", "tool_choice", "prompt_cache_key",
    "prompt_cache_retention", "safety_identifier", "user", "service_tier", "truncation",
)  # fmt: skip
"""What goes as it came. What has a price of its own, or is state of the operator's account, is not sold."""
_REASONING: Final = ("effort", "summary", "generate_summary")
_TEXT: Final = ("format", "verbosity")
_MADE: Final = {
    "input",
    "include",
    "tools",
    "reasoning",
    "text",
    "max_output_tokens",
    "max_tool_calls",
    "stream_options",
}
_OF_TOOLS: Final = (
    "computer_call", "computer_call_output", "local_shell_call", "local_shell_call_output", "shell_call",
    "shell_call_output", "apply_patch_call", "apply_patch_call_output", "web_search_call", "tool_search_call",
)  # fmt: skip
_READ: Final = (
    "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", *_OF_TOOLS,
)  # fmt: skip
_OF_MCP: Final = ("mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response")
"""Approvals name a request by its id, so these keep theirs."""
_PARTS: Final = ("input_text", "output_text", "text", "refusal", "input_image", "input_file", "summary_text")
CanOpen = Callable[[str], bool]
_STATE: Final = ("file_id", "container_id", "vector_store_ids")


def native_request(asked: ResponsesRequest, model: OfferedModel, target: Target, *, request_id: str) -> UpstreamRequest:
    """The request. Raises GatewayError (400) for a forced tool that may not be sent, and for what only the vendor has
    stored."""
    told = asked.told
    refuse_inexpressible(asked.body)
    lost = [name for name in asked.lost if name in told and name not in _TAKEN and name not in _MADE]
    body: Item = {"model": target.upstream_model, "store": False, "max_output_tokens": output_limit(asked, model)}
    body |= {name: told[name] for name in _TAKEN if told.get(name) is not None}
    body["input"] = _input(told["input"], lost, lambda sealed: asked.can_open(sealed, target))
    body |= _tools(asked, body, target, lost=lost)
    body |= _settings(told, target, lost)
    if target.is_sandbox and "sandbox" in told:
        body["sandbox"] = told["sandbox"]
    if asked.stream:
        body["stream"] = True
        obfuscation = (told.get("stream_options") or {}).get("include_obfuscation")
        if type(obfuscation) is bool:
            body["stream_options"] = {"include_obfuscation": obfuscation}
    return UpstreamRequest(
        url=f"{target.base_url}/responses",
        headers=request_headers(target, request_id, stream=asked.stream),
        body=written(body, size=asked.body_bytes),
        dropped=tuple(dict.fromkeys(lost)),
    )


def _settings(told: Item, target: Target, lost: list[str]) -> Item:
    """How to reason, in which form to answer, and what to tell beside that."""
    reasons = takes_effort(target.upstream_model)
    settings: Item = {}
    reasoning, text = told.get("reasoning") or {}, told.get("text") or {}
    kept = {name: reasoning[name] for name in _REASONING if reasoning.get(name) is not None}
    if target.options.get("summaries") == "never":
        lost += [f"reasoning.{name}" for name in _REASONING[1:] if kept.pop(name, None) is not None]
    lost += [f"reasoning.{name}" for name in reasoning if name not in _REASONING and reasoning[name] is not None]
    if kept:
        settings["reasoning"] = kept
    if form := {name: text[name] for name in _TEXT if text.get(name) is not None}:
        settings["text"] = form
    include = list(told.get("include") or ())
    if reasons and ENCRYPTED not in include:
        include.append(ENCRYPTED)  # nothing is stored there, so only that lets the next turn think on
    if include:
        settings["include"] = include
    return settings


def _tools(asked: ResponsesRequest, body: Item, target: Target, *, lost: list[str]) -> Item:
    """The tools that may be asked for here, and how often those that the vendor runs."""
    kept, is_run_there, takes_custom = [], False, takes_custom_tools(target)
    for index, tool in enumerate(asked.told.get("tools") or ()):
        kind = tool["type"]
        if kind == "custom" and not takes_custom:
            lost.append(f"tools[{index}]")
        elif is_of_the_caller(tool) or may_run(tool, target):
            kept.append(tool)
            is_run_there = is_run_there or bool(runs_at_vendor(kind))
        else:
            lost.append(f"tools[{index}]")
    choice = _choice(body.pop("tool_choice", None), kept)
    if not kept:
        return {}
    made: Item = {"tools": kept} | ({"tool_choice": choice} if choice is not None else {})
    if is_run_there:
        made["max_tool_calls"] = most_calls(asked.told, target)
    return made


def _choice(choice: Any, kept: list[Item]) -> Any:
    """The choice among these. Raises GatewayError for a forced tool that is not: to answer without it would be another
    answer."""
    is_there = True
    if choice == "required":
        is_there = bool(kept)
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        among = [tool for tool in choice["tools"] if any(_is_named(tool, each) for each in kept)]
        choice = {**choice, "tools": among}
        is_there = bool(among) or choice["mode"] == "auto"
    elif isinstance(choice, dict):
        is_there = any(_is_named(choice, each) for each in kept)
    if not is_there:
        raise bad_field("tool_choice", "tool_choice forces a tool that is not offered here.")
    return choice


def _is_named(choice: Any, tool: Item) -> bool:
    if not isinstance(choice, dict) or choice.get("type") != tool["type"]:
        return False
    names = ("name", "server_label")
    return all(choice.get(name) in (None, tool.get(name)) for name in names)


def _input(given: Any, lost: list[str], can_open: CanOpen) -> Any:
    """The items that this vendor can read and that are whole. Their ids are ours, so they are not told."""
    if isinstance(given, str):
        return given
    made = []
    for index, item in enumerate(given):
        kind = item.get("type") or "message"
        if kind == "reasoning":
            made += _reasoning(item, lost, can_open)
        elif kind in _OF_MCP:
            made.append(item)
        elif kind in _READ or (kind == "tool_search_output" and all_of_the_caller(item.get("tools"))):
            made.append(_item(item, kind, f"input[{index}]"))
        else:
            lost.append(f"input.{kind}")
    if not made:
        raise bad_field("input", "None of these items can be passed on to a model.")
    return made


def _item(item: Item, kind: str, place: str) -> Item:
    plain = {name: value for name, value in item.items() if name != "id"}
    field = "content" if kind == "message" else "output"
    if kind in _OF_TOOLS:
        _refuse_state(plain, place)
    elif isinstance(plain.get(field), list):
        plain[field] = [_part(part) for part in plain[field] if part.get("type") in _PARTS]
    return plain


def _part(part: Item) -> Item:
    """Content that is here: an id beside it would be one of the operator's account."""
    return {name: value for name, value in part.items() if name not in _STATE} if "file_id" in part else part


def _refuse_state(value: Any, place: str) -> None:
    """Raises GatewayError for a reference to what is stored at the vendor, where all customers have one account."""
    if isinstance(value, dict):
        if any(value.get(name) is not None for name in _STATE):
            raise bad_field(place, "Files and containers of the provider's are not kept here: send the content itself.")
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _refuse_state(inner, place)


def _reasoning(item: Item, lost: list[str], can_open: CanOpen) -> list[Item]:
    """A thought that this account sealed, or that can be read. Nothing is stored there: its id alone says nothing."""
    sealed = item.get("encrypted_content")
    plain = {name: value for name, value in item.items() if name not in ("id", "status")}
    if is_packed(sealed):
        entries = [entry for entry in unpack(str(sealed)).details if entry.get("format") == OPENAI]
        sealed = next((entry["data"] for entry in entries if entry.get("type") == "reasoning.encrypted"), None)
        plain["encrypted_content"] = sealed
    if isinstance(sealed, str) and not can_open(sealed):
        lost.append(SEALED)
        del plain["encrypted_content"]
        sealed = None
    if not isinstance(sealed, str) and not item.get("content"):
        lost.append("input.reasoning")
        return []
    return [{"summary": [], **plain}]
