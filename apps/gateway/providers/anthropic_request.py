"""A Chat Completions request as one of Anthropic's Messages API, and the names of what has no place in it. Pure.

Source: `MessageCreateParams` in the Messages API reference of Anthropic.
"""

from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.errors import bad_field
from apps.gateway.providers.anthropic_messages import answers_tools_without_thoughts, conversation
from apps.gateway.providers.anthropic_thinking import Habits, asked_effort, habits_of, thinking_fields
from apps.gateway.providers.conversation import (
    COMMON_FIELDS,
    is_function,
    output_limit,
    unexpressed,
)
from apps.gateway.providers.loss import refuse_unknown

MOST_TEMPERATURE: Final = 1
MAX_USER_CHARACTERS: Final = 256
_TIERS: Final = {"auto": "auto", "priority": "auto", "default": "standard_only"}
"""OpenAI's tiers as Anthropic's. `priority` is what it has when it can; its usage says whether it did."""
_PASSED: Final = ("thinking", "cache_control")
"""Objects of Anthropic's own that callers write beside OpenAI's fields, as is `top_k`."""
_KNOWN: Final = COMMON_FIELDS | {
    *_PASSED, "top_k", "temperature", "top_p", "stop", "parallel_tool_calls", "reasoning_effort", "reasoning",
    "response_format", "user", "safety_identifier", "service_tier",
}  # fmt: skip


def losses(chat: ChatRequest, model: OfferedModel, target: Target) -> tuple[str, ...]:
    """The fields of the request that Anthropic will not see, or not as they were written. Raises GatewayError (400) for
    a request that cannot be expressed at all."""
    return messages_request(chat, model, target)[1]


