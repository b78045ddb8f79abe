"""How Claude is asked to reason, how its thoughts reach our callers, and how they come back in the next turn. Pure.

Sources: the pages on extended thinking, adaptive thinking and effort in Anthropic's documentation, its migration guides
for Claude 4.6, 4.7 and 5, and the `thinking` types of its SDK.
"""

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from apps.gateway.dialects.thoughts import CLAUDE
from apps.gateway.errors import bad_field

LEAST_BUDGET: Final = 1_024
MOST_BUDGET: Final = 32_000
"""Anthropic advises against longer thinking outside of batches."""
_SHARE_OF_OUTPUT: Final = {"minimal": 8, "low": 4, "medium": 2, "high": 1.5, "xhigh": 1.25, "max": 1.25}
"""Effort -> the output that is allowed, divided by this, is the budget for thinking."""
_EFFORTS: Final = {"minimal": "low", **{word: word for word in ("low", "medium", "high", "xhigh", "max")}}
_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[.-](\d{1,2}))?(?!\d)")
_NEWEST: Final = (99, 0)


class Habits(NamedTuple):
    """What a generation of models does and takes."""

    adaptive: bool
    """It decides itself how long to think, by effort; else it wants a budget in tokens."""
    samples: bool
    """It takes temperature and top_p."""
    thinks_unasked: bool
    knows_xhigh: bool


@lru_cache(maxsize=1_024)
def habits_of(upstream_model: str, wish: str) -> Habits:
    """By the model's name: Claude thinks adaptively since 4.6, and takes no sampling parameters since 4.7. What speaks
    this dialect under another name is taken for an early one. `wish` is the option `thinking` of the provider."""
    version = _version(upstream_model)
    return Habits(
        adaptive=version >= (4, 6) if wish == "auto" else wish == "adaptive",
        samples=version < (4, 7),
        thinks_unasked=version >= (5, 0),
        knows_xhigh=version >= (4, 7),
    )


def is_claude(upstream_model: str) -> bool:
    """By the name that its vendor, AWS and Google give it."""
    return "claude-" in upstream_model


def _version(upstream_model: str) -> tuple[int, int]:
    if found := _VERSION.search(upstream_model):
        return int(found[1]), int(found[2] or 0)
    return _NEWEST if is_claude(upstream_model) else (0, 0)


def asked_effort(body: dict[str, Any]) -> str | None:
    """The effort that the caller asks for: `none`, one of the known words, or None when it does not say.

    Raises GatewayError (400)."""
    field, effort = "reasoning_effort", body.get("reasoning_effort")
    if effort is None and isinstance(body.get("reasoning"), dict):
        field, effort = "reasoning.effort", body["reasoning"].get("effort")
    if effort is None or effort == "none" or (isinstance(effort, str) and effort in _EFFORTS):
        return effort
    raise bad_field(field, f"{field} must be one of: none, {', '.join(_EFFORTS)}.")


def thinking_fields(effort: str, habits: Habits, max_tokens: int) -> dict[str, Any]:
    """The fields that ask for thinking; {} where it cannot be had: a budget must leave room for the answer."""
    if habits.adaptive:
        level = "high" if effort == "xhigh" and not habits.knows_xhigh else _EFFORTS[effort]
        return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": level}}
    budget = max(LEAST_BUDGET, min(int(max_tokens / _SHARE_OF_OUTPUT[effort]), MOST_BUDGET))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget < max_tokens else {}


def detail(block: dict[str, Any], index: int) -> dict[str, Any]:
    """A thinking block as an entry of `reasoning_details`: whole, with what proves that it is genuine."""
    if block.get("type") == "redacted_thinking":
        return {"type": "reasoning.encrypted", "data": block.get("data"), "format": CLAUDE, "index": index}
    return {
        "type": "reasoning.text",
        "text": block.get("thinking"),
        "signature": block.get("signature"),
        "format": CLAUDE,
        "index": index,
    }


def thinking_blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The thoughts that a caller sends back with an earlier answer. Those without a signature are left out: Anthropic
    takes none that it cannot prove its own."""
    details = message.get("reasoning_details")
    blocks = []
    for entry in details if isinstance(details, list) else ():
        if not isinstance(entry, dict) or entry.get("format", CLAUDE) != CLAUDE:
            continue
        text, signature, sealed = entry.get("text"), entry.get("signature"), entry.get("data")
        if entry.get("type") == "reasoning.text" and isinstance(signature, str) and signature:
            thought = text if isinstance(text, str) else ""
            blocks.append({"type": "thinking", "thinking": thought, "signature": signature})
        elif entry.get("type") == "reasoning.encrypted" and isinstance(sealed, str):
            blocks.append({"type": "redacted_thinking", "data": sealed})
    return blocks
