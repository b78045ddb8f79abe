"""A request of the Messages API for an upstream that speaks it: as it came, but for its model and its limits. Pure.

Source: `MessageCreateParams` and the tool types in the Messages API reference of Anthropic."""

import re
from collections.abc import Callable
from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.large_content import written
from apps.gateway.dialects.messages import server_tools
from apps.gateway.dialects.messages.request import MessagesRequest
from apps.gateway.dialects.thoughts import is_packed
from apps.gateway.errors import bad_field
from apps.gateway.providers.anthropic import request_headers
from apps.gateway.providers.anthropic_request import sells_an_hour
from apps.gateway.providers.base import UpstreamRequest

Block = dict[str, Any]
_TAKEN: Final = (
    "messages", "system", "stop_sequences", "temperature", "top_p", "top_k", "thinking", "tool_choice", "metadata",
    "service_tier", "cache_control", "output_config", "context_management",
)  # fmt: skip
"""What goes as it came. What has a price of its own (`speed`, `fallbacks`, servers of tools) is not sold, but for the
tools that the operator names."""
_OF_THE_CALLER: Final = ("bash_", "text_editor_", "computer_", "memory_", "browser_toolset_", "tool_search_tool_")
"""Kinds of tools that the caller runs itself, or that cost nothing beside their tokens."""
_PRICED_BETAS: Final = (
    "adaptive-thinking-", "advanced-tool-use-", "claude-code-", "computer-use-", "context-management-", "effort-",
    "extended-cache-ttl-", "fine-grained-tool-streaming-", "interleaved-thinking-", "max-tokens-3-5-sonnet-",
    "model-context-window-exceeded-", "output-128k-", "pdfs-", "prompt-caching-", "redact-thinking-",
    "structured-outputs-", "task-budgets-", "token-counting-", "token-efficient-tools-", "tool-examples-",
    "tool-search-tool-",
)  # fmt: skip
"""Betas with which a request costs what its usage says at the prices of the catalog. What is not among them may cost
something else (fast mode, compaction, servers of tools, files, and whatever is new), and is kept back and named."""
_LONG_CONTEXT: Final = "context-1m-"
_STANDARD_CONTEXT: Final = 200_000
_LEAST_BUDGET: Final = 1_024
_FOREIGN_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")
"""What ids of calls by other vendors may have, and Anthropic's must not."""


def native_request(asked: MessagesRequest, model: OfferedModel, target: Target) -> UpstreamRequest:
    """The request. Raises GatewayError (400) for a forced tool that may not be sent."""
    body, lost = native_body(asked, model, target)
    body["max_tokens"] = min(asked.native["max_tokens"], model.max_output_tokens)
    _leave_room(body)
    if asked.stream:
        body["stream"] = True
    sent, kept_back = _betas(asked.betas, model, target)
    return UpstreamRequest(
        url=f"{target.base_url}/messages",
        headers=request_headers(target, stream=asked.stream, betas=sent),
        body=written(body, size=asked.body_bytes),
        dropped=(*lost, *(f"anthropic-beta.{name}" for name in kept_back)),
    )


def count_request(asked: MessagesRequest, model: OfferedModel, target: Target) -> UpstreamRequest:
    """The same to have its tokens counted. Raises GatewayError (400)."""
    body, lost = native_body(asked, model, target)
    for name in ("stop_sequences", "temperature", "top_p", "top_k", "metadata", "service_tier"):
        body.pop(name, None)
    sent, _ = _betas(asked.betas, model, target)
    return UpstreamRequest(
        url=f"{target.base_url}/messages/count_tokens",
        headers=request_headers(target, stream=False, betas=sent),
        body=written(body, size=asked.body_bytes),
        dropped=tuple(lost),
    )


