"""Vendors' usage objects into disjoint token buckets, and our own estimates where there is none. Pure."""

from collections.abc import Mapping
from typing import Any

from apps.usage.contracts import TokenCounts

BYTES_PER_TOKEN = 4
"""Our estimate where the upstream tells nothing: published in docs/metering.md."""


class UsageInvalid(ValueError):
    """A usage object that cannot be billed: a wrong type, a negative or absurd number, parts above their total."""


def from_openai(usage: object, *, bound: int) -> TokenCounts:
    """OpenAI's CompletionUsage: cached tokens are part of `prompt_tokens`, reasoning is part of `completion_tokens`.

    `bound` is the most tokens that prompt or completion can have. Raises UsageInvalid.
    Source: the `CompletionUsage` schema of OpenAI's API reference."""
    if not isinstance(usage, Mapping):
        raise UsageInvalid("usage is no object")
    prompt = _count(usage, "prompt_tokens")
    completion = _count(usage, "completion_tokens")
    if max(prompt, completion) > bound:
        raise UsageInvalid(f"more tokens than the model can have: {prompt} in, {completion} out")
    prompt_details = _details(usage, "prompt_tokens_details")
    cache_read = _count(prompt_details, "cached_tokens", default=0)
    cache_write = _count(prompt_details, "cache_write_tokens", default=0)
    reasoning = _count(_details(usage, "completion_tokens_details"), "reasoning_tokens", default=0)
    if cache_read + cache_write > prompt or reasoning > completion:
        raise UsageInvalid("a part of the tokens is larger than their total")
    return TokenCounts(
        input=prompt - cache_read - cache_write,
        cache_read=cache_read,
        cache_write=cache_write,
        output=completion - reasoning,
        reasoning=reasoning,
    )


def to_openai(tokens: TokenCounts) -> dict[str, Any]:
    """The buckets as OpenAI's CompletionUsage."""
    prompt = tokens.input + tokens.cache_read + tokens.cache_write
    completion = tokens.output + tokens.reasoning
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cache_read,
            "cache_write_tokens": tokens.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def estimate_tokens(text_bytes: int) -> int:
    """Tokens in so many bytes of UTF-8 text, rounded down so that an estimate bills too little; 0 only for 0."""
    return max(text_bytes // BYTES_PER_TOKEN, min(text_bytes, 1))


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    if details is None:
        return {}
    if not isinstance(details, Mapping):
        raise UsageInvalid(f"{name} is no object")
    return details


def _count(usage: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    """The number under `name`. Missing differs from zero: without a default it is an error."""
    value = usage.get(name)
    if value is None and default is not None:
        return default
    if type(value) is not int or value < 0:
        raise UsageInvalid(f"{name} is {value!r}")
    return value
