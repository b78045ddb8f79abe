"""Keeps the worker's catalog and price book current: on announcement at once, else by asking for its version."""

import asyncio
import logging
from typing import Final

import msgspec

from apps.billing.pricing.book import PriceBook
from apps.billing.pricing.loading import load_book
from apps.catalog.contracts import CatalogSnapshot
from apps.catalog.snapshot import load_snapshot, read_version
from apps.core.errors import Unavailable
from apps.gateway.providers import PROVIDERS
from apps.gateway.server.bridge import LastingBridge

POLL_S: Final = 1.0
log = logging.getLogger(__name__)


def servable(snapshot: CatalogSnapshot) -> CatalogSnapshot:
    """The snapshot without routes in a dialect that this gateway does not speak, and without models that need one."""
    models = {}
    for model in snapshot.models.values():
        targets = tuple(target for target in model.targets if target.dialect in PROVIDERS)
        shadows = tuple(target for target in model.shadows if target.dialect in PROVIDERS)
        if targets:
            models[model.id] = msgspec.structs.replace(model, targets=targets, shadows=shadows)
        else:
            log.warning("model left out: no route in a dialect that is spoken here", extra={"model": model.id})
    return msgspec.structs.replace(snapshot, models=models)


class CatalogFeed:
    """The newest snapshot that could be loaded; None until the first one."""

    def __init__(self) -> None:
        self._bridge = LastingBridge("catalog", threads=1)
        self._changed = asyncio.Event()
        self.is_loaded = asyncio.Event()
        self.snapshot: CatalogSnapshot | None = None
        self.book = PriceBook()
        """How the prices of organizations differ from the list."""

    def note_change(self) -> None:
        """Look for a new version now."""
        self._changed.set()

    async def run(self) -> None:
        """Refresh until cancelled. With the database away the last snapshot stays in force."""
        while True:
            self._changed.clear()
            try:
                await self.refresh()
            except Unavailable:
                log.warning("catalog not refreshed: the database is away")
            try:
                async with asyncio.timeout(POLL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """Read nothing more."""
        self._bridge.close()

    async def refresh(self) -> None:
        """Load the snapshot and the price book if their version changed: both or neither. Raises Unavailable.

        The book is read last: should it be newer than the snapshot, so is the version at the next look."""
        version = await self._bridge.run(read_version)
        if self.snapshot is None or version != self.snapshot.version:
            snapshot = servable(await self._bridge.run(load_snapshot))
            self.book = await self._bridge.run(load_book)
            self.snapshot = snapshot
            self.is_loaded.set()
            log.info("catalog loaded", extra={"version": version, "models": len(self.snapshot.models)})
