"""Vendors' usage objects become disjoint buckets, or a violation; never something in between."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.catalog.contracts import BUCKETS
from apps.gateway.metering.token_usage import RAW_USAGE_BYTES, ToldUsage, read_usage, served_tier, to_openai
from apps.usage.contracts import TokenCounts

BOUND = 1_000_000


def read(**usage: Any) -> ToldUsage:
    return read_usage(usage, bound=BOUND)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(
            {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, TokenCounts(input=5, output=2), id="plain"
        ),
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10, "cache_write_tokens": 5},
                "completion_tokens_details": {
                    "reasoning_tokens": 20,
                    "audio_tokens": 5,
                    "rejected_prediction_tokens": 1,
                },
            },
            TokenCounts(
                input=25, cache_read=60, cache_write=5, audio_input=10, output=25, reasoning=20, audio_output=5
            ),
            id="openai",
        ),
        pytest.param(
            {
                "input_tokens": 40,
                "output_tokens": 9,
                "total_tokens": 49,
                "input_tokens_details": {"cached_tokens": 30, "image_tokens": 4},
                "output_tokens_details": {"reasoning_tokens": 9, "image_tokens": 0},
            },
            TokenCounts(input=6, cache_read=30, image_input=4, reasoning=9),
            id="openai responses",
        ),
        pytest.param(
            {
                "prompt_tokens": 3008,
                "completion_tokens": 5,
                "total_tokens": 3013,
                "prompt_tokens_details": {"cached_tokens": 2000, "cache_creation_tokens": 1000},
            },
            TokenCounts(input=8, cache_read=2000, cache_write=1000, output=5),
            id="litellm",
        ),
        pytest.param(
            {
                "prompt_tokens": 3008,
                "completion_tokens": 5,
                "total_tokens": 3013,
                "prompt_tokens_details": {
                    "cached_tokens": 2000,
                    "cache_creation_tokens": 1000,
                    "cache_creation_token_details": {
                        "ephemeral_5m_input_tokens": 400,
                        "ephemeral_1h_input_tokens": 600,
                    },
                },
                "cache_creation_input_tokens": 1000,
                "cache_read_input_tokens": 2000,
            },
            TokenCounts(input=8, cache_read=2000, cache_write=400, cache_write_1h=600, output=5),
            id="litellm by time",
        ),
        pytest.param(
            {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "cached_tokens": 900},
            TokenCounts(input=100, cache_read=900, output=10),
            id="moonshot",
        ),
        pytest.param(
            {
                "prompt_tokens": 30,
                "completion_tokens": 5,
                "total_tokens": 35,
                "prompt_cache_hit_tokens": 20,
                "prompt_cache_miss_tokens": 10,
                "prompt_tokens_details": {"cached_tokens": 20},
            },
            TokenCounts(input=10, cache_read=20, output=5),
            id="deepseek",
        ),
        pytest.param(
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "prompt_tokens_details": {"text_tokens": 32, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 6},
                "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0},
            },
            TokenCounts(input=26, cache_read=6, output=9, reasoning=94),
            id="xai: reasoning beside the completion",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 130},
            TokenCounts(input=10, output=20, reasoning=100),
            id="google: reasoning in the total only",
        ),
        pytest.param(
            {
                "input_tokens": 10,
                "cache_creation_input_tokens": 300,
                "cache_read_input_tokens": 1000,
                "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
                "output_tokens": 7,
                "service_tier": "standard",
            },
            TokenCounts(input=10, cache_read=1000, cache_write=100, cache_write_1h=200, output=7),
            id="anthropic",
        ),
        pytest.param(
            {"input_tokens": 10, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
            TokenCounts(input=10, output=5, reasoning=4),
            id="anthropic: thinking told apart",
        ),
        pytest.param(
            {
                "prompt_tokens": 1310,
                "completion_tokens": 7,
                "total_tokens": 1317,
                "prompt_tokens_details": {"cached_tokens": 1000},
                "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 300,
                "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            },
            TokenCounts(input=10, cache_read=1000, cache_write=100, cache_write_1h=200, output=7),
            id="anthropic through an openai shape",
        ),
        pytest.param(
            {
                "promptTokenCount": 300,
                "cachedContentTokenCount": 100,
                "toolUsePromptTokenCount": 20,
                "candidatesTokenCount": 50,
                "thoughtsTokenCount": 30,
                "totalTokenCount": 400,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 200},
                    {"modality": "AUDIO", "tokenCount": 60},
                    {"modality": "IMAGE", "tokenCount": 40},
                ],
                "cacheTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 80},
                    {"modality": "AUDIO", "tokenCount": 20},
                ],
                "candidatesTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 40},
                    {"modality": "IMAGE", "tokenCount": 7},
                    {"modality": "AUDIO", "tokenCount": 3},
                ],
                "trafficType": "ON_DEMAND",
            },
            TokenCounts(
                input=140,
                cache_read=100,
                audio_input=40,
                image_input=40,
                output=40,
                reasoning=30,
                audio_output=3,
                image_output=7,
            ),
            id="gemini",
        ),
        pytest.param(
            {"promptTokenCount": 4, "totalTokenCount": 4}, TokenCounts(input=4), id="gemini: zero is left out"
        ),
        pytest.param(
            {"promptTokenCount": 4, "candidatesTokenCount": 10, "thoughtsTokenCount": 6, "totalTokenCount": 14},
            TokenCounts(input=4, output=4, reasoning=6),
            id="gemini: thoughts among the candidates",
        ),
        pytest.param(
            {
                "inputTokens": 12,
                "outputTokens": 9,
                "totalTokens": 56,
                "cacheReadInputTokens": 30,
                "cacheWriteInputTokens": 5,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 2}, {"ttl": "5m", "inputTokens": 3}],
            },
            TokenCounts(input=12, cache_read=30, cache_write=3, cache_write_1h=2, output=9),
            id="bedrock",
        ),
        pytest.param(
            {"inputTokens": 12, "outputTokens": 9, "totalTokens": 21, "cacheReadInputTokens": 30},
            TokenCounts(input=12, cache_read=30, output=9),
            id="bedrock: a total without the cache",
        ),
        pytest.param(
            {
                "prompt_tokens": 1000,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 900, "image_tokens": 400},
            },
            TokenCounts(input=0, cache_read=900, image_input=100, output=1),
            id="media that the cache served stand in its bucket",
        ),
        pytest.param(
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": None,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            TokenCounts(input=5, output=2),
            id="null where nothing is told",
        ),
    ],
)
def test_each_vendors_shape_becomes_disjoint_buckets(usage: dict[str, Any], expected: TokenCounts) -> None:
    assert read_usage(usage, bound=BOUND) == ToldUsage(expected, "", usage)


@pytest.mark.parametrize(
    ("usage", "violation"),
    [
        ("many", "usage is no object"),
        ([], "usage is no object"),
        ({}, "input_tokens is missing"),
        ({"prompt_tokens": None, "completion_tokens": 1}, "prompt_tokens is missing"),
        ({"prompt_tokens": 1}, "completion_tokens is missing"),
        ({"prompt_tokens": -1, "completion_tokens": 1}, "prompt_tokens is -1"),
        ({"prompt_tokens": 1.0, "completion_tokens": 1}, "prompt_tokens is 1.0"),
        ({"prompt_tokens": "1", "completion_tokens": 1}, "prompt_tokens is '1'"),
        ({"prompt_tokens": True, "completion_tokens": 1}, "prompt_tokens is True"),
        ({"prompt_tokens": 1, "completion_tokens": 10**4000}, "completion_tokens has 13288 bits"),
        (
            {"prompt_tokens": BOUND + 1, "completion_tokens": 1},
            "more tokens than the model can have: 1000001 in, 1 out",
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 2},
            "1 tokens in and 2 out do not make the total of 2",
        ),
        (
            {
                "prompt_tokens": 1,
                "completion_tokens": 2,
                "total_tokens": 9,
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            "1 tokens in and 2 out do not make the total of 9",
        ),
        ({"totalTokenCount": 5}, "promptTokenCount is missing"),
        ({"promptTokenCount": "5"}, "promptTokenCount is '5'"),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 9},
            "8 tokens and 2 of thought do not make the total of 9",
        ),
        (
            {"promptTokenCount": 5, "cachedContentTokenCount": 6},
            "a part of the tokens is larger than their total",
        ),
        (
            {"input_tokens": 5, "output_tokens": 1, "output_tokens_details": {"thinking_tokens": 2}},
            "a part of the output tokens is larger than their total",
        ),
        ({"promptTokenCount": 5, "promptTokensDetails": {}}, "promptTokensDetails is no list"),
        ({"promptTokenCount": 5, "promptTokensDetails": [1]}, "promptTokensDetails has what is no object"),
        ({"inputTokens": 5}, "outputTokens is missing"),
        ({"inputTokens": 5, "outputTokens": 1, "totalTokens": 7}, "5 tokens in and 1 out do not make the total of 7"),
        (
            {"inputTokens": 5, "outputTokens": 1, "cacheDetails": [{"ttl": "1h", "inputTokens": 1}]},
            "a part of the tokens is larger than their total",
        ),
        ({"inputTokens": 5, "outputTokens": 1, "cacheDetails": 5}, "cacheDetails is no list of objects"),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}},
            "a part of the input tokens is larger than their total",
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"audio_tokens": 6}},
            "a part of the input tokens is larger than their total",
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 2}},
            "a part of the output tokens is larger than their total",
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": [1]},
            "prompt_tokens_details is no object",
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 3},
            "3 cache hits and 3 misses do not make 5 input tokens",
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "prompt_cache_hit_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 2},
            },
            "cached tokens are told differently: 2, 3",
        ),
        (
            {
                "input_tokens": 1,
                "output_tokens": 1,
                "cache_creation_input_tokens": 5,
                "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1},
            },
            "tokens written to a cache are told differently: 2, 5",
        ),
    ],
)
def test_what_breaks_a_rule_is_a_violation_and_has_no_tokens(usage: Any, violation: str) -> None:
    assert read_usage(usage, bound=BOUND) == ToldUsage(None, violation, usage)


def test_nothing_told_is_no_violation() -> None:
    assert read_usage(None, bound=BOUND) == ToldUsage(None, "", None)
    assert read_usage(None, bound=BOUND).raw == ""


def test_missing_differs_from_zero() -> None:
    assert read(prompt_tokens=0, completion_tokens=0).tokens == TokenCounts()
    assert read(prompt_tokens=0).tokens is None


def test_zero_for_an_answer_with_output_is_believed_and_looked_at() -> None:
    told = read(prompt_tokens=3, completion_tokens=0).beside_output()
    assert (told.tokens, told.violation) == (
        TokenCounts(input=3),
        "no output tokens told for an answer that has output",
    )
    whole = read(prompt_tokens=3, completion_tokens=1)
    assert whole.beside_output() is whole


def test_raw_usage_is_kept_as_it_was_told_and_cut() -> None:
    assert read(prompt_tokens="x", extra=None).raw == '{"prompt_tokens":"x","extra":null}'
    assert len(read(prompt_tokens=["ü" * 10] * 500).raw.encode()) in (RAW_USAGE_BYTES, RAW_USAGE_BYTES - 1)
    assert "\x00" not in read(prompt_tokens="\x00").raw
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert read(prompt_tokens=deep).raw == "nested too deeply"


def test_no_long_text_is_kept_of_a_usage() -> None:
    told = read(prompt_tokens="5f0c9a1be7d24c66", parts=[{"by": "sk-upstream-canary-0123456789", "tier": "priority"}])
    assert told.raw == '{"prompt_tokens":"5f0c9a1be7d24c66","parts":[{"by":"29 characters","tier":"priority"}]}'
    assert read(prompt_tokens="sk-upstream-canary-0123456789").violation == "prompt_tokens is '29 characters'"


counts = st.integers(0, 2_000)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 3_000) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["cached_tokens", "x"]), inner),
    max_leaves=5,
)
NAMES = (
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
    "input_tokens", "output_tokens", "cache_creation", "cache_read_input_tokens", "prompt_cache_hit_tokens",
    "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount", "totalTokenCount",
    "promptTokensDetails", "candidatesTokensDetails", "inputTokens", "outputTokens", "totalTokens", "cacheDetails",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), anything) | anything)
def test_no_usage_object_raises_or_gives_buckets_beyond_the_bound(usage: Any) -> None:
    told = read_usage(usage, bound=1_000)
    assert len(told.raw.encode()) <= RAW_USAGE_BYTES
    if told.tokens is None:
        assert bool(told.violation) == (usage is not None)
    else:
        assert all(getattr(told.tokens, bucket) >= 0 for bucket in BUCKETS)
        assert max(told.tokens.all_input, told.tokens.all_output) <= 1_000


@given(st.fixed_dictionaries(dict.fromkeys(["cached_tokens", "audio_tokens", "image_tokens"], counts)), counts)
def test_input_buckets_sum_to_the_prompt_whatever_overlaps(parts: dict[str, int], prompt: int) -> None:
    told = read(prompt_tokens=prompt, completion_tokens=0, prompt_tokens_details=parts)
    if told.tokens is not None:
        assert told.tokens.all_input == prompt
        assert told.tokens.cache_read == parts["cached_tokens"]
    else:
        assert parts["cached_tokens"] > prompt or parts["audio_tokens"] + parts["image_tokens"] > prompt


@given(st.fixed_dictionaries(dict.fromkeys(BUCKETS, counts)))
def test_what_clients_get_is_read_back_with_the_same_sums(count: dict[str, int]) -> None:
    tokens = TokenCounts(**count)
    again = read_usage(to_openai(tokens), bound=BOUND).tokens
    assert again is not None
    assert (again.all_input, again.all_output) == (tokens.all_input, tokens.all_output)
    assert (again.cache_read, again.reasoning, again.audio_output) == (
        tokens.cache_read, tokens.reasoning, tokens.audio_output,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "told", "billed"),
    [
        ("priority", ("priority", None), "priority"),
        ("priority", (None, "priority"), "priority"),
        ("priority", ("default", None), ""),
        ("priority", (None, None), ""),
        ("", ("priority", None), ""),
        ("flex", ("priority", None), ""),
        ("nonsense", ("nonsense", None), ""),
        ("flex", ({"flex": 1}, ["flex"]), ""),
    ],
)
def test_a_tier_is_billed_when_it_was_asked_for_and_confirmed(
    asked: str, told: tuple[object, ...], billed: str
) -> None:
    assert served_tier(asked, *told) == billed
