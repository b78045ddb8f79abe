"""GET /credits, /client/account/balance and the live part of GET /key: what is there now, to the nano-dollar."""

import asyncio
import json
import time
from decimal import Decimal
from typing import Any

import orjson
import pytest

from apps.billing.balance_cache import money_key
from apps.core.limits import Limits
from tests.gateway.conftest import Bench, Call

pytestmark = pytest.mark.asyncio
CREDITS, KEY, BALANCE = "/api/v1/credits", "/api/v1/key", "/api/v1/client/account/balance"
RICH = Decimal(1_000_000)


def exact(call: Call) -> Any:
    """The answer's `data` with amounts as they were written."""
    assert call.status == 200, call.body
    return json.loads(call.body, parse_float=Decimal)["data"]


async def spend(bench: Bench, **fields: Any) -> Decimal:
    call = await bench.chat("base", **fields)
    assert call.status == 200
    return Decimal(bench.record(call).cost_nanos) / 10**9


async def test_usage_counts_from_the_moment_a_request_ends(bench: Bench) -> None:
    spent = Decimal(0)
    for number in range(5):
        spent += await spend(bench, text="word " * (number + 1))
        content = exact(await bench.call(CREDITS))
        assert content["total_usage"] == spent > 0
        assert content["total_credits"] - content["total_usage"] == content["balance"] == RICH - spent
        assert (content["held"], content["credit_limit"], content["available"]) == (0, 0, content["balance"])
        assert content["is_sandbox"] is False
        assert exact(await bench.call(BALANCE)) == {"balance": content["balance"]}


async def test_what_a_running_request_holds_is_held_and_not_available(bench: Bench) -> None:
    bench.limit(key_limits=Limits(budget_nanos=10**9))
    body = bench.chat_body("sandbox-echo", stream=True, max_tokens=40, sandbox={"delay_ms": 3_000})
    running = bench.start("/api/v1/chat/completions", body)
    await running.until(lambda call: bool(call.sent))
    content = exact(await bench.call(CREDITS))
    assert content["held"] > 0
    assert content["available"] == content["balance"] - content["held"]
    mine = exact(await bench.call(KEY))
    assert (mine["held"], mine["limit_remaining"]) == (content["held"], 1 - content["held"])
    running.leave()
    assert running.task is not None
    await asyncio.gather(running.task, return_exceptions=True)


async def test_the_key_knows_its_spend_and_what_remains_of_its_budget(bench: Bench) -> None:
    bench.limit(key_limits=Limits(requests_per_minute=10, budget_nanos=10**9, budget_period="month"))
    spent = await spend(bench) + await spend(bench)
    answer = await bench.call(KEY)
    content = exact(answer)
    assert [content[name] for name in ("usage", "usage_daily", "usage_weekly", "usage_monthly")] == [spent] * 4
    assert (content["limit"], content["limit_remaining"], content["limit_reset"]) == (1, 1 - spent, "monthly")
    assert content["limit_reset_at"] > time.strftime("%Y-%m-%dT", time.gmtime())
    assert content["rate_limits_remaining"] == {"requests": 8, "tokens": None}
    assert answer.headers["x-ratelimit-remaining-requests"] == "8"
    assert Decimal(answer.headers["x-crun-budget-remaining"]) == 1 - spent
    assert content["is_sandbox"] is content["is_free_tier"] is content["is_management_key"] is False


async def test_looking_takes_nothing(bench: Bench) -> None:
    bench.limit(key_limits=Limits(requests_per_minute=2, tokens_per_minute=100_000))
    await spend(bench)
    seen = [(await bench.call(KEY)).headers for _ in range(5)]
    assert {headers["x-ratelimit-remaining-requests"] for headers in seen} == {"1"}
    assert len({headers["x-ratelimit-remaining-tokens"] for headers in seen}) == 1
    await spend(bench)


async def test_a_debt_is_a_negative_balance_and_a_credit_limit_is_available(bench: Bench, empty_store: Any) -> None:
    await spend(bench)
    empty_store.hset(money_key("org_1"), mapping={"balance": -1_500_000_001, "credit": 5_000_000_000})
    content = exact(await bench.call(CREDITS))
    assert (content["balance"], content["credit_limit"]) == (Decimal("-1.500000001"), 5)
    assert content["available"] == Decimal("3.499999999")


async def test_money_that_is_not_known_is_counted_again_first(bench: Bench, empty_store: Any) -> None:
    empty_store.flushdb()
    assert exact(await bench.call(CREDITS))["balance"] == RICH


async def test_what_a_key_is_can_be_read_while_the_store_is_away(bench: Bench) -> None:
    bench.limit(key_limits=Limits(budget_nanos=10**9))
    bench.runtime.store._retry_at = float("inf")
    content = exact(await bench.call(KEY))
    assert (content["id"], content["limit"], content["limit_remaining"], content["usage"]) == ("key_1", 1, None, None)
    assert (await bench.call(CREDITS)).status == 503
    away = await bench.call(BALANCE)
    assert (away.status, away.json["code"], away.json["data"]) == (503, 503, None)
    assert "retry-after" in away.headers


async def test_the_balance_has_the_envelope_for_answers_and_errors(bench: Bench) -> None:
    good = (await bench.call(BALANCE)).json
    assert (good["code"], good["message"], good["data"]) == (200, "success", {"balance": 1_000_000})
    for headers, status in (({}, 401), ({"x-api-key": "ak_nonsense"}, 401), ({"x-api-key": bench.key}, 200)):
        call = await bench.call(BALANCE, headers=headers)
        assert (call.status, call.json["code"]) == (status, status)
    assert set((await bench.call(BALANCE, headers={})).json) == {"code", "message", "data"}
    assert (await bench.call(BALANCE, {"a": 1})).json["code"] == 405
    unknown = await bench.call("/api/v1/client/job/anything")
    assert (unknown.status, unknown.json["code"]) == (404, 404)


@pytest.mark.parametrize("change", [{"revoked_at": 1.0}, {"expires_at": 1.0}])
async def test_a_key_that_no_longer_works_is_called_disabled_there_and_invalid_elsewhere(
    bench: Bench, change: dict[str, float]
) -> None:
    bench.limit(**change)
    call = await bench.call(BALANCE)
    assert (call.status, call.json["code"]) == (403, 403)
    assert "disabled" in call.json["message"]
    assert (await bench.call(CREDITS)).json["error"]["code"] == "invalid_api_key"


async def test_the_amounts_are_plain_numbers_for_everybody_else(bench: Bench) -> None:
    await spend(bench)
    content = orjson.loads((await bench.call(CREDITS)).body)["data"]
    assert all(isinstance(content[name], float) for name in ("total_credits", "total_usage", "balance"))
