"""What is held for images is what their model says: enough for what the vendor bills, and no other model's figure."""

from typing import Any

import pytest

from apps.core.limits import Limits
from tests.factories import PRICE, offered, snapshot
from tests.gateway.conftest import Bench, Call

pytestmark = pytest.mark.asyncio
BILLED = 48_169
"""What OpenAI bills for a large image to GPT-4o mini."""
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/large.png"}}


async def ask(bench: Bench, model: str, *, images: int = 1, **fields: Any) -> Call:
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, *[IMAGE] * images]}
    body = {"model": model, "messages": [message], "max_tokens": 5, **fields}
    return await bench.call("/api/v1/chat/completions", body)


@pytest.fixture
def models(bench: Bench) -> None:
    own = {"targets": (bench.target("sandbox-vision"),), "input_modalities": ("text", "image")}
    bench.runtime.catalog.snapshot = snapshot(offered(id="thin", **own), offered(id="dear", image_tokens=BILLED, **own))


@pytest.mark.usefixtures("models")
async def test_each_image_holds_what_the_catalog_says_of_its_model(bench: Bench) -> None:
    holds = {}
    for model, images in (("thin", 1), ("dear", 1), ("dear", 2)):
        call = await ask(bench, model, images=images)
        assert call.status == 200
        holds[model, images] = bench.record(call).opened.hold_nanos or 0
    rate = PRICE.input // 10**6
    assert 8_192 * rate < holds["thin", 1] < 9_000 * rate
    assert holds["dear", 1] - holds["thin", 1] == (BILLED - 8_192) * rate
    assert 2 * BILLED * rate < holds["dear", 2] < (2 * BILLED + 1_000) * rate


@pytest.mark.usefixtures("models")
async def test_who_has_money_for_a_small_image_only_is_not_sent_to_a_dear_model(bench: Bench) -> None:
    """Counting the text more closely does not make an image smaller."""
    bench.limit(key_limits=Limits(budget_nanos=10_000 * PRICE.input // 10**6))
    refused = await ask(bench, "dear")
    assert (refused.status, refused.json["error"]["code"]) == (429, "key_spend_limit_exceeded")
    assert bench.truth() == {}
    assert (await ask(bench, "thin")).status == 200


@pytest.mark.usefixtures("models")
async def test_a_model_that_follows_holds_for_images_by_its_own_figure(bench: Bench) -> None:
    call = await ask(bench, "missing", models=["dear"])
    assert (call.status, call.json["model"]) == (200, "dear")
    assert (bench.record(call).opened.hold_nanos or 0) > BILLED * PRICE.input // 10**6
