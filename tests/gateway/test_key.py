"""GET /key: what a key may use, in OpenRouter's words where it has them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from django.conf import settings

from apps.core.limits import Limits
from apps.keys.contracts import KeyGrant
from apps.keys.lookup import KeyLookup
from tests.gateway.conftest import Bench

pytestmark = pytest.mark.asyncio

UNLIMITED = {"requests_per_minute": None, "tokens_per_minute": None, "requests_per_day": None, "concurrency": None}


async def limited(bench: Bench, **limits: Limits) -> Any:
    """What the endpoint says of a key with these limits: its `data`, and the text it came in."""
    usual = await bench.runtime.keys.find(bench.key)
    assert usual is not None
    grant = msgspec.structs.replace(usual, **limits)

    async def read(digests: Sequence[str]) -> KeyGrant | None:
        return grant

    bench.runtime.keys = KeyLookup(read, settings.KEY_PEPPERS)
    return await bench.call("/api/v1/key")


async def test_a_key_without_limits_says_so(bench: Bench) -> None:
    content = (await bench.call("/api/v1/key")).json["data"]
    assert (content["limit"], content["limit_reset"]) == (None, None)
    assert content["rate_limits"] == {"key": UNLIMITED, "project": UNLIMITED, "organization": UNLIMITED}


@pytest.mark.parametrize(
    ("period", "reset"), [("day", "daily"), ("week", "weekly"), ("month", "monthly"), ("lifetime", None)]
)
async def test_a_budget_is_a_number_in_usd_and_its_reset_a_word(bench: Bench, period: Any, reset: str | None) -> None:
    answer = await limited(bench, key_limits=Limits(budget_nanos=1_500_000_000, budget_period=period))
    assert (answer.json["data"]["limit"], answer.json["data"]["limit_reset"]) == (1.5, reset)


async def test_a_budget_is_exact_and_zero_is_not_none(bench: Bench) -> None:
    answer = await limited(bench, key_limits=Limits(budget_nanos=8_999_999_000_000_001))
    assert b'"limit":8999999.000000001,' in answer.body
    answer = await limited(bench, key_limits=Limits(budget_nanos=0))
    assert answer.json["data"]["limit"] == 0
    assert answer.json["data"]["limit"] is not None


async def test_the_rate_limits_of_every_level_are_told(bench: Bench) -> None:
    answer = await limited(
        bench,
        key_limits=Limits(60, 40_000, 1_000, 5),
        project_limits=Limits(requests_per_minute=600),
        organization_limits=Limits(concurrency=50),
    )
    assert answer.json["data"]["rate_limits"] == {
        "key": {
            "requests_per_minute": 60,
            "tokens_per_minute": 40_000,
            "requests_per_day": 1_000,
            "concurrency": 5,
        },
        "project": {**UNLIMITED, "requests_per_minute": 600},
        "organization": {**UNLIMITED, "concurrency": 50},
    }
