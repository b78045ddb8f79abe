"""Vendors' usage objects into disjoint token buckets, and our own estimates where there is none. Pure.

What vendors tell overlaps: cached tokens are part of the prompt, reasoning is part of the completion, here and there
it is not. docs/metering.md has the shapes and the formulas; this is the only place that knows them. What fits no
formula is not billed as it was told: it becomes a `ToldUsage` that says why.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from apps.catalog.contracts import SERVICE_TIERS
from apps.gateway.dialects.vendor_json import write_json
from apps.usage.contracts import TokenCounts

BYTES_PER_TOKEN = 4
"""Our estimate where the upstream tells nothing: published in docs/metering.md."""
RAW_USAGE_BYTES: Final = 2_048
LONGEST_WORD: Final = 16
_BESIDE_DETAILS: Final = frozenset((
    "prompt_cache_hit_tokens",
    "prompt_cache_miss_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation",
    "cached_tokens",
    "num_cached_tokens",
    "prompt_token_details",
))  # fmt: skip
"""Where vendors tell of their caches, when they do so outside of OpenAI's details."""
_LITELLM_DETAILS: Final = frozenset(("cache_creation_tokens", "cache_creation_token_details"))
"""How LiteLLM names within the details what was written to a cache."""
_USUAL_NAMES: Final = frozenset((
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
    "cached_tokens", "audio_tokens", "reasoning_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens",
))  # fmt: skip
"""Of nearly all usage, and such as `_COUNT_NAME` allows: a look-up is less work than a match."""
_COUNT_NAME: Final = re.compile(r"[A-Za-z_]{1,40}([0-9]{1,2}[A-Za-z_]{1,40})?")
"""As `ephemeral_5m_input_tokens` and `promptTokenCount` are written; no credential is written so."""
_ABSURD: Final = 2**62
"""Far above any bound, and low enough that sums of counts can be told."""


class UsageInvalid(ValueError):
    """A usage object that cannot be billed: a wrong type, a negative or absurd number, parts that miss their total."""


@dataclass(frozen=True, slots=True)
class ToldUsage:
    """What an upstream told of its usage.

    `tokens` is None when it told nothing, or nothing that can be billed. `violation` is why somebody should look."""

    tokens: TokenCounts | None = None
    violation: str = ""
    said: object = None

    @property
    def raw(self) -> str:
        """The usage as it was told, in JSON, cut to RAW_USAGE_BYTES; "" when there was none."""
        if self.said is None:
            return ""
        try:
            return write_json(_without_texts(self.said))[:RAW_USAGE_BYTES].decode(errors="ignore")
        except RecursionError:
            return "nested too deeply"

    @property
    def service_tier(self) -> object:
        """The tier that Anthropic names within its usage; None where it does not stand there."""
        return self.said.get("service_tier") if isinstance(self.said, dict) else None

    def beside_output(self) -> "ToldUsage":
        """The same for a whole answer with output. Zero is a statement and is billed, but somebody should look."""
        if self.tokens is None or self.tokens.all_output:
            return self
        return ToldUsage(self.tokens, "no output tokens told for an answer that has output", self.said)


NOTHING_TOLD: Final = ToldUsage()


def read_usage(usage: object, *, bound: int) -> ToldUsage:
    """What a usage object tells, in whichever of the known shapes it is. `bound` is the most tokens that either side
    can have. Never raises: what cannot be billed is told as a violation. `None` is no usage: that is no violation."""
    if usage is None:
        return NOTHING_TOLD
    try:
        return ToldUsage(_tokens(usage, bound), "", usage)
    except UsageInvalid as error:
        return ToldUsage(None, str(error), usage)


def served_tier(asked: str, *told: object) -> str:
    """The service tier to bill: the one asked for, if the upstream confirms it; else "", the standard one."""
    return asked if asked in SERVICE_TIERS and asked in told else ""


def to_openai(tokens: TokenCounts) -> dict[str, Any]:
    """The buckets as OpenAI's CompletionUsage."""
    prompt, completion = tokens.all_input, tokens.all_output
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cache_read,
            "cache_write_tokens": tokens.cache_write + tokens.cache_write_1h,
            "audio_tokens": tokens.audio_input,
        },
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": tokens.audio_output,
        },
    }
    if tokens.image_input:
        usage["prompt_tokens_details"]["image_tokens"] = tokens.image_input
    if tokens.image_output:
        usage["completion_tokens_details"]["image_tokens"] = tokens.image_output
    return usage


