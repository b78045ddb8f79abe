"""However a request ends, and whatever stands in its way: its hold is given back, and its record is closed once."""

import asyncio
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from apps.core.limits import Limits
from apps.gateway.load import doorway
from apps.gateway.load.shedding import Level
from apps.policies.contracts import Policy
from apps.usage.contracts import RequestClosed, RequestOpened
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.gateway.own_keys import own_key
from tests.policies.rules import keywords, models, personal

pytestmark = pytest.mark.asyncio
REQUESTS = 240
PATHS = ("chat/completions", "messages", "responses", "completions")
PACES: tuple[dict[str, Any], ...] = ({}, {}, {"delay_ms": 40}, {"chunk_delay_ms": 10})
FAULTS = (
    "echo", "echo", "echo", "fault-429", "fault-500", "fault-refuse", "fault-cut-2", "fault-reset-1", "fault-torn",
    "fault-no-usage", "fault-error-event-2", "fault-bad-json", "fault-huge-usage",
)  # fmt: skip


def offer(bench: Bench, upstream_model: str) -> None:
    """Two models with two providers each; where the first is wanted and fails, the second may be."""
    target = bench.target("sandbox-echo")
    for name, model in (("first", upstream_model), ("second", "sandbox-echo")):
        routes = tuple(
            msgspec.structs.replace(target, provider=provider, upstream_model=model) for provider in ("local", "other")
        )
        bench.models[name] = offered(id=name, targets=routes)
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


def policies(bench: Bench) -> list[Policy | None]:
    """With own keys (one that is taken, one that is not), with guardrails, with both, and without."""
    url = bench.models["base"].targets[0].base_url
    good = own_key(bench.target("sandbox-echo").api_key, base_url=url, name="cred_good")
    bad = own_key("sk-refused-by-all", base_url=url, name="cred_bad")
    rules = (keywords("blocked"), personal(), models(denied=("nobody",)))
    return [
        None,
        Policy(credentials=(good,)),
        Policy(credentials=(bad, good), guardrails=rules),
        Policy(credentials=(msgspec.structs.replace(bad, is_exclusive=True),)),
        Policy(guardrails=rules),
    ]


def begin(bench: Bench, dice: random.Random, number: int) -> Call:
    path, text = dice.choice(PATHS), dice.choice(("one two three", "one two three", "this is blocked", "a@b.org " * 40))
    body: dict[str, Any] = {"model": dice.choice(("first", "second")), "stream": dice.random() < 0.6}
    if body["model"] == "first":
        body["sandbox"] = dice.choice(PACES)
    if path == "responses":
        body["input"] = text
    elif path == "completions":
        body["prompt"] = text
    else:
        body["messages"] = [{"role": "user", "content": text}]
    if path == "messages":
        body["max_tokens"] = 50
    if body["model"] == "first" and dice.random() < 0.5:
        body["models"] = ["second"]
    headers = {"authorization": f"Bearer {bench.key}", "content-type": "application/json"}
    if dice.random() < 0.5:
        headers["x-crun-cache"] = dice.choice(("on", "refresh"))
    if dice.random() < 0.2:
        headers["idempotency-key"] = f"key {number % 20}"
    return bench.start(f"/api/v1/{path}", body, headers=headers, is_direct=dice.random() < 0.7)


async def test_every_hold_is_given_back(bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    monkeypatch.setattr(doorway, "STARTS_ALONE", 2)
    bench.runtime.doorway._starts_per_turn = 2
    dice = random.Random(17)
    calls = []
    offers = policies(bench)
    for number in range(REQUESTS):
        limits = Limits(requests_per_minute=dice.choice((None, 10_000)), concurrency=dice.choice((None, 6)))
        bench.limit(policy=dice.choice(offers), key_limits=limits)
        offer(bench, f"sandbox-{dice.choice(FAULTS)}")
        bench.runtime.shedding.level = dice.choice((Level.NONE, Level.NONE, Level.NONE, Level.ALL))
        call = begin(bench, dice, number)
        calls.append(call)
        if dice.random() < 0.4:
            asyncio.get_running_loop().call_later(dice.choice((0, 0.001, 0.01, 0.05)), call.leave)
        await asyncio.sleep(dice.choice((0, 0, 0, 0.003)))
    async with asyncio.timeout(60):
        await asyncio.gather(*(call.task for call in calls if call.task), return_exceptions=True)
        while bench.runtime.reservations.running_requests or bench.runtime.reservations.unsettled_requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (bench.runtime.doorway.waiting, bench.runtime.transport.open_connections) == (0, 0)
    assert empty_store.hlen("crun:{org_1}:holds") == empty_store.zcard("crun:{org_1}:expiry") == 0
    assert int(empty_store.hget("crun:{org_1}:money", "held")) == 0
    entries = bench.journal()
    ends = Counter(entry.opened.request_id for entry in entries if isinstance(entry, RequestClosed))
    assert set(ends.values()) == {1}
    assert ends.keys() == {entry.request_id for entry in entries if isinstance(entry, RequestOpened)}
    closed = [entry for entry in entries if isinstance(entry, RequestClosed)]
    assert all(entry.cost_nanos <= (entry.opened.hold_nanos or 0) and not entry.overage_nanos for entry in closed)
    assert any(entry.opened.cache_hit for entry in closed) and any(entry.opened.is_byok for entry in closed)
    assert any(entry.guardrails for entry in closed) and any(len(entry.attempts) > 1 for entry in closed)
