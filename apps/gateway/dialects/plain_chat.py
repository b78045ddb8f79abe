"""A chat that was made of another dialect's request, as OpenAI and all who speak like it take it. Pure.

What such a chat has beside OpenAI's own fields (marks for caches, signed thoughts, images in results of tools) is for
upstreams that have a place for it. Vendors refuse fields that they do not know."""

import re
from typing import Any, Final

from apps.gateway.dialects.order import ORDER
from apps.gateway.dialects.thoughts import OPENAI, is_claudes
from apps.gateway.errors import bad_field

_REASONS: Final = re.compile(
    r"(^|[/_.:-])o[1-9]\b|gpt-(?:[5-9]|oss|[1-9]\d)|deepseek|qwq|qwen-?3|qwen-?[4-9]|grok-[3-9]|glm-[4-9]|kimi-k[2-9]|magistral"
    r"|minimax-m|gemini-(?:2\.5|[3-9])|claude-(?:[a-z]+-)?[4-9]|think|reason|nemotron|(^|[/_.:-])r1\b",
    re.IGNORECASE,
)
"""Names of models that take an effort: others refuse the request for it."""
_CALLED: Final = ("function", "custom")
_ONLY_ELSEWHERE: Final = ("top_k", "cache_control")
_ONLY_ELSEWHERE_IN_MESSAGES: Final = ("cache_control", "is_error", ORDER)
_SAID: Final = ("content", "refusal", "tool_calls")
_GOOGLES: Final = "gemini"
"""In the names of models that take back what Google signed its calls with, in Google's own words."""


def takes_effort(upstream_model: str) -> bool:
    """Whether a model can be told how long to think, as far as its name says."""
    return _REASONS.search(upstream_model) is not None


def plain_chat(body: dict[str, Any], upstream_model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the chat in OpenAI's own fields, what is lost by that). Raises GatewayError (400) for a forced tool that is none
    of its functions."""
    lost: set[str] = {name for name in _ONLY_ELSEWHERE if name in body}
    takes_signatures = _GOOGLES in upstream_model.lower()
    plain = {name: value for name, value in body.items() if name not in _ONLY_ELSEWHERE}
    if "reasoning_effort" in plain and not takes_effort(upstream_model):
        del plain["reasoning_effort"]
        lost.add("reasoning_effort")
    if tools := body.get("tools"):
        plain["tools"] = [_without_mark(tool, lost) for tool in tools]
    _check_forced(body)
    messages = body["messages"]
    turn = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
    plain["messages"] = made = []
    shown: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        if shown and message["role"] != "tool":
            made.append({"role": "user", "content": shown})
            shown = []
        if message["role"] != "assistant" or any(message.get(name) is not None for name in _SAID):
            plain_message = _plain_message(message, lost, shown, is_running=place > turn)
            if "tool_calls" in plain_message and not takes_signatures:
                plain_message["tool_calls"] = [_unsigned(call, lost) for call in plain_message["tool_calls"]]
            made.append(plain_message)
    if shown:
        made.append({"role": "user", "content": shown})
    return plain, tuple(sorted(lost))


def _check_forced(body: dict[str, Any]) -> None:
    """A tool that only its vendor can run was left out: to answer without it would be another answer."""
    choice, tools = body.get("tool_choice"), [tool[tool["type"]]["name"] for tool in body.get("tools") or ()]
    name = choice[choice["type"]]["name"] if isinstance(choice, dict) and choice.get("type") in _CALLED else None
    if (name is not None and name not in tools) or (choice == "required" and not tools):
        raise bad_field("tool_choice", "tool_choice forces a tool that this model's provider cannot run.")


def _plain_message(
    message: dict[str, Any], lost: set[str], shown: list[dict[str, Any]], *, is_running: bool
) -> dict[str, Any]:
    """`shown` gets what a tool's result has beside text: OpenAI takes that from the user only. Thoughts that nobody
    signed go back to whoever had them, as long as their turn runs."""
    plain = {name: value for name, value in message.items() if name not in _ONLY_ELSEWHERE_IN_MESSAGES}
    lost.update(name for name in _ONLY_ELSEWHERE_IN_MESSAGES if name in message)
    if isinstance(plain.get("content"), list):
        parts = [_without_mark(part, lost) for part in plain["content"]]
        if message["role"] == "tool":
            shown += [part for part in parts if part["type"] != "text"]
            parts = [part for part in parts if part["type"] == "text"]
        plain["content"] = _as_text(parts, message["role"])
    if "tool_calls" in plain:
        plain["tool_calls"] = [_without_mark(call, lost) for call in plain["tool_calls"]]
    if not is_running:
        plain.pop("reasoning_content", None)
    if details := plain.pop("reasoning_details", None):
        others = [entry for entry in details if not is_claudes(entry) and entry.get("format") != OPENAI]
        if len(others) < len(details):
            lost.add("thinking")
        if others:
            plain["reasoning_details"] = others
    return plain


def _without_mark(holder: dict[str, Any], lost: set[str]) -> dict[str, Any]:
    if "cache_control" not in holder:
        return holder
    lost.add("cache_control")
    return {name: value for name, value in holder.items() if name != "cache_control"}


def _unsigned(call: dict[str, Any], lost: set[str]) -> dict[str, Any]:
    if "extra_content" not in call:
        return call
    lost.add("thinking")
    return {name: value for name, value in call.items() if name != "extra_content"}


def _as_text(parts: list[dict[str, Any]], role: str) -> Any:
    """Text in one piece, which every server takes; parts of the user's stay parts if there are more of them."""
    if any(part["type"] != "text" for part in parts) or (role == "user" and len(parts) > 1):
        return parts
    return ("\n\n" if role == "system" else "\n" if role == "tool" else "").join(part["text"] for part in parts)
