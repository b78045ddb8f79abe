"""What became of an idempotency key: waits while its first request runs, and looks for one that gives no sign."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Final, Protocol

from django.conf import settings

from apps.gateway.idempotency.claims import Claims, Found, KeyedRequest, State
from apps.gateway.receipts import Receipts
from apps.keys.contracts import KeyGrant

FIRST_PAUSE_S: Final = 0.05
LAST_PAUSE_S: Final = 0.5
MAX_WAITING: Final = 1_000
"""Repetitions that wait in one worker for their first; more are told to come back."""
MAX_WAITING_OF_KEY: Final = 100
"""So many of them of one API key."""
MAX_LOST: Final = 10
"""So many lost requests are looked for on behalf of one: each has cost nothing, or there are no more."""


class Pauses(Protocol):
    """For how many milliseconds a server must not be believed that may have forgotten keys of an organization."""

    def emptied(self, organization_id: str) -> Awaitable[int]:
        """It knows nothing of them."""

    def restarted(self, organization_id: str, *, told_ms: int, age_ms: int) -> Awaitable[int]:
        """It was restarted `age_ms` ago and is known to remember everything until `told_ms` (Unix)."""


class IdempotencyKeys:
    """The idempotency keys that requests of this worker bring."""

    def __init__(self, claims: Claims, receipts: Receipts, pauses: Pauses) -> None:
        self.claims = claims
        self._receipts = receipts
        self._pauses = pauses
        self._waiting_of: Counter[str] = Counter()

    async def find(self, grant: KeyGrant, keyed: KeyedRequest) -> Found:
        """TAKEN: the request must answer, with `claims.begin`. Otherwise what became of the one that has the key, which
        is waited for while it runs, no longer than the limit. Raises Unavailable without Redis, and without PostgreSQL
        when that is needed."""
        found = await self._look(grant, keyed)
        if found.state is not State.RUNNING or not self._may_wait(grant.key_id):
            return found
        loop = asyncio.get_running_loop()
        deadline, pause_s = loop.time() + settings.IDEMPOTENCY_WAIT_S, FIRST_PAUSE_S
        self._waiting_of[grant.key_id] += 1
        try:
            while found.state is State.RUNNING and loop.time() < deadline:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, LAST_PAUSE_S)
                found = await self._look(grant, keyed)
        finally:
            self._waiting_of -= Counter({grant.key_id: 1})
        return found

    def _may_wait(self, key_id: str) -> bool:
        return self._waiting_of[key_id] < MAX_WAITING_OF_KEY and self._waiting_of.total() < MAX_WAITING

    async def _look(self, grant: KeyGrant, keyed: KeyedRequest) -> Found:
        """Claim the key, or learn what became of it."""
        found = await self.claims.take(keyed)
        owner = keyed.organization_id
        if found.state is State.UNKNOWN:
            await self.claims.open(keyed, closed_ms=await self._pauses.emptied(owner))
            found = await self.claims.take(keyed)
        elif found.state is State.RESTARTED:
            closed_ms = await self._pauses.restarted(owner, told_ms=found.told_ms, age_ms=found.age_ms)
            await self.claims.open(keyed, closed_ms=closed_ms, epoch=found.epoch)
            found = await self.claims.take(keyed)
        for _ in range(MAX_LOST):
            if found.state is not State.LOST:
                break
            receipt = await self._receipts.find(grant, found.request_id)
            if receipt is None:
                break
            if receipt.closed.cost_nanos:
                self.claims.spend(keyed, found.request_id, receipt.closed.cost_nanos)
                return Found(State.SPENT, found.request_id, receipt.closed.cost_nanos)
            found = await self.claims.take(keyed, instead_of=found.request_id)
        return found
