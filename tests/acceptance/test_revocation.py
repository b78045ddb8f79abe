"""A revoked key is refused by every worker within a second; streams that are open may end."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from tests.acceptance.asking import Answer, Caller, caller
from tests.acceptance.installing import Installation
from tests.acceptance.processes import connections
from tests.acceptance.scale import figure, within

pytestmark = pytest.mark.installation

REVOKED_WITHIN_S = 1.0
SLOW = {"chunks": 30, "chunk_delay_ms": 100}  # 3 s


async def a_caller_for_each_worker(stack: AsyncExitStack, installation: Installation, secret: str) -> dict[int, Caller]:
    """Callers with one kept connection each, by the worker that serves it."""
    port = int(installation.url.rpartition(":")[2])
    found: dict[int, Caller] = {}
    for _ in range(200):
        one = await stack.enter_async_context(caller(installation, secret, connections=1))
        before = {pid: set(connections(pid, from_port=port)) for pid in installation.workers()}
        assert (await one.ask("truth-echo")).is_whole
        for pid, known in before.items():
            if set(connections(pid, from_port=port)) - known:
                found.setdefault(pid, one)
        if len(found) == len(before):
            return found
    raise AssertionError(f"only these workers served anything: {list(found)}")


async def _last_served(one: Caller, stop: asyncio.Event) -> float:
    """Ask until refused; the Unix time at which the last request that was served began."""
    last = 0.0
    while not stop.is_set():
        began = time.time()
        answer = await one.ask("no-such-model")
        assert answer.status in (401, 404)
        if answer.status == 404:
            last = began
        await asyncio.sleep(0.01)
    assert answer.status == 401
    assert answer.error["code"] == "invalid_api_key"
    return last


def test_a_revoked_key_is_refused_within_a_second_in_every_worker_and_an_open_stream_ends_well(
    installation: Installation,
) -> None:
    secret, key_id = installation.new_key("to be revoked")

    async def revoke_while_asking() -> tuple[dict[int, float], Answer]:
        stop = asyncio.Event()
        async with AsyncExitStack() as stack, caller(installation, secret) as other:
            callers = await a_caller_for_each_worker(stack, installation, secret)
            stream = asyncio.create_task(other.ask("truth-echo", stream=True, sandbox=SLOW))
            await asyncio.sleep(0.3)
            asking = {pid: asyncio.create_task(_last_served(one, stop)) for pid, one in callers.items()}
            done = await asyncio.to_thread(installation.crun, "key", "revoke", key_id)
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip() == f"{key_id} is revoked"
            await asyncio.sleep(1.5)
            stop.set()
            return {pid: await task for pid, task in asking.items()}, await stream

    last_served, stream = asyncio.run(revoke_while_asking())
    with installation.database() as database:
        row = database.execute(
            "SELECT extract(epoch FROM revoked_at)::float8 AS moment FROM keys_apikey WHERE id = %s", [key_id]
        ).fetchone()
    assert row is not None
    late_s = {pid: last - float(str(row["moment"])) for pid, last in last_served.items()}
    figure("revocation", f"last request served in each worker after {[f'{late:.3f} s' for late in late_s.values()]}")
    assert len(late_s) == 2
    assert max(late_s.values()) < within(REVOKED_WITHIN_S)
    assert stream.is_whole
    assert stream.usage["completion_tokens"] == SLOW["chunks"]
