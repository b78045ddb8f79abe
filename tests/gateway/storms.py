"""Workers without a door: journal, reservations and a connection of their own, and requests that end at random."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from apps.billing.admission import ADMIT, GROW, RENEW, SETTLE, Admitted, Demand, Refused
from apps.billing.journals import site_of
from apps.billing.rebuilding import rebuild
from apps.catalog.contracts import Price
from apps.core.errors import Unavailable
from apps.core.ids import new_id
from apps.core.limits import Limits
from apps.core.scripts import ScriptClient
from apps.gateway.admission.reservations import Reservations
from apps.gateway.server.bridge import DatabaseBridge
from apps.usage.contracts import RequestClosed
from apps.usage.journal import Journal
from tests.factories import PRICE, closed, opened


@dataclass
class Worker:
    """One gateway process as the store and the journal see it."""

    journal: Journal
    reservations: Reservations
    bridge: DatabaseBridge
    price: Price = PRICE
    ended: list[RequestClosed] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    away: int = 0
    most_at_once: int = 0
    running: int = 0

    async def request(self, demand: Demand, *, lasting_s: float = 0.0, cost: Callable[[int], int]) -> None:
        """One request; `cost` says what it costs, given its hold."""
        try:
            answer = await self.reservations.reserve(demand)
        except Unavailable:
            self.away += 1
            return
        if not isinstance(answer, Admitted):
            self.refused.append(answer)
            return
        entry = opened(
            request_id=demand.request_id, organization_id=demand.organization_id, project_id=demand.project_id,
            key_id=demand.key_id, hold_nanos=answer.hold_nanos, price=self.price,
        )  # fmt: skip
        self.journal.open_request(entry)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await asyncio.sleep(lasting_s)
        finally:
            self.running -= 1
            end = closed(entry, cost_nanos=cost(answer.hold_nanos))
            self.ended.append(end)
            self.journal.close_request(end, then=partial(self._settle, end))

    def _settle(self, end: RequestClosed) -> None:
        self.reservations.settle(end)

    @property
    def spent(self) -> int:
        return sum(end.cost_nanos for end in self.ended)


@asynccontextmanager
async def running_worker(
    journals: Path,
    *,
    price: Price = PRICE,
    make_states: Callable[[Sequence[str], Path], None] = rebuild,
) -> AsyncIterator[Worker]:
    """A worker with its own connection; `make_states` stands for the rebuild where there is no database."""
    bridge = DatabaseBridge()
    store = ScriptClient([ADMIT, GROW, SETTLE, RENEW])
    reservations = Reservations(
        store, lambda owners: bridge.read(partial(make_states, owners, journals)), site=site_of(journals)
    )
    tasks = [asyncio.create_task(store.run()), asyncio.create_task(reservations.run())]
    worker = Worker(Journal(journals, max_bytes=1 << 30), reservations, bridge, price)
    try:
        yield worker
        await reservations.drain()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        bridge.close()
        worker.journal.close()


def demand(organization_id: str, most: int, *, least: int | None = None, **changes: Any) -> Demand:
    """What a request of the key `key_1` needs."""
    values: dict[str, Any] = {
        "request_id": new_id("req"), "organization_id": organization_id, "key_id": "key_1", "project_id": "proj_1",
        "most_nanos": most, "least_nanos": most if least is None else least, "tokens": 10, "key_limits": Limits(),
    }  # fmt: skip
    return Demand(**(values | changes))


def any_part(chance: random.Random) -> Callable[[int], int]:
    """A request that costs nothing, all of its hold, or something between."""
    return lambda hold: chance.choice((0, hold, chance.randint(0, hold)))