def estimate_tokens(text_bytes: int) -> int:
    """Tokens in so many bytes of UTF-8 text, rounded down so that an estimate bills too little; 0 only for 0."""
    return max(text_bytes // BYTES_PER_TOKEN, min(text_bytes, 1))


def _tokens(usage: object, bound: int) -> TokenCounts:
    if not isinstance(usage, dict):
        raise UsageInvalid("usage is no object")
    if "prompt_tokens" in usage:
        tokens = _from_totals(usage, "prompt_tokens", "completion_tokens")
    elif "input_tokens_details" in usage or "total_tokens" in usage:
        tokens = _from_totals(usage, "input_tokens", "output_tokens")
    elif "promptTokenCount" in usage or "totalTokenCount" in usage:
        tokens = _from_gemini(usage)
    elif "inputTokens" in usage:
        tokens = _from_bedrock(usage)
    else:
        tokens = _from_anthropic(usage)
    if max(tokens.all_input, tokens.all_output) > bound:
        raise UsageInvalid(f"more tokens than the model can have: {tokens.all_input} in, {tokens.all_output} out")
    return tokens


def _from_totals(usage: dict[str, Any], prompt_name: str, completion_name: str) -> TokenCounts:
    """Totals with parts: OpenAI's CompletionUsage, its Responses API's, and all who speak like it.

    Source: the `CompletionUsage` and `ResponseUsage` schemas of OpenAI's API reference."""
    prompt, completion = _count(usage, prompt_name), _count(usage, completion_name)
    prompt_parts = _details(usage, f"{prompt_name}_details")
    parts = _details(usage, f"{completion_name}_details")
    if _BESIDE_DETAILS.isdisjoint(usage) and _LITELLM_DETAILS.isdisjoint(prompt_parts):
        cache_read = _optional(prompt_parts, "cached_tokens") or 0
        cache_write, cache_write_1h = _optional(prompt_parts, "cache_write_tokens") or 0, 0
    else:
        cache_read = _cached(usage, prompt_parts, prompt)
        cache_write, cache_write_1h = _written(usage, prompt_parts)
    rest = prompt - cache_read - cache_write - cache_write_1h
    audio_input = _optional(prompt_parts, "audio_tokens") or 0
    image_input = _optional(prompt_parts, "image_tokens") or 0
    if rest < 0 or audio_input + image_input > prompt:
        raise UsageInvalid("a part of the input tokens is larger than their total")
    # A cache holds media too, and nobody tells how much of what it served: the cache comes first, then media.
    audio_input = min(audio_input, rest)
    image_input = min(image_input, rest - audio_input)
    reasoning, completion = _reasoning(usage, parts, prompt=prompt, completion=completion)
    audio_output = _optional(parts, "audio_tokens") or 0
    image_output = _optional(parts, "image_tokens") or 0
    output = completion - reasoning - audio_output - image_output
    if output < 0:
        raise UsageInvalid("a part of the output tokens is larger than their total")
    return TokenCounts(
        input=rest - audio_input - image_input,
        cache_read=cache_read,
        cache_write=cache_write,
        cache_write_1h=cache_write_1h,
        audio_input=audio_input,
        image_input=image_input,
        output=output,
        reasoning=reasoning,
        audio_output=audio_output,
        image_output=image_output,
    )


def _cached(usage: dict[str, Any], parts: dict[str, Any], prompt: int) -> int:
    """Input that a cache served. At the top, DeepSeek tells hits and misses, which make the prompt together; Moonshot
    and Together tell `cached_tokens`; Mistral tells `num_cached_tokens`, and the details under two names."""
    hits, misses = _optional(usage, "prompt_cache_hit_tokens"), _optional(usage, "prompt_cache_miss_tokens")
    if hits is not None and misses is not None and hits + misses != prompt:
        raise UsageInvalid(f"{hits} cache hits and {misses} misses do not make {prompt} input tokens")
    told = (
        _optional(parts, "cached_tokens"),
        hits,
        _optional(usage, "cache_read_input_tokens"),
        _optional(usage, "cached_tokens"),
        _optional(usage, "num_cached_tokens"),
        _optional(_details(usage, "prompt_token_details"), "cached_tokens"),
    )
    return _agreed("cached tokens", *told)


def _written(usage: dict[str, Any], parts: dict[str, Any]) -> tuple[int, int]:
    """Input that was written to a cache: for five minutes (or nobody says for how long), and for an hour.

    Source: `cache_creation` in the Messages API reference of Anthropic. LiteLLM has the same numbers in its details."""
    by_time = _details(usage, "cache_creation") or _details(parts, "cache_creation_token_details")
    short, hour = _optional(by_time, "ephemeral_5m_input_tokens"), _optional(by_time, "ephemeral_1h_input_tokens")
    whole = None if short is None and hour is None else (short or 0) + (hour or 0)
    told = (
        _optional(parts, "cache_write_tokens"),
        _optional(parts, "cache_creation_tokens"),
        _optional(usage, "cache_creation_input_tokens"),
        whole,
    )
    return _agreed("tokens written to a cache", *told) - (hour or 0), hour or 0


def _reasoning(usage: dict[str, Any], parts: dict[str, Any], *, prompt: int, completion: int) -> tuple[int, int]:
    """(reasoning, output with reasoning). The total tells whether reasoning is part of the completion.

    It is at OpenAI, and at SGLang, which tells it at the top. At xAI it stands beside it. Google counts it in the total
    only and does not name it."""
    reasoning, total = _optional(parts, "reasoning_tokens"), _optional(usage, "total_tokens")
    if reasoning is None and "reasoning_tokens" in usage:
        reasoning = _optional(usage, "reasoning_tokens")
    if total is None or total == prompt + completion:
        return reasoning or 0, completion
    hidden = total - prompt - completion
    if hidden < 0 or reasoning not in (None, hidden):
        raise UsageInvalid(f"{prompt} tokens in and {completion} out do not make the total of {total}")
    return hidden, completion + hidden


def _from_anthropic(usage: dict[str, Any]) -> TokenCounts:
    """Anthropic's own shape, whose counts of input are disjoint already. Newer models tell which part of the output was
    reasoning.

    Source: the `Usage` schema of Anthropic's Messages API reference."""
    cache_write, cache_write_1h = _written(usage, {})
    plain, output = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    reasoning = _optional(_details(usage, "output_tokens_details"), "thinking_tokens") or 0
    if reasoning > output:
        raise UsageInvalid("a part of the output tokens is larger than their total")
    return TokenCounts(
        input=plain,
        cache_read=_optional(usage, "cache_read_input_tokens") or 0,
        cache_write=cache_write,
        cache_write_1h=cache_write_1h,
        output=output - reasoning,
        reasoning=reasoning,
    )


def _from_gemini(usage: dict[str, Any]) -> TokenCounts:
    """Google's `UsageMetadata`: what a cache served is part of the prompt, thoughts and what tools read stand beside.
    A count of zero is left out. Some models have their thoughts among the candidates: the total tells.

    Source: `UsageMetadata` and `ModalityTokenCount` in the reference of the Gemini API."""
    prompt, read_by_tools = _count(usage, "promptTokenCount"), _optional(usage, "toolUsePromptTokenCount") or 0
    cached = _optional(usage, "cachedContentTokenCount") or 0
    thoughts, candidates = _optional(usage, "thoughtsTokenCount") or 0, _optional(usage, "candidatesTokenCount") or 0
    total, beside = _optional(usage, "totalTokenCount"), prompt + read_by_tools + candidates
    if thoughts and total == beside:
        candidates -= thoughts
    elif total is not None and total != beside + thoughts:
        raise UsageInvalid(f"{beside} tokens and {thoughts} of thought do not make the total of {total}")
    rest = prompt + read_by_tools - cached
    media_in = _modalities(usage, "promptTokensDetails", "toolUsePromptTokensDetails")
    media_cached = _modalities(usage, "cacheTokensDetails")
    media_out = _modalities(usage, "candidatesTokensDetails")
    audio_output, image_output = media_out.get("AUDIO", 0), media_out.get("IMAGE", 0)
    output = candidates - audio_output - image_output
    if rest < 0 or output < 0 or media_in.get("AUDIO", 0) + media_in.get("IMAGE", 0) > prompt + read_by_tools:
        raise UsageInvalid("a part of the tokens is larger than their total")
    audio_input = min(max(media_in.get("AUDIO", 0) - media_cached.get("AUDIO", 0), 0), rest)
    image_input = min(max(media_in.get("IMAGE", 0) - media_cached.get("IMAGE", 0), 0), rest - audio_input)
    return TokenCounts(
        input=rest - audio_input - image_input,
        cache_read=cached,
        audio_input=audio_input,
        image_input=image_input,
        output=output,
        reasoning=thoughts,
        audio_output=audio_output,
        image_output=image_output,
    )


def _modalities(usage: dict[str, Any], *names: str) -> dict[str, int]:
    """Modality -> tokens, of all lists under these names."""
    counts: dict[str, int] = {}
    for name in names:
        told = usage.get(name)
        if told is not None and not isinstance(told, list):
            raise UsageInvalid(f"{name} is no list")
        for entry in told or ():
            if not isinstance(entry, dict):
                raise UsageInvalid(f"{name} has what is no object")
            modality = str(entry.get("modality"))
            counts[modality] = counts.get(modality, 0) + (_optional(entry, "tokenCount") or 0)
    return counts


def _from_bedrock(usage: dict[str, Any]) -> TokenCounts:
    """AWS's `TokenUsage`, whose counts of input are disjoint; the total may have the cache's among it or not. Reasoning
    is not told apart from output.

    Source: the shapes `TokenUsage` and `CacheDetail` in the service model of bedrock-runtime."""
    fresh, output = _count(usage, "inputTokens"), _count(usage, "outputTokens")
    cache_read = _optional(usage, "cacheReadInputTokens") or 0
    cache_write = _optional(usage, "cacheWriteInputTokens") or 0
    total = _optional(usage, "totalTokens")
    if total is not None and total not in (fresh + output, fresh + output + cache_read + cache_write):
        raise UsageInvalid(f"{fresh} tokens in and {output} out do not make the total of {total}")
    details = usage.get("cacheDetails") or []
    if not isinstance(details, list) or not all(isinstance(entry, dict) for entry in details):
        raise UsageInvalid("cacheDetails is no list of objects")
    hour = sum(_optional(entry, "inputTokens") or 0 for entry in details if entry.get("ttl") == "1h")
    if hour > cache_write:
        raise UsageInvalid("a part of the tokens is larger than their total")
    return TokenCounts(
        input=fresh, cache_read=cache_read, cache_write=cache_write - hour, cache_write_1h=hour, output=output
    )


def _agreed(what: str, *told: int | None) -> int:
    """The one number that everybody who tells one tells; 0 when nobody does."""
    numbers = {number for number in told if number is not None}
    if len(numbers) > 1:
        raise UsageInvalid(f"{what} are told differently: {', '.join(map(str, sorted(numbers)))}")
    return numbers.pop() if numbers else 0


def _details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    details = usage.get(name)
    if details is None:
        return {}
    if not isinstance(details, dict):
        raise UsageInvalid(f"{name} is no object")
    return details


def _count(usage: dict[str, Any], name: str) -> int:
    """The number under `name`. Missing differs from zero: it is an error."""
    number = _optional(usage, name)
    if number is None:
        raise UsageInvalid(f"{name} is missing")
    return number


def _optional(usage: dict[str, Any], name: str) -> int | None:
    """The number under `name`; None when it is missing or null. Text, fractions and true are no numbers."""
    value = usage.get(name)
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise UsageInvalid(f"{name} is {_brief(value)}")
    if value > _ABSURD:
        raise UsageInvalid(f"{name} has {value.bit_length()} bits")
    return value


def _brief(value: object) -> str:
    """A wrong value as it is told on: short, whatever its size or depth is."""
    if isinstance(value, str):
        return repr(_without_texts(value))
    return repr(value) if isinstance(value, int | float) and abs(value) < _ABSURD else f"a {type(value).__name__}"


def _without_texts(said: object) -> object:
    """The same without texts that are longer than a word such as a tier, and names that no vendor gives a count: usage
    has no place for them, and a credential that an upstream echoes must not be kept."""
    if isinstance(said, str):
        return said if len(said) <= LONGEST_WORD else f"{len(said)} characters"
    if isinstance(said, dict):
        return {
            name if name in _USUAL_NAMES or _COUNT_NAME.fullmatch(name) else f"{len(name)} characters": (
                value if type(value) is int else _without_texts(value)
            )
            for name, value in said.items()
        }
    return [_without_texts(value) for value in said] if isinstance(said, list) else said
