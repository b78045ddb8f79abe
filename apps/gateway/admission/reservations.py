"""Money and limits of the requests of one worker: reserved before the upstream, renewed meanwhile, settled after.

Settling never waits and no client can cancel it: calls stand in one queue, in the order in which they were made. What
the store did not take is tried again until it does; if this process dies first, whoever ships its journal settles.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from apps.billing.admission import (
    ADMIT,
    GROW,
    HOLD_MS,
    LEASE_MS,
    RENEW,
    SETTLE,
    Admitted,
    Demand,
    Grown,
    HoldUnknown,
    Refused,
    read_admission,
    read_growth,
    release_arguments,
    settle_arguments,
)
from apps.billing.balance_cache import money_key
from apps.billing.rebuilding import UNOPENED_S, RebuildFailed
from apps.core.crash_points import crash_point
from apps.core.errors import Unavailable
from apps.core.scripts import Argument, ScriptClient, StoreAway
from apps.usage.contracts import RequestClosed

RENEW_S: Final = 10.0
RENEW_PART: Final = 250
"""So many requests are renewed in one call: meanwhile the store serves nobody else."""
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 2.0
MAX_UNSETTLED: Final = 200_000
"""Settlements that wait for the store; beyond that the journal alone remembers."""
REBUILDS: Final = 5
"""How often a request waits for a rebuild that something invalidates again before it is told to come back."""
REBUILD_BATCH: Final = 50
REBUILD_PAUSE_S: Final = 0.5
"""After the rebuild of an organization failed nobody waits for its next one for so long."""
GROW_PATIENCE_S: Final = 5.0
"""So long a running answer waits for a store that is away before it ends."""
GROW_PAUSE_S: Final = 0.1
DRAIN_S: Final = 2.0

log = logging.getLogger(__name__)

Rebuild = Callable[[Sequence[str]], Awaitable[None]]
"""Makes the money state of these organizations be there. Raises Unavailable; RebuildFailed when only some failed."""

NoteHold = Callable[[int], bool]
"""Writes to the journal what a request holds by now, in nanos; whether it stands there."""


class _Running(msgspec.Struct):
    """An admitted request that has not ended."""

    organization_id: str
    packed: bytes
    generation: bytes


class _Ending(msgspec.Struct, frozen=True):
    """A settlement on its way."""

    organization_id: str
    arguments: tuple[Argument, ...]


class Reservations:
    """Made on the event loop of its worker, which runs `run` for as long as it lives."""

    def __init__(self, store: ScriptClient, rebuild: Rebuild, *, site: str = "") -> None:
        """`site` names the journals that will know the requests (`apps.billing.journals.site_of`)."""
        self._store = store
        self._site = site
        self._rebuilds = _Rebuilds(rebuild)
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, _Running] = {}
        self._generations: dict[str, bytes] = {}
        self._settling = 0
        self._unsettled: deque[_Ending] = deque()
        self._watchers: dict[str, Callable[[RequestClosed], None]] = {}

    @property
    def running_requests(self) -> int:
        """Requests that hold something."""
        return len(self._running)

    @property
    def unsettled_requests(self) -> int:
        """Requests that have ended and are not settled yet."""
        return self._settling + len(self._unsettled)

    async def reserve(self, demand: Demand) -> Admitted | Refused:
        """Take everything or nothing. Raises Unavailable when the store or, for a rebuild, the database is away.

        Once this returns Admitted, `settle` or `release` must follow whatever happens."""
        answer = None
        if demand.is_again:
            self._running.pop(demand.request_id, None)  # what it held so far must not be asserted any more
        for _ in range(REBUILDS):
            answer = await self._ask(demand)
            if answer is not None:
                break
            await self._rebuilds.wait_for(demand.organization_id)
        if answer is None:
            raise Unavailable("the money of your organization is being counted again")
        if isinstance(answer, Admitted):
            self._learn(demand.organization_id, answer.generation)
            self._running[demand.request_id] = _Running(demand.organization_id, answer.packed, answer.generation)
        return answer

    async def grow(self, demand: Demand, *, wanted_nanos: int, tokens: int, note: NoteHold) -> Grown:
        """Let a running request hold `wanted_nanos` in all, for so many tokens more, or as much as there is.

        `note` writes what is held by now to the journal; a hold that does not stand there is not used. A store that is
        away is waited for. Raises Unavailable when it stays away."""
        deadline = self._loop.time() + GROW_PATIENCE_S
        while True:
            try:
                grown = await self._ask_more(demand, wanted_nanos, tokens, note)
                if grown is not None:
                    return grown
                await self._rebuilds.wait_for(demand.organization_id)
            except Unavailable:
                if self._loop.time() > deadline:
                    raise
                await asyncio.sleep(GROW_PAUSE_S)
            if self._loop.time() > deadline:
                raise Unavailable("the money of your organization is being counted again")

    async def wait_for_money(self, organization_id: str) -> None:
        """Have the money state of the organization rebuilt. Raises Unavailable when that fails."""
        await self._rebuilds.wait_for(organization_id)

    def settle(self, closed: RequestClosed) -> None:
        """The request has ended and its end stands in the journal: until then it is renewed."""
        self._running.pop(closed.opened.request_id, None)
        self._end(_Ending(closed.opened.organization_id, settle_arguments(closed)))
        if self._watchers and (told := self._watchers.pop(closed.opened.request_id, None)) is not None:
            told(closed)

    def watch(self, request_id: str, told: Callable[[RequestClosed], None]) -> None:
        """Have the end of a request told, once, when it stands in the journal; `unwatch` when it will have none."""
        self._watchers[request_id] = told

    def unwatch(self, request_id: str) -> None:
        """Nobody waits for the end of this request any more."""
        self._watchers.pop(request_id, None)

    def is_running(self, request_id: str) -> bool:
        """Whether it holds something: it was admitted, and its end does not stand in the journal yet."""
        return request_id in self._running

    def release(self, demand: Demand) -> None:
        """The request never ran: give everything back."""
        self._running.pop(demand.request_id, None)
        self._end(_Ending(demand.organization_id, release_arguments(demand)))

    async def run(self) -> None:
        """Renew what runs and try settlements again, until cancelled."""
        renew_at = self._loop.time() + RENEW_S
        pause_s = FIRST_RETRY_S
        while True:
            await asyncio.sleep(pause_s)
            if self._unsettled and not self._store.is_away:
                self._try_again()
                pause_s = min(pause_s * 2, LAST_RETRY_S)
            else:
                pause_s = FIRST_RETRY_S
            if self._loop.time() >= renew_at:
                renew_at = self._loop.time() + RENEW_S
                self.renew()

    def renew(self) -> None:
        """Say which requests still run, in one call an organization."""
        by_organization: dict[str, list[str]] = defaultdict(list)
        for request_id, running in self._running.items():
            by_organization[running.organization_id].append(request_id)
        for organization_id, request_ids in by_organization.items():
            self._assert_running(organization_id, request_ids)
        self._generations = {owner: self._generations[owner] for owner in by_organization if owner in self._generations}

    async def drain(self, limit_s: float = DRAIN_S) -> None:
        """Wait until everything is settled, no longer than the limit; the journal remembers the rest."""
        deadline = self._loop.time() + limit_s
        while self.unsettled_requests and self._loop.time() < deadline:
            if not self._store.is_away:
                self._try_again()
            await asyncio.sleep(0.005)

    async def _ask(self, demand: Demand) -> Admitted | Refused | None:
        """One call. A request whose caller leaves, or whose answer comes too late to be trusted, is given up."""
        asked_at = self._loop.time()
        may_be_taken = True
        try:
            reply = await self._store.call(
                ADMIT, money_key(demand.organization_id), *demand.arguments(HOLD_MS, self._site)
            )
            if self._loop.time() - asked_at > UNOPENED_S:
                raise Unavailable("this gateway is too busy")
            may_be_taken = False
            return read_admission(reply)
        except StoreAway as error:
            may_be_taken = error.was_sent
            raise
        finally:
            if may_be_taken:
                self.release(demand)

    async def _ask_more(self, demand: Demand, wanted_nanos: int, tokens: int, note: NoteHold) -> Grown | None:
        """One call. None: the money, or the hold in it, was not known, and it is worth asking again.

        An answer that comes later than a rebuild would wait for it is not used: the money may be somebody else's."""
        running = self._running.get(demand.request_id)
        if running is None:
            raise Unavailable("this request has ended")
        asked_at = self._loop.time()
        arguments = demand.growth_arguments(running.packed, wanted_nanos=wanted_nanos, tokens=tokens, hold_ms=HOLD_MS)
        reply = await self._store.call(GROW, money_key(demand.organization_id), *arguments)
        if self._loop.time() - asked_at > UNOPENED_S:
            raise Unavailable("this gateway is too busy")
        try:
            grown = read_growth(reply)
        except HoldUnknown as unknown:
            self._learn(demand.organization_id, unknown.generation)
            self._assert_running(demand.organization_id, [demand.request_id])
            return await self._ask_more(demand, wanted_nanos, tokens, note)
        if grown is not None:
            if not note(grown.hold_nanos):
                raise Unavailable("usage cannot be recorded right now")
            running.packed = grown.packed
            self._learn(demand.organization_id, grown.generation)
        return grown

    def _end(self, ending: _Ending) -> None:
        self._settling += 1
        reply = self._store.call(SETTLE, money_key(ending.organization_id), *ending.arguments)
        reply.add_done_callback(lambda done: self._ended(ending, done))

    def _ended(self, ending: _Ending, reply: "asyncio.Future[list[object]]") -> None:
        self._settling -= 1
        if reply.cancelled() or reply.exception() is not None:
            self._unsettled.append(ending)
            if len(self._unsettled) > MAX_UNSETTLED:
                self._unsettled.popleft()
                log.error("too many settlements wait for the store: the oldest is left to the journal")
            return
        crash_point("P11")
        generation = reply.result()[1]
        if isinstance(generation, bytes):
            self._learn(ending.organization_id, generation)

    def _try_again(self) -> None:
        waiting, self._unsettled = self._unsettled, deque()
        for ending in waiting:
            self._end(ending)

    def _learn(self, organization_id: str, generation: bytes) -> None:
        """The money state in force. A new one may not know requests of ours that were just being opened: tell it."""
        known = self._generations.get(organization_id)
        if not generation or generation == known:
            return
        self._generations[organization_id] = generation
        if known is not None:
            mine = [name for name, running in self._running.items() if running.organization_id == organization_id]
            if mine:
                self._assert_running(organization_id, mine)

    def _assert_running(self, organization_id: str, request_ids: Sequence[str]) -> None:
        """In parts, each once the one before it is answered: what was asked for meanwhile goes between them."""
        part, rest = request_ids[:RENEW_PART], request_ids[RENEW_PART:]
        entries = [entry for name in part for entry in (name, self._running[name].packed)]
        reply = self._store.call(
            RENEW,
            money_key(organization_id),
            self._generations.get(organization_id, b""),
            HOLD_MS,
            LEASE_MS,
            *entries,
        )
        reply.add_done_callback(lambda done: self._renewed(organization_id, rest, done))

    def _renewed(self, organization_id: str, rest: Sequence[str], reply: "asyncio.Future[bytes]") -> None:
        """The `rest` is still to be renewed, as far as it runs. After a failure the next time will do."""
        if reply.cancelled() or reply.exception() is not None:
            return
        self._learn(organization_id, reply.result())
        if running := [name for name in rest if name in self._running]:
            self._assert_running(organization_id, running)


