"""What one gateway worker owns while it lives: connections, journal, caches and the tasks that keep them current."""

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
from django.conf import settings

from apps.billing.admission import ADMIT, GROW, RENEW, SETTLE
from apps.billing.journals import site_of
from apps.billing.pricing.book import PriceBook
from apps.billing.rebuilding import rebuild
from apps.billing.standing import LOOK
from apps.catalog.contracts import CatalogSnapshot
from apps.core.errors import Unavailable
from apps.core.scripts import ScriptClient, StoreAway
from apps.core.worker_states import KEPT_S, KEY, SET_STATE, TELL_EVERY_S
from apps.gateway.admission.reservations import Reservations
from apps.gateway.catalog_feed import CatalogFeed
from apps.gateway.changes import listen
from apps.gateway.guardrails.rule_sets import RuleSets
from apps.gateway.idempotency.claims import SCRIPTS as IDEMPOTENCY_SCRIPTS
from apps.gateway.idempotency.claims import Claims
from apps.gateway.idempotency.keys import IdempotencyKeys
from apps.gateway.load.doorway import Doorway
from apps.gateway.load.shedding import Shedding
from apps.gateway.load.utilization import Utilization
from apps.gateway.providers.transport import Transport
from apps.gateway.receipts import Receipts
from apps.gateway.response_cache.store import SCRIPTS as CACHE_SCRIPTS
from apps.gateway.response_cache.store import CachedAnswers
from apps.gateway.routing.health import Upstreams
from apps.gateway.routing.own_credentials import OwnKeys
from apps.gateway.server.bridge import DatabaseBridge
from apps.gateway.shadows import Shadows
from apps.gateway.stored.room import ResponseRoom
from apps.keys.lookup import KeyLookup
from apps.keys.reading import read_grant
from apps.usage.forgetting import pause_ms, restart_pause_ms
from apps.usage.journal import Journal

JOURNAL_CHECK_S: Final = 1.0
CATALOG_WAIT_S: Final = 5.0
log = logging.getLogger(__name__)
_runtimes: "WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime]" = WeakKeyDictionary()


