"""What upstreams tell of usage, from their socket to our record: buckets, tiers, flat parts, and what is refused."""

import logging
from typing import Any

import msgspec
import pytest

from apps.catalog.contracts import Price, PriceVariant
from apps.usage.contracts import TokenCounts
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench

pytestmark = pytest.mark.asyncio

RATES = {
    "input": 1_000_000,
    "output": 2_000_000,
    "cache_read": 500_000,
    "cache_write": 1_000_000,
    "reasoning": 2_000_000,
}
LONG = PriceVariant(**{**RATES, "input": 3_000_000}, min_input_tokens=1_000)
FAST = PriceVariant(**{**RATES, "output": 9_000_000}, service_tier="priority")
PRICED = Price(
    version_id=7, starts_at=0.0, **RATES, audio_input=30_000_000, per_request=400, per_image=50, variants=(LONG, FAST)
)


@pytest.fixture
def priced(bench: Bench) -> Bench:
    model = offered(
        id="base", targets=(bench.target("sandbox-echo"),), prices=(PRICED,), input_modalities=("text", "image"),
        max_output_tokens=5_000,
    )  # fmt: skip
    bench.models["base"] = model
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    return bench


def told(**usage: Any) -> dict[str, Any]:
    return {"usage": usage}


@pytest.mark.parametrize("stream", [True, False])
async def test_every_bucket_reaches_the_record_and_the_client(priced: Bench, stream: bool) -> None:
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 3},
    }
    call = await priced.chat("base", stream=stream, sandbox={"usage": usage})
    record = priced.record(call)
    assert record.tokens == TokenCounts(input=11, cache_read=5, audio_input=4, output=4, reasoning=2, audio_output=3)
    assert record.cost_nanos == 552  # 11 + 2.5 + 120 + 18 + 400, half to even
    assert (record.estimated, record.review) == (False, "")
    assert msgspec.json.decode(record.raw_usage) == usage
    shown = call.events[-2]["usage"] if stream else call.json["usage"]
    assert shown["completion_tokens_details"] == {"reasoning_tokens": 2, "audio_tokens": 3}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_violation_is_estimated_flagged_kept_and_reported(
    priced: Bench, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4000, "total_tokens": 5}
    with caplog.at_level(logging.ERROR):
        record = priced.record(await priced.chat("base", "one two three", stream=stream, sandbox={"usage": usage}))
    assert record.estimated
    assert 0 < record.tokens.output <= 4 and 0 < record.tokens.input <= 4
    assert record.review == "3 tokens in and 4000 out do not make the total of 5"
    assert msgspec.json.decode(record.raw_usage) == usage
    (entry,) = [entry for entry in caplog.records if "breaks a rule" in entry.message]
    assert entry.violation == record.review  # type: ignore[attr-defined]  # set by `extra`


async def test_no_usage_at_all_is_estimated_and_no_violation(priced: Bench) -> None:
    record = priced.record(await priced.chat("sandbox-fault-no-usage", stream=True))
    assert (record.estimated, record.review, record.raw_usage) == (True, "", "")


async def test_zero_usage_is_believed_and_looked_at(priced: Bench) -> None:
    record = priced.record(await priced.chat("sandbox-fault-zero-usage", stream=True))
    assert (record.estimated, record.cost_nanos) == (False, 0)
    assert record.review == "no output tokens told for an answer that has output"


async def test_a_context_tier_counts_from_its_first_token_for_the_whole_request(priced: Bench) -> None:
    costs = {}
    for prompt in (999, 1_000):
        usage = told(prompt_tokens=prompt, completion_tokens=1)
        costs[prompt] = priced.record(await priced.chat("base", "word " * 1_000, sandbox=usage)).cost_nanos
    assert costs == {999: 999 + 2 + 400, 1_000: 3_000 + 2}  # the tier has no price for the request itself


@pytest.mark.parametrize(
    ("said", "billed", "output_nanos"), [("priority", "priority", 9), ("default", "", 2), ("flex", "", 2)]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_tier_is_billed_only_when_the_upstream_confirms_it(
    priced: Bench, said: str, billed: str, output_nanos: int, stream: bool
) -> None:
    script = {"service_tier": said, **told(prompt_tokens=1, completion_tokens=10)}
    call = await priced.chat("base", service_tier="priority", stream=stream, sandbox=script)
    record = priced.record(call)
    flat = 0 if billed else 400
    assert (record.service_tier, record.cost_nanos) == (billed, 1 + 10 * output_nanos + flat)
    assert record.overage_nanos == 0


async def test_a_tier_nobody_asked_for_is_not_billed(priced: Bench) -> None:
    script = {"service_tier": "priority", **told(prompt_tokens=1, completion_tokens=10)}
    record = priced.record(await priced.chat("base", sandbox=script))
    assert (record.service_tier, record.cost_nanos) == ("", 1 + 20 + 400)


async def test_a_tier_without_a_price_is_refused(priced: Bench) -> None:
    call = await priced.chat("base", service_tier="flex")
    assert (call.status, call.json["error"]["param"]) == (400, "service_tier")
    assert "not offered at the service tier 'flex'" in call.json["error"]["message"]
    call = await priced.chat("base", service_tier="quick")
    assert (call.status, call.json["error"]["param"]) == (400, "service_tier")
    assert (await priced.chat("base", service_tier="auto")).status == 200


async def test_images_are_counted_for_the_price_of_each(priced: Bench) -> None:
    pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
    parts = [{"type": "text", "text": "look"}, *[{"type": "image_url", "image_url": {"url": pixel}}] * 2]
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": parts}],
        "sandbox": told(prompt_tokens=1, completion_tokens=1),
    }
    record = priced.record(await priced.call("/api/v1/chat/completions", body))
    assert (record.opened.images, record.cost_nanos) == (2, 1 + 2 + 400 + 100)


async def test_the_models_page_has_the_whole_price(priced: Bench) -> None:
    pricing = (await priced.call("/api/v1/models/base")).json["pricing"]
    assert pricing["request"] == "0.0000004" and pricing["image"] == "0.00000005"
    assert pricing["audio"] == "0.00000003" and "audio_output" not in pricing
    long, fast = pricing["variants"]
    assert (long["min_input_tokens"], long["prompt"], long["request"]) == (1_000, "0.000000003", "0")
    assert (fast["service_tier"], fast["completion"]) == ("priority", "0.000000009")