def messages_request(chat: ChatRequest, model: OfferedModel, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request in this dialect, and the fields that are lost in it. Raises GatewayError (400) for what would change
    the answer if it were left out."""
    body = chat.body
    refuse_unknown(body, _KNOWN)
    habits = habits_of(target.upstream_model, target.options.get("thinking", "auto"))
    lost = list(unexpressed(body, _KNOWN))
    system, turns = conversation(body["messages"])
    request: dict[str, Any] = {
        "model": target.upstream_model,
        "max_tokens": output_limit(chat, model),
        "messages": turns,
    }
    if system:
        request["system"] = system
    if chat.stream:
        request["stream"] = True
    request |= _passed(body)
    request |= _tools(body)
    request |= _thinking(body, request, habits, lost=lost)
    thinks = request.get("thinking", {"type": "disabled"}).get("type") != "disabled"
    request |= _sampling(body, takes_any=habits.samples and not thinks, lost=lost)
    request |= _stop_sequences(body.get("stop"))
    request |= _identity(body, lost)
    if output_format := _output_format(body.get("response_format")):
        request["output_config"] = {**request.get("output_config", {}), "format": output_format}
    if not sells_an_hour(model) and _shorten_cache_marks(request):
        lost.append("cache_control.ttl")
    return request, tuple(lost)


def sells_an_hour(model: OfferedModel) -> bool:
    """Whether keeping input in a cache for an hour, which Anthropic charges more for, has a price of its own."""
    return any(price.cache_write_1h is not None for price in model.prices)


def _shorten_cache_marks(request: dict[str, Any]) -> bool:
    """Let the cache keep for five minutes what the caller wants it to keep for longer; whether there was any."""
    turns = [block for turn in request["messages"] for block in turn["content"]]
    results = [block["content"] for block in turns if isinstance(block.get("content"), list)]
    inner = [block for content in results for block in content]
    found = False
    for holder in (request, *request.get("system", ()), *request.get("tools", ()), *turns, *inner):
        mark = holder.get("cache_control")
        if isinstance(mark, dict) and mark.get("ttl", "5m") != "5m":
            holder["cache_control"] = {name: value for name, value in mark.items() if name != "ttl"}
            found = True
    return found


def _passed(body: dict[str, Any]) -> dict[str, Any]:
    fields = {name: body[name] for name in _PASSED if body.get(name) is not None}
    for name, value in fields.items():
        if not isinstance(value, dict):
            raise bad_field(name, f"{name} must be an object.")
    return fields


def _tools(body: dict[str, Any]) -> dict[str, Any]:
    listed = enumerate(body.get("tools") or ())
    tools = [_tool(tool, f"tools[{index}]") for index, tool in listed if is_function(tool)]
    choice = _tool_choice(body.get("tool_choice"), [tool["name"] for tool in tools])
    if not tools:
        return {}
    if body.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return {"tools": tools} | ({"tool_choice": choice} if choice else {})


def _tool(tool: dict[str, Any], place: str) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad_field(f"{place}.function.name", "A function must have a name, which is a string.")
    mapped: dict[str, Any] = {"name": function["name"]}
    if isinstance(function.get("description"), str) and function["description"]:
        mapped["description"] = function["description"]
    schema = function.get("parameters")
    mapped["input_schema"] = {"type": "object", **schema} if isinstance(schema, dict) else {"type": "object"}
    if function.get("strict") is True:
        mapped["strict"] = True
    marked = tool.get("cache_control") or function.get("cache_control")
    return mapped | ({"cache_control": marked} if isinstance(marked, dict) else {})


def _tool_choice(choice: object, names: list[str]) -> dict[str, Any] | None:
    """None where nothing has to be said: Claude chooses itself."""
    if choice in (None, "auto"):
        return None
    if choice == "none":
        return {"type": "none"}
    if not names:
        raise bad_field("tool_choice", "tool_choice demands a tool, but there are no tools.")
    if choice == "required":
        return {"type": "any"}
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad_field("tool_choice", "tool_choice must be none, auto, required or name a function.")
    if function["name"] not in names:
        raise bad_field("tool_choice", "tool_choice forces a tool that this model's provider cannot run.")
    return {"type": "tool", "name": function["name"]}


def _thinking(body: dict[str, Any], request: dict[str, Any], habits: Habits, *, lost: list[str]) -> dict[str, Any]:
    effort = asked_effort(body)
    field = "reasoning_effort" if body.get("reasoning_effort") is not None else "reasoning"
    if body.get("reasoning") and (field == "reasoning_effort" or effort is None):
        lost.append("reasoning")
    if effort is None or "thinking" in request:
        return {}
    if effort == "none":
        if not habits.thinks_unasked:
            return {}
        lost.append(field)
        return {"output_config": {"effort": "low"}}
    is_forced = request.get("tool_choice", {}).get("type") in ("any", "tool")
    is_torn = not habits.adaptive and answers_tools_without_thoughts(request["messages"])
    fields = {} if is_forced or is_torn else thinking_fields(effort, habits, request["max_tokens"])
    if not fields:
        lost.append(field)
    return fields


def _sampling(body: dict[str, Any], *, takes_any: bool, lost: list[str]) -> dict[str, Any]:
    """One of temperature and top_p, and top_k, where the model takes any: Claude refuses both together, and all of them
    beside thinking. The value 1 is what it does by itself."""
    asked = {name: body[name] for name in ("temperature", "top_p") if body.get(name) not in (None, 1)}
    fields: dict[str, Any] = {}
    if takes_any and asked:
        name, value = next(iter(asked.items()))
        fields[name] = min(value, MOST_TEMPERATURE)
    if body.get("top_k") is not None:
        asked["top_k"] = body["top_k"]
        if takes_any:
            fields["top_k"] = body["top_k"]
    lost += [name for name, value in asked.items() if fields.get(name) != value]
    return fields


def _stop_sequences(stop: object) -> dict[str, Any]:
    sequences = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    if not all(sequence.strip() for sequence in sequences):
        raise bad_field("stop", "This model cannot stop at text that is blank.")
    return {"stop_sequences": sequences} if sequences else {}


def _identity(body: dict[str, Any], lost: list[str]) -> dict[str, Any]:
    """Whom the request is for, and how fast it should be."""
    fields: dict[str, Any] = {}
    field = "user" if body.get("user") else "safety_identifier"
    user = body.get(field)
    if isinstance(user, str) and 0 < len(user) <= MAX_USER_CHARACTERS:
        fields["metadata"] = {"user_id": user}
    elif user:
        lost.append(field)
    tier = body.get("service_tier")
    if tier in _TIERS:
        fields["service_tier"] = _TIERS[tier]
    elif tier:
        lost.append("service_tier")
    return fields


def _output_format(asked: object) -> dict[str, Any] | None:
    kind = asked.get("type") if isinstance(asked, dict) else None
    if not isinstance(asked, dict) or kind == "text":
        return None
    if kind != "json_schema":
        message = "This model answers in JSON by a schema only: use the type json_schema."
        raise bad_field("response_format.type", message)
    described = asked.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise bad_field("response_format.json_schema.schema", "schema must be an object.")
    return {"type": "json_schema", "schema": schema}
