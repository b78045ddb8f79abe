"""Scheduled maintenance: no new request goes to a route in its window, and customers are told how long it lasts."""

import time
from typing import Any

import msgspec
import pytest

from apps.catalog.contracts import Maintenance, Target
from apps.core.limits import Limits
from apps.gateway.errors import GatewayError
from apps.gateway.routing.maintenance import in_service
from tests.factories import TARGET, offered, snapshot
from tests.gateway.conftest import Bench, Call

CHAT = "/api/v1/chat/completions"
NOW, LATER = (-60.0, 3600.0), (3600.0, 7200.0)


def resting(target: Target, *windows: tuple[float, float]) -> Target:
    """The route with windows in seconds from now."""
    now = time.time()
    return msgspec.structs.replace(
        target, maintenance=tuple(Maintenance(now + start, now + end, "New disks") for start, end in windows)
    )


def offer(bench: Bench, *targets: Target, name: str = "m") -> None:
    bench.models[name] = offered(id=name, targets=targets, has_maintenance=any(each.maintenance for each in targets))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


async def ask(bench: Bench, **fields: Any) -> Call:
    return await bench.call(CHAT, {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields})


@pytest.mark.asyncio
async def test_a_model_all_of_whose_routes_rest_says_until_when(bench: Bench) -> None:
    first, second = (
        msgspec.structs.replace(bench.target("sandbox-echo"), provider=provider) for provider in ("first", "second")
    )
    offer(bench, resting(first, (-60, 7200)), resting(second, NOW))
    call = await ask(bench)
    assert (call.status, call.json["error"]["code"]) == (503, "model_in_maintenance")
    assert 3500 < int(call.headers["retry-after"]) <= 3600
    assert "UTC" in call.json["error"]["message"] and "first" not in call.body.decode()
    assert not bench.truth() and not bench.journal()
    assert (await ask(bench, provider={"only": ["first"]})).status == 503


@pytest.mark.asyncio
async def test_it_takes_nothing_of_a_limit(bench: Bench) -> None:
    bench.limit(key_limits=Limits(requests_per_minute=1))
    offer(bench, resting(bench.target("sandbox-echo"), NOW))
    assert [(await ask(bench)).status for _ in range(3)] == [503, 503, 503]


@pytest.mark.asyncio
@pytest.mark.parametrize("fields", [{}, {"provider": {"order": ["resting", "other"]}}])
async def test_other_routes_take_over(bench: Bench, fields: dict[str, Any]) -> None:
    target = bench.target("sandbox-echo")
    rests = msgspec.structs.replace(target, provider="resting", weight=10**9)
    offer(bench, resting(rests, NOW), msgspec.structs.replace(target, provider="other"))
    for _ in range(3):
        call = await ask(bench, **fields)
        assert call.status == 200
        assert (bench.record(call).opened.provider, bench.record(call).attempts) == ("other", ())


@pytest.mark.asyncio
async def test_another_model_takes_over_where_the_request_names_one(bench: Bench) -> None:
    offer(bench, resting(bench.target("sandbox-echo"), NOW))
    offer(bench, bench.target("sandbox-echo"), name="spare")
    call = await ask(bench, models=["spare"])
    assert (call.status, call.json["model"]) == (200, "spare")


@pytest.mark.asyncio
async def test_a_window_that_has_not_begun_or_is_over_changes_nothing_but_what_is_told(bench: Bench) -> None:
    target = bench.target("sandbox-echo")
    offer(bench, resting(target, LATER), resting(target, (-60, -1)), resting(target, NOW))
    assert (await ask(bench)).status == 200
    shown = (await bench.call("/api/v1/models/m/endpoints")).json["data"]["endpoints"]
    assert [each["status"] for each in shown] == [0, 0, -3]
    later, over, now = (each["maintenance"] for each in shown)
    assert over is None and later["note"] == now["note"] == "New disks"
    assert now["from"] < now["until"] < later["until"] and now["until"].endswith("Z")


@pytest.mark.parametrize(
    ("moment", "serving"), [(9.9, True), (10.0, False), (19.9, False), (20.0, True), (25.0, False), (30.0, True)]
)
def test_the_first_moment_of_a_window_is_in_it_and_the_last_is_not(moment: float, serving: bool) -> None:
    target = msgspec.structs.replace(TARGET, maintenance=(Maintenance(10, 20), Maintenance(20.5, 30)))
    if serving:
        assert in_service("m", [target], moment) == [target]
        return
    with pytest.raises(GatewayError) as refused:
        in_service("m", [target], moment)
    assert refused.value.retry_after_ms == pytest.approx(1000 * ((20 if moment < 20 else 30) - moment), abs=2)
