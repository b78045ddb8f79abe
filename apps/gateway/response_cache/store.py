"""Cached answers in the store. It may be away or full: then nothing is found or kept, and nobody waits."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from django.conf import settings

from apps.core.scripts import Script, ScriptClient, StoreAway
from apps.gateway.kept import room
from apps.gateway.response_cache.answers import CachedAnswer, opened, sealed

MAX_KEEPING: Final = 64
"""Answers on their way to the store; more are not kept, so that a slow store takes no memory."""
_FOLDER: Final = Path(__file__).parent / "scripts"
FIND: Final = Script.of((_FOLDER / "find.lua").read_text())
KEEP: Final = room.script(_FOLDER / "keep.lua")
SCRIPTS: Final = (FIND, KEEP)
log = logging.getLogger(__name__)


class CachedAnswers:
    """The answers that requests of one worker find and keep."""

    def __init__(self, store: ScriptClient) -> None:
        self._store = store
        self.keeping = 0
        """Answers on their way to the store."""

    async def find(self, organization_id: str, name: str) -> CachedAnswer | None:
        """The answer of this name, if it is there and can be read."""
        try:
            content = await self._store.call(FIND, _key(organization_id, name))
        except StoreAway:
            return None
        if not content:
            return None
        return opened(content, organization_id=organization_id, name=name, ring=settings.ENCRYPTION_KEYS)

    def keep(self, organization_id: str, name: str, answer: CachedAnswer, *, ttl_s: int) -> None:
        """Keep the answer for `ttl_s`, in place of an older one. Does not wait, and no failure is told."""
        if self.keeping >= MAX_KEEPING or self._store.is_away:
            return
        content = sealed(answer, organization_id=organization_id, name=name, ring=settings.ENCRYPTION_KEYS)
        self.keeping += 1
        reply = self._store.call(KEEP, _key(organization_id, name), content, 1_000 * ttl_s, *room.bounds())
        reply.add_done_callback(self._kept)

    def _kept(self, reply: "asyncio.Future[int]") -> None:
        self.keeping -= 1
        if not reply.cancelled() and reply.exception() is not None:
            log.info("an answer is not kept: %s", reply.exception())


def _key(organization_id: str, name: str) -> str:
    return f"crun:{{{organization_id}}}:cache:{name}"
