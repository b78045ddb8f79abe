"""A Chat Completions request as one of OpenAI's Responses API, and the names of what has no place in it. Pure.

Source: `ResponseCreateParams` and `ResponseInputItem` in the Responses reference of OpenAI.
"""

from collections.abc import Iterator
from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.messages.request import MessagesRequest
from apps.gateway.dialects.plain_chat import takes_effort
from apps.gateway.dialects.responses.request import ENCRYPTED, LOGPROBS, ResponsesRequest
from apps.gateway.dialects.translated_chat import TranslatedChat
from apps.gateway.errors import bad_field
from apps.gateway.providers.conversation import COMMON_FIELDS, output_limit, unexpressed, wanted_schema
from apps.gateway.providers.loss import refuse_unknown
from apps.gateway.providers.openai_responses_input import input_items

_SAME: Final = (
    "temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "service_tier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
_KNOWN: Final = COMMON_FIELDS | {
    *_SAME, "reasoning_effort", "reasoning", "response_format", "verbosity", "logprobs", "top_logprobs",
}  # fmt: skip
_EXPRESSED: Final = ("image_url.detail",)
"""What others have no words for and this dialect has."""
_SUMMARIES: Final = ("auto", "concise", "detailed")


def responses_request(chat: ChatRequest, model: OfferedModel, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request in this dialect, and the fields that are lost in it. Raises GatewayError (400) for what would change
    the answer if it were left out."""
    body = chat.body
    refuse_inexpressible(body)
    custom = {f"tools[{index}]" for index, tool in enumerate(body.get("tools") or ()) if _is_custom(tool)}
    lost = [name for name in unexpressed(body, _KNOWN) if name not in custom and name not in _EXPRESSED]
    if any("cache_control" in holder for tool in body.get("tools") or () for holder in _holders(tool)):
        lost.append("cache_control")
    request: dict[str, Any] = {
        "model": target.upstream_model,
        "input": input_items(body["messages"], lost, lambda sealed: chat.can_open(sealed, target)),
        "store": False,
        "max_output_tokens": output_limit(chat, model),
    }
    request |= {name: body[name] for name in _SAME if body.get(name) is not None}
    request |= _tools(body)
    if text := _text(body):
        request["text"] = text
    if chat.stream:
        request["stream"] = True
    include = _reasoning(chat, target, request, lost=lost)
    if body.get("logprobs") is True:
        include.append(LOGPROBS)
        request["top_logprobs"] = body.get("top_logprobs") or 0
    if include:
        request["include"] = include
    if target.is_sandbox and "sandbox" in lost:
        lost.remove("sandbox")
        request["sandbox"] = body["sandbox"]
    return request, tuple(dict.fromkeys(lost))


def refuse_inexpressible(body: dict[str, Any]) -> None:
    """Raises GatewayError (400) for a field of a chat that would change the answer if it were left out."""
    refuse_unknown(body, _KNOWN)


def _holders(tool: Any) -> Iterator[dict[str, Any]]:
    """Where a mark for the cache can stand: at a tool, and at its function."""
    if isinstance(tool, dict):
        yield tool
        if isinstance(tool.get("function"), dict):
            yield tool["function"]


def _is_custom(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "custom" and isinstance(tool.get("custom"), dict)


def _tools(body: dict[str, Any]) -> dict[str, Any]:
    """Functions and custom tools, and the choice among them. Raises GatewayError (400)."""
    tools = []
    for index, tool in enumerate(body.get("tools") or ()):
        if _is_custom(tool):
            tools.append(_custom(tool["custom"], f"tools[{index}].custom"))
        elif tool.get("type", "function") == "function":
            tools.append(_function(tool.get("function"), f"tools[{index}].function"))
    choice = _choice(body.get("tool_choice"), tools)
    made: dict[str, Any] = {"tools": tools} if tools else {}
    return made | ({"tool_choice": choice} if choice not in (None, "auto") and tools else {})


def _function(function: Any, place: str) -> dict[str, Any]:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise bad_field(place, "A function must be an object with a name.")
    parameters = function.get("parameters")
    made: dict[str, Any] = {
        "type": "function",
        "name": function["name"],
        "parameters": parameters if isinstance(parameters, dict) else {"type": "object", "properties": {}},
        "strict": function.get("strict") is True,  # silence means true here
    }
    return made | ({"description": function["description"]} if function.get("description") else {})


def _custom(custom: dict[str, Any], place: str) -> dict[str, Any]:
    if not isinstance(custom.get("name"), str) or not custom["name"]:
        raise bad_field(f"{place}.name", "A tool must have a name, which is a string.")
    made: dict[str, Any] = {"type": "custom", "name": custom["name"]}
    if custom.get("description"):
        made["description"] = custom["description"]
    wanted = custom.get("format")
    if isinstance(wanted, dict) and isinstance(wanted.get("grammar"), dict):
        made["format"] = {"type": "grammar", **wanted["grammar"]}
    elif isinstance(wanted, dict):
        made["format"] = wanted
    return made


def _choice(choice: Any, tools: list[dict[str, Any]]) -> Any:
    if choice in (None, "auto", "none"):
        return choice
    if choice == "required":
        if not tools:
            raise bad_field("tool_choice", "tool_choice requires a call, and there is no tool that can be called.")
        return choice
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools")
        named = allowed.get("tools") if isinstance(allowed, dict) else None
        if not isinstance(named, list):
            raise bad_field("tool_choice.allowed_tools", "allowed_tools must be an object with a list of tools.")
        among = [each for tool in named if (each := _named(tool, tools)) is not None]
        return {"type": "allowed_tools", "mode": allowed.get("mode") or "auto", "tools": among}
    forced = _named(choice, tools)
    if forced is None:
        raise bad_field("tool_choice", "tool_choice forces a tool that this model's provider cannot run.")
    return forced


def _named(choice: Any, tools: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The tool that a choice names, in this dialect's words; None where it is not among these."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    holder = choice.get(kind) if isinstance(kind, str) else None
    name = holder.get("name") if isinstance(holder, dict) else None
    is_there = any((tool["type"], tool["name"]) == (kind, name) for tool in tools)
    return {"type": kind, "name": name} if is_there else None


def _text(body: dict[str, Any]) -> dict[str, Any]:
    text: dict[str, Any] = {"verbosity": body["verbosity"]} if body.get("verbosity") else {}
    kind, schema = wanted_schema(body)
    if kind == "json_object":
        return {**text, "format": {"type": "json_object"}}
    if kind == "json_schema":
        described = body["response_format"]["json_schema"]
        made = {"type": "json_schema", "name": described.get("name") or "answer", "schema": schema}
        made |= {name: described[name] for name in ("description", "strict") if described.get(name) is not None}
        return {**text, "format": made}
    return text


def _reasoning(chat: ChatRequest, target: Target, request: dict[str, Any], *, lost: list[str]) -> list[str]:
    """Put into the request how to reason; what the answer is to bring of it. Who does not reason, as far as its name
    says, refuses an effort that we worked out, and to seal what it does not have."""
    body, reasons = chat.body, takes_effort(target.upstream_model)
    given: dict[str, Any] = body["reasoning"] if isinstance(body.get("reasoning"), dict) else {}
    field = "reasoning_effort" if body.get("reasoning_effort") is not None else "reasoning"
    effort = body.get("reasoning_effort") or given.get("effort")
    if (effort or given) and not reasons and (field == "reasoning" or isinstance(chat, TranslatedChat)):
        lost.append(field)
        return []
    reasoning: dict[str, Any] = {"effort": effort} if effort else {}
    if reasons and target.options.get("summaries", "auto") != "never" and (summary := _summary(chat, given)):
        reasoning["summary"] = summary
    if reasoning:
        request["reasoning"] = reasoning
    return [ENCRYPTED] if reasons else []


def _summary(chat: ChatRequest, given: dict[str, Any]) -> str:
    """How a summary of thoughts is asked for; "" where nobody wants to see any."""
    if given.get("exclude") is True or "none" in (chat.body.get("reasoning_effort"), given.get("effort")):
        return ""
    if given.get("summary") in _SUMMARIES:
        return str(given["summary"])
    if isinstance(chat, MessagesRequest | ResponsesRequest):
        return "auto" if chat.shows_thoughts else ""
    return "auto" if given or chat.body.get("reasoning_effort") else ""
