"""What of a vendor's chat completion may leave: the fields that OpenAI publishes and those of the hub, and why it may
end. Pure.

What vendors put beside that says who they are, or what no client reads. Their quirks, each with its source:
tests/conformance/vendors/."""

from typing import Any, Final

from apps.gateway.dialects.order import ORDER
from apps.gateway.errors import UPSTREAM_FAILED, UPSTREAM_OVERLOADED, GatewayError

PUBLIC_FIELDS: Final[tuple[str, ...]] = (
    "id",
    "object",
    "created",
    "model",
    "choices",
    "service_tier",
    "system_fingerprint",
)
"""What may leave of an answer's top level."""
STOP_REASON: Final = "stop_reason"
"""Field of a choice: the stop sequence that it met, where its upstream tells. vLLM's name for it."""
_MATCHED_STOP: Final = "matched_stop"
"""SGLang's."""
OF_CHOICE: Final = frozenset(("index", "delta", "message", "finish_reason", "logprobs", STOP_REASON))
OF_MESSAGE: Final = frozenset((
    "role", "content", "refusal", "tool_calls", "function_call", "annotations", "audio", "images", "reasoning_content",
    "reasoning", "reasoning_details", "extra_content", ORDER,
))  # fmt: skip
"""Of a message, or of a piece of one."""
NEVER_NULL: Final = ("tool_calls", "function_call", "annotations", "audio", "reasoning_content", "reasoning")
TIERS: Final = ("auto", "default", "flex", "scale", "priority", None)
"""Groq has others."""
REASONS: Final = ("stop", "length", "tool_calls", "content_filter", "function_call", None)
_OTHERS: Final = {
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "model_length": "length",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
}
"""Together, xAI, Mistral, Z.AI, and who speaks for Anthropic. A reason that is not known here is one to stop."""
_BROKEN: Final = {
    "error": UPSTREAM_FAILED,
    "network_error": UPSTREAM_FAILED,
    "abort": UPSTREAM_FAILED,
    "insufficient_system_resource": UPSTREAM_OVERLOADED,
}
"""Mistral and OpenRouter, Z.AI, vLLM and SGLang, DeepSeek: the answer is not whole."""
_OVERLOADED: Final = (429, 503, 529)


def reason_as_published(reason: str, *, has_calls: bool) -> str:
    """The published reason that this one stands for."""
    known = reason if reason in REASONS else _OTHERS.get(reason.lower(), "stop")
    return known or ("tool_calls" if has_calls else "stop")


def failure_of(choice: dict[str, Any]) -> GatewayError | None:
    """What a choice says that broke off, although its answer came with 200; None for any other."""
    reason, error = choice.get("finish_reason"), choice.get("error")
    if reason in REASONS and error is None:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    kind = UPSTREAM_OVERLOADED if code in _OVERLOADED else _BROKEN.get(str(reason).lower())
    if kind is None and not error:
        return None
    return GatewayError(kind or UPSTREAM_FAILED, "The upstream broke off before the answer was complete.")


def strip(choice: dict[str, Any]) -> bool:
    """Take from a choice what may not leave; whether there was anything."""
    is_changed = _name_stop(choice)
    others = [name for name in choice if name not in OF_CHOICE]
    for name in others:
        del choice[name]
    holder = choice.get("delta") if "delta" in choice else choice.get("message")
    if not isinstance(holder, dict):
        return is_changed or bool(others)
    inner = [name for name in holder if name not in OF_MESSAGE]
    inner += [name for name in NEVER_NULL if name in holder and holder[name] is None]
    for name in inner:
        del holder[name]
    return is_changed or bool(others or inner)


def _name_stop(choice: dict[str, Any]) -> bool:
    """SGLang names it otherwise. Where a token ended the answer, and no text, vendors tell its id, which says nothing
    to a caller. Whether anything was to be done."""
    is_renamed = _MATCHED_STOP in choice
    met = choice.pop(_MATCHED_STOP, None)
    if isinstance(met, str):
        choice.setdefault(STOP_REASON, met)
    if isinstance(choice.get(STOP_REASON, ""), str):
        return is_renamed
    del choice[STOP_REASON]
    return True


def public_chat(answer: dict[str, Any], *, completion_id: str, model: str, usage: dict[str, Any]) -> dict[str, Any]:
    """A chat completion under our names, its times as told."""
    ours = {name: answer[name] for name in PUBLIC_FIELDS if name in answer and name != "system_fingerprint"}
    for choice in ours["choices"]:
        if isinstance(message := choice.get("message"), dict):
            message.pop(ORDER, None)  # for dialects that have a place for it
    return {**ours, "object": "chat.completion", "id": completion_id, "model": model, "usage": usage}