class _Rebuilds:
    """At most one rebuild at a time in this process, for all organizations that wait for one."""

    def __init__(self, rebuild: Rebuild) -> None:
        self._rebuild = rebuild
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._failed: dict[str, tuple[float, Unavailable]] = {}
        """Until when nobody waits for these organizations, and why."""

    async def wait_for(self, organization_id: str) -> None:
        """Return when a rebuild that began after this call has ended. Raises Unavailable when it failed."""
        until, error = self._failed.get(organization_id, (0.0, None))
        if error is not None and self._loop.time() < until:
            raise Unavailable(error.message)
        future = self._waiting.get(organization_id)
        if future is None:
            future = self._waiting[organization_id] = self._loop.create_future()
            future.add_done_callback(_retrieve)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="rebuild")
        await asyncio.shield(future)

    async def _work(self) -> None:
        batch: dict[str, asyncio.Future[None]] = {}
        try:
            while self._waiting:
                batch = {owner: self._waiting.pop(owner) for owner in list(self._waiting)[:REBUILD_BATCH]}
                failed = await self._try(list(batch))
                self._remember(failed)
                for owner, future in batch.items():
                    if owner in failed:
                        future.set_exception(failed[owner])
                    else:
                        future.set_result(None)
        finally:  # whoever waits gets an answer, also when this process stops
            for future in (*batch.values(), *self._waiting.values()):
                if not future.done():
                    future.set_exception(Unavailable("the money of your organization cannot be counted right now"))
            self._waiting.clear()

    async def _try(self, organization_ids: list[str]) -> dict[str, Unavailable]:
        """Those that could not be rebuilt, and why."""
        try:
            await self._rebuild(organization_ids)
        except RebuildFailed as error:
            return {owner: error for owner in organization_ids if owner in error.owners}
        except Unavailable as error:
            log.warning("the money state cannot be rebuilt: %s", error.message)
            return dict.fromkeys(organization_ids, error)
        except Exception:  # the edge of a task: requests wait for it, and must get an answer
            log.exception("the money state cannot be rebuilt")
            return dict.fromkeys(organization_ids, Unavailable("the money of your organization cannot be counted now"))
        return {}

    def _remember(self, failed: dict[str, Unavailable]) -> None:
        now = self._loop.time()
        self._failed = {owner: entry for owner, entry in self._failed.items() if entry[0] > now}
        self._failed |= {owner: (now + REBUILD_PAUSE_S, error) for owner, error in failed.items()}


def _retrieve(future: "asyncio.Future[None]") -> None:
    """Look at the outcome even when every caller has left, so that no error is reported as never retrieved."""
    if not future.cancelled():
        future.exception()
