"""GET /models/{id}/endpoints: how the routes of a model do, and nothing of who they are."""

import msgspec
import pytest
from django.conf import settings

from apps.gateway.routing.health import FAILURES_TO_REST
from apps.gateway.routing.measures import SLOT_S, SLOTS, RouteMeasures
from tests.clocks import Clock
from tests.factories import offered, snapshot
from tests.gateway.conftest import UPSTREAM_KEY, Bench

PATH = "/api/v1/models/two/routes/endpoints"
"""Of a model whose id has a slash."""
HIDDEN = ("127.0.0.1", "sandbox-echo", "sandbox-fault", UPSTREAM_KEY)


def offer(bench: Bench) -> None:
    good = msgspec.structs.replace(bench.target("sandbox-echo"), provider="good")
    bad = msgspec.structs.replace(bench.target("sandbox-fault-500"), provider="bad")
    bench.runtime.catalog.snapshot = snapshot(offered(id="two/routes", targets=(good, bad)))


@pytest.mark.asyncio
async def test_a_route_that_was_never_used_tells_what_is_known(bench: Bench) -> None:
    offer(bench)
    call = await bench.call(PATH)
    assert call.status == 200
    shown = call.json["data"]
    assert set(shown) == {"id", "name", "created", "description", "architecture", "endpoints"}
    first, second = shown["endpoints"]
    assert (first["model_id"], first["status"], first["uptime_last_30m"]) == ("two/routes", 0, None)
    assert (first["latency_last_30m"], first["throughput_last_30m"]) == (None, None)
    assert first["pricing"] == second["pricing"] and first["pricing"]["prompt"] == "0.00000015"
    assert "temperature" in first["supported_parameters"] and "seed" not in first["supported_parameters"]
    assert (first["provider_name"], first["tag"]) == (None, None)
    assert not any(word.encode() in call.body for word in (*HIDDEN, '"good"', '"bad"'))


@pytest.mark.asyncio
async def test_they_tell_how_they_did(bench: Bench) -> None:
    offer(bench)
    body = {"model": "two/routes", "messages": [{"role": "user", "content": "one two three"}]}
    for _ in range(4):
        answered = await bench.call(
            "/api/v1/chat/completions", {**body, "provider": {"only": ["good"]}, "stream": True}
        )
        assert answered.status == 200
    for _ in range(FAILURES_TO_REST):
        await bench.call("/api/v1/chat/completions", {**body, "provider": {"only": ["bad"]}})
    good, bad = (await bench.call(PATH)).json["data"]["endpoints"]
    assert (good["status"], good["uptime_last_30m"]) == (0, 100.0)
    for figures in (good["latency_last_30m"], good["throughput_last_30m"]):
        assert 0 < figures["p50"] <= figures["p75"] <= figures["p90"] <= figures["p99"]
    assert (bad["status"], bad["uptime_last_30m"], bad["latency_last_30m"]) == (-2, 0.0, None)


@pytest.mark.asyncio
async def test_the_operator_may_show_the_ids_of_providers_and_nothing_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "SHOW_PROVIDERS", True)
    offer(bench)
    call = await bench.call(PATH)
    assert [(each["provider_name"], each["tag"]) for each in call.json["data"]["endpoints"]] == [
        ("good", "good"), ("bad", "bad"),
    ]  # fmt: skip
    assert not any(word.encode() in call.body for word in HIDDEN)


@pytest.mark.asyncio
async def test_an_unknown_model_has_none_and_a_sandbox_key_sees_its_own(bench: Bench) -> None:
    offer(bench)
    call = await bench.call("/api/v1/models/nobody/endpoints")
    assert (call.status, call.json["error"]["code"]) == (404, "model_not_found")
    bench.limit(sandbox=True)
    call = await bench.call(PATH)
    assert (call.status, call.json["error"]["code"]) == (403, "live_model_with_sandbox_key")


def test_percentiles_are_right_to_within_a_tenth() -> None:
    measures = RouteMeasures(Clock())
    for number in range(1, 1_001):
        measures.note_speed(float(number), 0.0)
    assert measures.tokens_per_s() is None
    latency = measures.latency_ms()
    assert latency is not None
    for percent in (50, 75, 90, 99):
        assert latency[f"p{percent}"] == pytest.approx(10 * percent, rel=0.1)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 10.0**12])
def test_odd_speeds_are_counted(value: float) -> None:
    measures = RouteMeasures(Clock())
    measures.note_speed(value, value)
    assert measures.latency_ms() is not None


def test_what_is_older_than_half_an_hour_is_forgotten() -> None:
    clock = Clock(1_000_000.0)
    measures = RouteMeasures(clock)
    measures.note_failed()
    measures.note_speed(5_000.0, 1.0)
    clock.now += SLOT_S
    measures.note_answered()
    assert measures.uptime() == pytest.approx(2 / 3)
    clock.now += (SLOTS - 1) * SLOT_S  # now only what came second is left
    assert (measures.uptime(), measures.latency_ms()) == (1.0, None)
    for _ in range(3 * SLOTS):
        clock.now += SLOT_S
        measures.note_answered()
    assert measures.uptime() == 1.0
    clock.now += SLOTS * SLOT_S
    assert measures.uptime() is None
