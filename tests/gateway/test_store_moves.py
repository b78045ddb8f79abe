"""The store becomes a replica of another server: nobody keeps talking to it."""

import asyncio
from typing import Any

import pytest

from tests.gateway.storms import demand
from tests.gateway.test_money import Till, funded, short_connections, till

__all__ = ["funded", "short_connections", "till"]
pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]


async def test_a_store_that_may_not_be_written_is_away_and_connected_to_anew(till: Till, empty_store: Any) -> None:
    worker = till.workers[0]
    await worker.request(demand(till.owner, 1), cost=lambda hold: 0)
    store = worker.reservations._store
    before = store._link
    empty_store.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        await worker.request(demand(till.owner, 1), cost=lambda hold: 0)
        assert (worker.away, store.is_away, store._link) == (1, True, None)
        await worker.request(demand(till.owner, 1), cost=lambda hold: 0)
        assert worker.away == 2
    finally:
        empty_store.execute_command("REPLICAOF", "NO", "ONE")
    await asyncio.sleep(1.1)
    await worker.request(demand(till.owner, 1), cost=lambda hold: 0)
    await till.settled()
    assert len(worker.ended) == 2 and store._link is not before
    till.check(empty_store)
