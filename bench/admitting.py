"""The process that `bench.admission` measures: requests that are admitted and settled, and others that are not."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import orjson
import uvloop

from apps.billing.admission import ADMIT, GROW, INSTALL, RENEW, SETTLE
from apps.billing.balance_cache import money_key
from apps.catalog.contracts import OfferedModel, Price, Target
from apps.core.ids import new_id
from apps.core.limits import Limits
from apps.core.redis import single_try_client
from apps.core.scripts import ScriptClient
from apps.gateway.admission.decision import Admission, reserve
from apps.gateway.admission.reservations import Reservations
from apps.gateway.dialects.chat import parse_chat
from apps.keys.contracts import KeyGrant
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, TokenCounts
from bench.cpu import cpu_s

PRICE = Price(
    version_id=1, starts_at=0.0, input=150_000_000, output=600_000_000, cache_read=75_000_000,
    cache_write=150_000_000, reasoning=600_000_000,
)  # fmt: skip
MODEL = OfferedModel(
    id="bench-model", name="Bench model", vendor="Bench", description="", created=1, context_length=128_000,
    max_output_tokens=16_384, input_modalities=("text",), output_modalities=("text",), tokenizer="",
    targets=(Target("bench", "openai", "http://127.0.0.1:9/v1", "x", 1, ""),), prices=(PRICE,),
)  # fmt: skip
WIDE = Limits(
    requests_per_minute=10**9, tokens_per_minute=10**9, requests_per_day=10**9, concurrency=10**6,
    budget_nanos=10**15, budget_period="month",
)  # fmt: skip
GRANT = KeyGrant(
    key_id="key_bench", organization_id="org_bench", organization_slug="bench", project_id="proj_bench",
    project_slug="default", name="Bench", digest="", created_at=0.0, expires_at=None, revoked_at=None,
    key_limits=WIDE, organization_limits=WIDE,
)  # fmt: skip
BODY = orjson.dumps({"model": "bench-model", "max_tokens": 200, "messages": [{"role": "user", "content": "x" * 300}]})
WITH, WITHOUT = "with limits and money", "without"
STORE = "Valkey, with"

Request = Callable[[], Awaitable[None]]


def main() -> None:
    """Arguments: the store's process id, rounds, requests a round, how many at once. Prints CPU seconds as JSON."""
    valkey, rounds, requests, concurrency = map(int, sys.argv[1:])
    found = uvloop.run(_measure(valkey, rounds, requests, concurrency=concurrency))
    sys.stdout.write(json.dumps(found))


async def _measure(valkey: int, rounds: int, requests: int, *, concurrency: int) -> dict[str, list[float]]:
    store = ScriptClient([ADMIT, GROW, SETTLE, RENEW])
    reservations = Reservations(store, _make_rich)
    work = asyncio.create_task(store.run())
    found: dict[str, list[float]] = {WITHOUT: [], WITH: [], STORE: []}
    kinds: list[tuple[str, Request]] = [(WITHOUT, _alone), (WITH, lambda: _admitted(reservations))]
    for _, request in kinds:
        await _many(request, requests // 10, concurrency)
    for number in range(rounds):
        for name, request in kinds if number % 2 else kinds[::-1]:
            store_before, before = cpu_s(valkey), time.process_time()
            await _many(request, requests, concurrency)
            await reservations.drain()
            found[name].append(time.process_time() - before)
            if name == WITH:
                found[STORE].append(cpu_s(valkey) - store_before)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return found


async def _many(request: Request, requests: int, concurrency: int) -> None:
    async def some() -> None:
        for _ in range(requests // concurrency):
            await request()

    await asyncio.gather(*(some() for _ in range(concurrency)))


async def _alone() -> None:
    """What a request is without limits and money: known, opened, waited for, closed."""
    admission = Admission(new_id("req"), GRANT, parse_chat(BODY), MODEL, PRICE)
    opened = _opened(admission)
    await asyncio.sleep(0)
    _closed(opened)


async def _admitted(reservations: Reservations) -> None:
    admission = Admission(new_id("req"), GRANT, parse_chat(BODY), MODEL, PRICE)
    admission, _ = await reserve(reservations, admission)
    opened = _opened(admission)
    await asyncio.sleep(0)
    reservations.settle(_closed(opened))


def _opened(admission: Admission) -> RequestOpened:
    return RequestOpened(
        request_id=admission.request_id, organization_id="org_bench", project_id="proj_bench", key_id="key_bench",
        model="bench-model", provider="bench", upstream_model="x", streamed=False, price=PRICE, input_estimate=75,
        hold_nanos=admission.hold_nanos,
    )  # fmt: skip


def _closed(opened: RequestOpened) -> RequestClosed:
    return RequestClosed(
        opened=opened, outcome=Outcome.COMPLETED, http_status=200, tokens=TokenCounts(input=80, output=150),
        cost_nanos=102, estimated=False, duration_ms=5,
    )  # fmt: skip


async def _make_rich(organization_ids: Sequence[str]) -> None:
    """In place of a rebuild, which needs a database."""
    client = single_try_client()
    run_id = client.info("server")["run_id"]
    nothing = orjson.dumps({"open": [], "kept": [], "examined": [], "spend": {}})
    for owner in organization_ids:
        for step in (("begin", "rich", 1_000), ("install", "rich", 10**15, 0, 900_000, nothing, 900_000)):
            client.eval(INSTALL.text, 1, money_key(owner), run_id, *step)
    client.close()
