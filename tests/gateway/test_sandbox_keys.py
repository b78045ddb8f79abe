"""Sandbox keys: sandbox models only, no money in either direction, rate limits all the same."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from apps.billing.balance_cache import money_key
from apps.core.limits import Limits
from tests.factories import snapshot
from tests.gateway.conftest import Bench

pytestmark = pytest.mark.asyncio
MODELS = "/api/v1/models"


def offer_sandbox(bench: Bench) -> None:
    """Beside the live model `base`: `test-echo`, whose only route costs nothing, and `mixed`, with one of each."""
    live = bench.models["base"]
    free = msgspec.structs.replace(live.targets[0], is_sandbox=True)
    bench.models["test-echo"] = msgspec.structs.replace(live, id="test-echo", targets=(free,))
    bench.models["mixed"] = msgspec.structs.replace(live, id="mixed", targets=(free, live.targets[0]))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


@pytest_asyncio.fixture
async def sandbox(bench: Bench) -> AsyncIterator[Bench]:
    """The bench, calling with a sandbox key."""
    offer_sandbox(bench)
    bench.limit(sandbox=True)
    yield bench


async def test_it_sees_sandbox_models_alone(sandbox: Bench) -> None:
    listed = (await sandbox.call(MODELS)).json["data"]
    assert [(model["id"], model["is_sandbox"]) for model in listed] == [("test-echo", True)]
    assert (await sandbox.call(f"{MODELS}/test-echo")).status == 200


async def test_a_live_key_sees_and_calls_all_of_them(bench: Bench) -> None:
    offer_sandbox(bench)
    listed = (await bench.call(MODELS)).json["data"]
    assert {model["id"]: model["is_sandbox"] for model in listed} == {"base": False, "mixed": False, "test-echo": True}
    call = await bench.chat("test-echo")
    assert call.status == 200
    record = bench.record(call)
    assert (record.opened.sandbox, record.charged_nanos) == (False, record.cost_nanos)


@pytest.mark.parametrize("model", ["base", "mixed"])
async def test_a_live_model_is_refused_with_a_message_that_helps(sandbox: Bench, model: str) -> None:
    for call in (await sandbox.chat(model), await sandbox.call(f"{MODELS}/{model}")):
        error = call.json["error"]
        assert (call.status, error["type"], error["code"], error["param"]) == (
            403,
            "permission_error",
            "live_model_with_sandbox_key",
            "model",
        )
        assert "sandbox key" in error["message"] and f"'{model}'" in error["message"]
    assert sandbox.truth() == {}
    assert (await sandbox.chat("nothing")).json["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("stream", [True, False])
async def test_it_costs_what_is_told_and_moves_no_money(sandbox: Bench, empty_store: Any, stream: bool) -> None:
    call = await sandbox.chat("test-echo", stream=stream)
    usage = call.events[-2]["usage"] if stream else call.json["usage"]
    record = sandbox.record(call)
    assert usage["cost"] * 10**9 == pytest.approx(record.cost_nanos) and record.cost_nanos > 0
    assert usage["cost_details"] == {"estimated": False, "is_sandbox": True}
    assert (record.opened.sandbox, record.opened.hold_nanos, record.opened.balance_nanos) == (True, 0, None)
    assert (record.charged_nanos, record.overage_nanos) == (0, 0)
    assert "x-crun-budget-remaining" not in call.headers
    await sandbox.runtime.reservations.drain()
    money = empty_store.hgetall(money_key("org_1"))
    assert (money[b"balance"], money[b"held"]) == (b"1000000000000000", b"0")
    assert int(empty_store.hget("crun:{org_1}:spend", "k:key_1|lifetime|0") or 0) == 0


async def test_it_runs_without_any_credit_and_beyond_every_budget(sandbox: Bench, empty_store: Any) -> None:
    assert (await sandbox.chat("test-echo")).status == 200
    empty_store.hset(money_key("org_1"), "balance", -5)
    nothing = Limits(budget_nanos=0)
    sandbox.limit(project_limits=nothing, organization_limits=nothing)
    assert (await sandbox.chat("test-echo", max_tokens=50)).status == 200
    assert (await sandbox.chat("test-echo", "word " * 200)).json["choices"][0]["finish_reason"] == "stop"
    sandbox.limit(sandbox=False)
    assert (await sandbox.chat("test-echo")).json["error"]["type"] == "insufficient_quota"


async def test_rate_limits_hold_and_tell_nothing_of_money(sandbox: Bench) -> None:
    sandbox.limit(key_limits=Limits(requests_per_minute=1))
    first, second = await sandbox.chat("test-echo"), await sandbox.chat("test-echo")
    assert (first.status, second.status) == (200, 429)
    for call in (first, second):
        assert call.headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-crun-budget-remaining" not in call.headers


async def test_it_sees_no_figure_of_its_organizations_money(sandbox: Bench) -> None:
    assert (await sandbox.chat("test-echo")).status == 200
    answer = await sandbox.call("/api/v1/credits")
    sums = answer.json["data"]
    assert sums.pop("is_sandbox") is True
    assert set(sums.values()) == {0}
    assert "x-crun-budget-remaining" not in answer.headers
    assert (await sandbox.call("/api/v1/client/account/balance")).json["data"] == {"balance": 0}
    key = (await sandbox.call("/api/v1/key")).json["data"]
    assert (key["is_sandbox"], key["usage"], key["limit"]) == (True, 0, None)


async def test_what_costs_nothing_gives_its_place_back_at_its_end(sandbox: Bench) -> None:
    """A hold of nothing is settled like any other: nobody waits for requests that have ended."""
    sandbox.limit(key_limits=Limits(concurrency=1, tokens_per_minute=20_000))
    for _ in range(3):
        call = await sandbox.chat("test-echo")
        assert call.status == 200
        await sandbox.runtime.reservations.drain()
