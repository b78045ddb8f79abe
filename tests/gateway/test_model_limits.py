"""What an organization may use of one model, in the same call as all other limits."""

import asyncio
import random
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from apps.billing.admission import Admitted, Refused
from apps.catalog.models import Model, Provider, Route
from apps.catalog.snapshot import load_snapshot
from apps.core.limits import Limits
from tests.factories import offered, snapshot, stored_price
from tests.gateway.conftest import Bench
from tests.gateway.storms import Worker, demand
from tests.gateway.test_limits import ORG, PREFIX, workers

__all__ = ["workers"]


@pytest.mark.parametrize("limits", [Limits(requests_per_minute=37), Limits(tokens_per_minute=379)])
@pytest.mark.asyncio
async def test_500_at_once_meet_it_exactly_and_other_models_are_not_touched(
    workers: list[Worker], empty_store: Any, limits: Limits
) -> None:
    async def ask(model: str) -> Admitted | Refused:
        wanted = demand(ORG, 1_000, model=model, model_limits=limits)
        return await random.choice(workers).reservations.reserve(wanted)

    answers = await asyncio.gather(*(ask("gpt-a") for _ in range(500)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 37
    assert {answer.owner for answer in answers if isinstance(answer, Refused)} == {"model"}
    assert isinstance(await ask("gpt-b"), Admitted)
    assert int(empty_store.hget(PREFIX + "rate:m:gpt-a", "requests")) == 37


@pytest.mark.asyncio
async def test_what_was_reserved_becomes_what_was_used(workers: list[Worker], empty_store: Any) -> None:
    limits = Limits(tokens_per_minute=100)
    wanted = demand(ORG, 1_000, tokens=95, model="gpt-a", model_limits=limits)
    await workers[0].request(wanted, cost=lambda hold: 0)  # uses 7 + 3 tokens
    await workers[0].reservations.drain()
    assert int(empty_store.hget(PREFIX + "rate:m:gpt-a", "tokens")) == 10


@pytest.mark.asyncio
async def test_tokens_of_a_growing_answer_count_when_they_are_asked_for(
    workers: list[Worker], empty_store: Any
) -> None:
    limits = Limits(tokens_per_minute=100)
    wanted = demand(ORG, 1_000, tokens=60, model="gpt-a", model_limits=limits, key_limits=limits)
    reservations = workers[0].reservations
    assert isinstance(await reservations.reserve(wanted), Admitted)
    await reservations.grow(wanted, wanted_nanos=2_000, tokens=70, note=lambda nanos: True)
    for owner in ("m:gpt-a", "k:key_1"):
        assert int(empty_store.hget(PREFIX + "rate:" + owner, "tokens")) == 130
    refused = await reservations.reserve(demand(ORG, 1, tokens=1, model="gpt-a", model_limits=limits))
    assert isinstance(refused, Refused) and refused.what == "tokens_per_minute"
    reservations.release(wanted)
    await reservations.drain()
    assert int(empty_store.hget(PREFIX + "rate:k:key_1", "tokens")) == 0


@pytest.mark.asyncio
async def test_the_refusal_names_the_model(bench: Bench) -> None:
    limited = offered(id="base", targets=bench.models["base"].targets, limits=Limits(requests_per_minute=1))
    bench.models["base"] = limited
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    first = await bench.chat("base")
    assert (first.status, first.headers["x-ratelimit-limit-requests"]) == (200, "1")
    call = await bench.chat("base")
    assert (call.status, call.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "1 requests per minute of the model base" in call.json["error"]["message"]
    assert int(call.headers["retry-after"]) > 50


@pytest.mark.django_db
def test_the_snapshot_carries_what_the_operator_set() -> None:
    stored_price("limited")
    row = Model.objects.get(pk="limited")
    row.requests_per_minute, row.tokens_per_minute = 60, 90_000
    row.save()
    provider = Provider.objects.create(id="local", name="Local", base_url="http://127.0.0.1:9/v1")
    Route.objects.create(model=row, provider=provider, upstream_model="x")
    limits = load_snapshot().models["limited"].limits
    assert limits == Limits(requests_per_minute=60, tokens_per_minute=90_000)


@pytest.mark.django_db
@pytest.mark.parametrize("value", [0, -1, 1_000_000_001])
def test_the_database_refuses_impossible_ones(value: int) -> None:
    stored_price("limited")
    with pytest.raises(IntegrityError), transaction.atomic():
        Model.objects.filter(pk="limited").update(requests_per_minute=value)