class Runtime:
    """Made on the event loop that it serves."""

    def __init__(self) -> None:
        self.bridge = DatabaseBridge()
        self.catalog = CatalogFeed()
        self.keys = KeyLookup(lambda digests: self.bridge.read(partial(read_grant, digests)), settings.KEY_PEPPERS)
        self.transport = Transport(
            connect_timeout_s=settings.UPSTREAM_CONNECT_TIMEOUT_S,
            private=settings.PRIVATE_UPSTREAMS,
            entra_authority=settings.ENTRA_AUTHORITY,
        )
        self.upstreams = Upstreams(secret=next(iter(settings.KEY_PEPPERS.values())))
        self.own_keys = OwnKeys()
        self.rule_sets = RuleSets()
        self.doorway = Doorway(settings.STARTS_PER_TURN)
        self.shedding = Shedding(settings.SHED_LATE_S, settings.SHED_BUSY_PERCENT / 100)
        self.utilization = Utilization(self.doorway, self.shedding)
        self.journal = Journal(
            settings.JOURNAL_DIR,
            max_bytes=settings.JOURNAL_MAX_BYTES,
            fsync=settings.JOURNAL_FSYNC == "always",
        )
        self.shadows = Shadows(
            self.transport,
            self.journal,
            self.upstreams.affinity,
            is_busy=lambda: bool(self.shedding.level or self.doorway.waiting),
        )
        self.receipts = Receipts(self.bridge, settings.JOURNAL_DIR)
        self.store = ScriptClient([ADMIT, GROW, SETTLE, RENEW, LOOK, SET_STATE])
        self.reservations = Reservations(
            self.store,
            lambda owners: self.bridge.read(partial(rebuild, owners, settings.JOURNAL_DIR)),
            site=site_of(settings.JOURNAL_DIR),
        )
        # A connection of its own: kept answers are large, and money does not wait for them.
        self.memory = ScriptClient(
            [*IDEMPOTENCY_SCRIPTS, *CACHE_SCRIPTS], url=settings.ANSWERS_URL, named="kept answers"
        )
        self.cached_answers = CachedAnswers(self.memory)
        self.stored = ResponseRoom()
        self.claims = Claims(self.memory, self.reservations)
        self.idempotency_keys = IdempotencyKeys(self.claims, self.receipts, _Pauses(self.bridge))
        self._tasks = [
            self._start(self.store.run(), "money and limits"),
            self._start(self.reservations.run(), "reservations"),
            self._start(self.memory.run(), "kept answers"),
            self._start(self.claims.run(), "idempotency keys"),
            self._start(listen(self.keys, self.catalog), "announcements"),
            self._start(self.catalog.run(), "catalog"),
            self._start(self._watch_journal(), "journal"),
            self._start(self._tell_state(), "worker state"),
        ]

    @property
    def snapshot(self) -> CatalogSnapshot:
        """The catalog in force. Raises Unavailable until the first one is loaded."""
        if self.catalog.snapshot is None:
            raise Unavailable("the catalog is not loaded yet")
        return self.catalog.snapshot

    @property
    def book(self) -> PriceBook:
        """The price book in force, as new as the catalog."""
        return self.catalog.book

    def why_not_ready(self) -> str | None:
        """What a new request would miss; None when it can be served."""
        if self.catalog.snapshot is None:
            return "the catalog is not loaded yet"
        dead = [task.get_name() for task in self._tasks if task.done()]
        return f"stopped working: {', '.join(dead)}" if dead else None

    async def close(self) -> None:
        """Settle, stop the tasks, close the connections, hand the journal over to the shipper."""
        self.utilization.stop()
        await self.shadows.stop()
        await self.reservations.drain()
        await self.claims.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.transport.close()
        self.bridge.close()
        self.catalog.close()
        self.stored.close()
        self.rule_sets.close()
        self.journal.close()

    async def _watch_journal(self) -> None:
        """Learn what the shipper freed, and write what the disk refused."""
        while True:
            try:
                self.journal.measure()
                self.journal.retry_unwritten()
            except OSError as error:
                log.error("the journal cannot be written: %s", error)
            await asyncio.sleep(JOURNAL_CHECK_S)

    async def _tell_state(self) -> None:
        """Let the metrics know how busy this worker is."""
        name = KEY.format(name=f"{socket.gethostname()}-{os.getpid()}")
        while True:
            with suppress(StoreAway):  # nobody waits for it
                state = msgspec.structs.replace(self.utilization.state(), not_stored=dict(self.stored.not_stored))
                await self.store.call(SET_STATE, name, msgspec.json.encode(state), KEPT_S)
            await asyncio.sleep(TELL_EVERY_S)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        return asyncio.create_task(work, name=name)


class _Pauses:
    """What the records say of a store that may have forgotten something."""

    def __init__(self, bridge: DatabaseBridge) -> None:
        self._bridge = bridge

    async def emptied(self, organization_id: str) -> int:
        return await self._bridge.read(partial(pause_ms, organization_id, settings.IDEMPOTENCY_TTL_S))

    async def restarted(self, organization_id: str, *, told_ms: int, age_ms: int) -> int:
        ttl_s = settings.IDEMPOTENCY_TTL_S
        return await self._bridge.read(
            partial(restart_pause_ms, organization_id, ttl_s, told_ms=told_ms, age_ms=age_ms)
        )


async def start_runtime(*, catalog_wait_s: float = CATALOG_WAIT_S) -> Runtime:
    """Make the runtime of the running loop, with a catalog: requests may be waiting in the queue already.

    Database away: it starts without one after `catalog_wait_s`, and /readyz says why."""
    runtime = _runtimes[asyncio.get_running_loop()] = Runtime()
    with suppress(TimeoutError):
        async with asyncio.timeout(catalog_wait_s):
            await runtime.catalog.is_loaded.wait()
    return runtime


async def stop_runtime() -> None:
    """Close the runtime of the running loop, if there is one."""
    runtime = _runtimes.pop(asyncio.get_running_loop(), None)
    if runtime is not None:
        await runtime.close()


def current_runtime() -> Runtime:
    """The runtime of the running loop. Raises Unavailable when none was started."""
    runtime = _runtimes.get(asyncio.get_running_loop())
    if runtime is None:
        raise Unavailable("the gateway is not running in this process")
    return runtime