def native_body(asked: MessagesRequest, model: OfferedModel, target: Target) -> tuple[Block, list[str]]:
    """(what both requests have, the names of what is not sent). Raises GatewayError (400)."""
    native = asked.native
    lost = [name for name in asked.lost if name in native and name not in _TAKEN]
    body: Block = {"model": target.upstream_model}
    body |= {name: native[name] for name in _TAKEN if native.get(name) is not None}
    if native.get("output_format") is not None:
        body["output_config"] = {"format": native["output_format"], **(body.get("output_config") or {})}
    if tools := _tools(native, target, lost):
        body["tools"] = tools
    elif "tool_choice" in body:
        del body["tool_choice"]
    body["messages"] = [turn for message in native["messages"] if (turn := _turn(message)) is not None]
    if not sells_an_hour(model) and _shorten(body):
        lost.append("cache_control.ttl")
    return body, lost


def _tools(native: Block, target: Target, lost: list[str]) -> list[Block]:
    """The tools that may be asked for here; of each that Anthropic runs the first."""
    kept: list[Block] = []
    choice, runs = native.get("tool_choice") or {}, server_tools.may_run(target)
    for index, tool in enumerate(native.get("tools") or ()):
        kind = tool.get("type")
        if (name := server_tools.name_of(tool)) and name in runs:
            runs.remove(name)
            kept.append(server_tools.bounded(tool, target))
            if server_tools.loses_callers(tool):
                lost.append(f"tools[{index}].allowed_callers")
        elif kind in (None, "custom") or str(kind).startswith(_OF_THE_CALLER):
            kept.append(tool)
        else:
            lost.append(f"tools[{index}]")
    names = [tool.get("name") for tool in kept]
    if choice.get("type") == "tool" and choice.get("name") not in names:
        raise bad_field("tool_choice", "tool_choice forces a tool that is not offered here.")
    if choice.get("type") == "any" and not kept:
        raise bad_field("tool_choice", "tool_choice demands a tool, and none of these is offered here.")
    return kept


def _leave_room(body: Block) -> None:
    """A budget must be below the bound on the output, which was perhaps cut."""
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and type(thinking.get("budget_tokens")) is int:
        most = max(body["max_tokens"] - 1, _LEAST_BUDGET)
        if thinking["budget_tokens"] > most:
            body["thinking"] = {**thinking, "budget_tokens": most}


def _turn(message: Block) -> Block | None:
    """A turn without what only other vendors can read; None where nothing is left of it."""
    content = message["content"]
    if type(content) is not list:
        return message
    blocks = [_clean(block) for block in content if not _is_foreign(block)]
    return {**message, "content": blocks} if blocks or not content else None


def _is_foreign(block: Block) -> bool:
    """Anthropic takes no thought that it did not sign."""
    return block["type"] == "thinking" and (not block.get("signature") or is_packed(block["signature"]))


def _clean(block: Block) -> Block:
    for name in ("id", "tool_use_id"):
        call_id = block.get(name)
        if type(call_id) is str and _FOREIGN_ID.search(call_id) is not None:
            block = {**block, name: _FOREIGN_ID.sub("_", call_id)}
    return block


def _shorten(body: Block) -> bool:
    """Let the cache keep for five minutes what the caller wants it to keep for longer; whether there was any."""
    found = []

    def shorten(holder: Any) -> Any:
        if not isinstance(holder, dict):
            return holder
        mark = holder.get("cache_control")
        if isinstance(mark, dict) and mark.get("ttl", "5m") != "5m":
            found.append(mark)
            holder = {**holder, "cache_control": {name: each for name, each in mark.items() if name != "ttl"}}
        return _each(holder, "content", shorten)

    for name in ("messages", "system", "tools"):
        body |= _each(body, name, shorten)
    body |= shorten({name: body[name] for name in ("cache_control",) if name in body})
    return bool(found)


def _each(holder: Block, name: str, change: Callable[[Any], Any]) -> Block:
    inner = holder.get(name)
    return {**holder, name: [change(each) for each in inner]} if isinstance(inner, list) else holder


def _betas(betas: tuple[str, ...], model: OfferedModel, target: Target) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(those that are told to the upstream, those that may cost what nobody held for)."""
    priced = (*_PRICED_BETAS, *server_tools.betas_of(target))
    if model.context_length > _STANDARD_CONTEXT:
        priced += (_LONG_CONTEXT,)
    return (
        tuple(name for name in betas if name.startswith(priced)),
        tuple(name for name in betas if not name.startswith(priced)),
    )
