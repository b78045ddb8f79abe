"""A presented key -> what it allows. Cached in the process; a revocation reaches every process within a second.

How fresh: an announcement drops an entry at once; without one, an entry is read again after FRESH_S. Database away:
known keys are served from the cache up to STALE_S, unknown ones get Unavailable, which is never "invalid key".
"""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from apps.core.crypto import keyed_digests
from apps.core.errors import Unavailable
from apps.keys.contracts import KeyGrant
from apps.keys.keyformat import is_well_formed

FRESH_S: Final = 10.0
STALE_S: Final = 900.0
"""Ten minutes without the database are survived with room to spare. Meanwhile nobody can revoke a key either."""
RETRY_S: Final = 1.0
"""After a failed read the cache is trusted for so long before the database is asked again."""
MAX_ENTRIES: Final = 50_000
_NAME_BYTES: Final = 16
log = logging.getLogger(__name__)

ReadGrant = Callable[[Sequence[str]], Awaitable[KeyGrant | None]]
"""Reads the key with one of these digests from the database. Raises Unavailable."""


@dataclass(slots=True)
class _Entry:
    grant: KeyGrant | None
    read_at: float
    ask_after: float
    last_read_failed: bool = False


class KeyLookup:
    """The cache of one process, owned by its event loop. Times are monotonic seconds."""

    def __init__(
        self, read: ReadGrant, peppers: Mapping[str, bytes], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._peppers = peppers
        self._clock = clock
        self._cache_key = os.urandom(32)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._reading: dict[bytes, asyncio.Task[KeyGrant | None]] = {}

    async def find(self, presented: str) -> KeyGrant | None:
        """The grant of a usable key; None for one that is malformed, unknown, revoked or expired.

        Raises Unavailable when that cannot be known."""
        grant = await self.find_any(presented)
        return grant if grant is not None and self.is_usable(grant) else None

    @staticmethod
    def is_usable(grant: KeyGrant) -> bool:
        """Whether the key works at this moment."""
        return grant.is_usable(time.time())

    async def find_any(self, presented: str) -> KeyGrant | None:
        """The grant of a key, also of one that was revoked or has expired; None for one that is malformed or unknown.

        Raises Unavailable when that cannot be known."""
        name = self._cache_name(presented)
        entry = self._entries.get(name)
        if entry is not None and self._clock() < entry.ask_after:
            return entry.grant
        if is_well_formed(presented):
            return await self._refresh(name, keyed_digests(presented, self._peppers), entry)
        return None

    def forget(self, digest: str) -> None:
        """Something about the key with this stored digest changed: read it again before it is used again."""
        stale = [name for name, entry in self._entries.items() if entry.grant and entry.grant.digest == digest]
        for name in stale:
            del self._entries[name]
        # A read that is under way may have seen the key as it was: its result is used once and not kept.
        self._reading.clear()

    def distrust(self, organization_id: str = "") -> None:
        """Announcements may have been missed: read every key, or those of one organization, again before its next use.

        With the database away they are served on as they were, like every known key."""
        for entry in self._entries.values():
            if not organization_id or (entry.grant is not None and entry.grant.organization_id == organization_id):
                entry.ask_after = 0.0
        self._reading.clear()

    def _cache_name(self, presented: str) -> bytes:
        """What a key is cached under: a hash with a key of this process, so that no API key stands in its memory."""
        return blake2b(presented.encode("utf-8", "replace"), key=self._cache_key, digest_size=_NAME_BYTES).digest()

    async def _refresh(self, name: bytes, digests: Sequence[str], entry: _Entry | None) -> KeyGrant | None:
        """Read the key; all who ask at the same time share one read, which no caller's leaving cancels."""
        task = self._reading.get(name)
        if task is None:
            task = self._reading[name] = asyncio.create_task(self._read_into_cache(name, digests))
            task.add_done_callback(_retrieve)
        now = self._clock()
        may_be_stale = entry is not None and now - entry.read_at <= STALE_S
        if entry is not None and entry.last_read_failed and may_be_stale:
            entry.ask_after = now + RETRY_S  # the store hangs or is away: nobody waits for it to come back
            return entry.grant
        try:
            return await asyncio.shield(task)
        except Unavailable:
            if entry is None or not may_be_stale:
                raise
            entry.last_read_failed = True
            entry.ask_after = self._clock() + RETRY_S
            return entry.grant

    async def _read_into_cache(self, name: bytes, digests: Sequence[str]) -> KeyGrant | None:
        task = asyncio.current_task()
        try:
            grant = await self._read(digests)
        finally:
            is_current = self._reading.get(name) is task
            if is_current:
                del self._reading[name]
        if grant is not None and grant.digest not in digests:
            log.error("a grant of another key was refused", extra={"key_id": grant.key_id})
            grant = None
        if is_current:
            now = self._clock()
            self._entries[name] = _Entry(grant, now, now + FRESH_S)
            self._entries.move_to_end(name)
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)
        return grant


def _retrieve(task: "asyncio.Task[KeyGrant | None]") -> None:
    """Look at the outcome even when every caller has left, so that no error is reported as never retrieved."""
    if not task.cancelled():
        task.exception()
