"""Stored responses in PostgreSQL, for one worker. All that takes long, or waits, is done in threads."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from django.conf import settings

from apps.core.errors import ConfigurationError, Unavailable
from apps.gateway.dialects.responses.history import Turn, read_turn
from apps.gateway.server.bridge import Busy, LastingBridge, TooSlow
from apps.gateway.stored.conversations import ConversationRoom, Earlier, items_before, keep_turn
from apps.gateway.stored.reading import Readers
from apps.keys.contracts import KeyGrant
from apps.responses import keeping
from apps.responses.contracts import OpenedResponse, ResponseOwner
from apps.responses.forgetting import evict

MAX_CHAIN_BYTES: Final = 20 << 20
"""Of a conversation with its media, as of a body: one that is larger could not be sent whole either."""
LOOKS_PER_ROOM: Final = 16
"""An organization's room is looked after whenever this worker has filled a sixteenth of it."""
MAX_OWNERS: Final = 10_000
"""Organizations whose writing is counted; beyond that counting begins anew."""
AWAY: Final = "database"
BUG: Final = "bug"
GONE: Final = "conversation_gone"
TOO_LARGE: Final = "too_large"
_REASONS: Final[dict[type[Unavailable], str]] = {Busy: "busy", TooSlow: "database_slow"}
"""Why an answer could not be stored, as the metrics name it."""
_ID: Final = re.compile(r"resp_[0-9a-f]{32}")
Result = TypeVar("Result")
log = logging.getLogger(__name__)


class ResponseRoom:
    """Finds and keeps stored responses. Reading, storing and evicting have threads of their own: however much is read,
    and however slowly, nobody's answer is left unstored for that."""

    def __init__(self) -> None:
        self._readers = Readers()
        self._writing = LastingBridge("storing responses")
        self._evicting = LastingBridge("evicting responses", threads=1)
        self._written: Counter[str] = Counter()
        self._evictions: set[asyncio.Task[None]] = set()
        self.not_stored: Counter[str] = Counter()
        """Answers whose clients did not forbid that they were stored, and that were not; by reason."""
        self.conversations = ConversationRoom(self._readers, self._look_after)

    async def find(self, owner: ResponseOwner, ids: list[str]) -> dict[str, Turn]:
        """Those of these responses that are the owner's. Raises Unavailable, ChainTooLong, GatewayError (429)."""
        return await self.read(owner, ids, _as_they_are)

    async def read(self, owner: ResponseOwner, ids: list[str], then: Callable[[dict[str, Turn]], Result]) -> Result:
        """What `then` makes of them, in the thread that read them. Raises what it raises, too."""
        possible = list(filter(is_response_id, ids))  # others are in no database, and some cannot even be asked for
        if not possible:
            return then({})
        return await self._readers.read(owner.organization_id, lambda: then(_find(owner, possible)))

    async def chain(self, owner: ResponseOwner, response_id: str) -> "ReadChain":
        """A response and what it goes on from. Raises Unavailable, ChainTooLong, GatewayError (429)."""
        return await self.read_chain(owner, response_id, _as_it_is)

    async def read_chain(self, owner: ResponseOwner, response_id: str, then: "Callable[[ReadChain], Result]") -> Result:
        """What `then` makes of it, in the thread that read it. Raises what it raises, too."""
        if not is_response_id(response_id):
            return then(ReadChain("", [], is_whole=False))
        return await self._readers.read(owner.organization_id, lambda: then(_chain(owner, response_id)))

    async def keep(
        self, owner: ResponseOwner, response_id: str, make: Callable[[], Turn], *, chain_id: str, previous_id: str
    ) -> bool:
        """Store a response; whether it is on disk now. Nobody loses an answer because it is not."""
        write = partial(_keep, owner, response_id, make, chain_id=chain_id, previous_id=previous_id)
        return await self._store(owner, response_id, write)

    async def keep_turn(
        self, owner: ResponseOwner, response_id: str, make: Callable[[], Turn], *, conversation_id: str, is_stored: bool
    ) -> bool:
        """The same for a turn of a conversation, which is added to that; its response is stored only if it is to be."""
        return await self._store(
            owner, response_id, partial(keep_turn, owner, conversation_id, response_id, make, is_stored=is_stored)
        )

    async def _store(self, owner: ResponseOwner, response_id: str, write: Callable[[], int | None]) -> bool:
        try:
            written = await self._writing.run(write)
        except Unavailable as error:
            self.not_stored[_REASONS.get(type(error), AWAY)] += 1
            log.warning("a response was not stored: %s", error, extra={"response_id": response_id})
            return False
        except Exception:  # process edge: an answer that is paid for is given, whatever goes wrong with storing it
            self.not_stored[BUG] += 1
            log.exception("bug while storing a response", extra={"response_id": response_id})
            return False
        if written is None:
            self.not_stored[GONE] += 1
            return False
        self._look_after(owner.organization_id, written)
        return True

    async def delete(self, owner: ResponseOwner, response_id: str) -> bool:
        """Delete a response; whether there was one. It has its turn with what the organization reads, because it may
        wait for what just goes on from the same one. Raises Unavailable, GatewayError (429)."""
        if not is_response_id(response_id):
            return False
        return await self._readers.read(owner.organization_id, partial(keeping.delete, owner, response_id))

    def close(self) -> None:
        """No more calls."""
        for task in self._evictions:
            task.cancel()
        self._readers.close()
        self._writing.close()
        self._evicting.close()

    def _look_after(self, organization_id: str, written: int) -> None:
        """See that an organization stays within its room. The periodic task does so too, but a flood is faster."""
        if len(self._written) >= MAX_OWNERS:
            self._written.clear()
        self._written[organization_id] += written
        if self._written[organization_id] * LOOKS_PER_ROOM < settings.RESPONSES_ORGANIZATION_BYTES:
            return
        del self._written[organization_id]
        task = asyncio.create_task(self._evict(organization_id), name="evict stored responses")
        self._evictions.add(task)
        task.add_done_callback(self._evictions.discard)

    async def _evict(self, organization_id: str) -> None:
        try:
            await self._evicting.run(partial(evict, organization_id, settings.RESPONSES_ORGANIZATION_BYTES))
        except Unavailable as error:
            log.warning("stored responses could not be looked after: %s", error)


class ReadChain:
    """The turns of a conversation, the oldest first."""

    def __init__(self, chain_id: str, turns: list[Turn], *, is_whole: bool, before: Earlier | None = None) -> None:
        self.chain_id = chain_id
        self.turns = turns
        self.earlier = before.input if before else []
        """What was said before the first one, in a conversation that it was made in."""
        self.earlier_seals = before.sealed_by if before else {}
        self.is_whole = is_whole
        """False where a turn in between is gone: what is left cannot be gone on from."""


def is_response_id(text: str) -> bool:
    """Whether a response can have this id."""
    return _ID.fullmatch(text) is not None


def owner_of(grant: KeyGrant) -> ResponseOwner:
    """Whose responses a key stores and finds: those of its project, on its side."""
    return ResponseOwner(grant.organization_id, grant.project_id, grant.sandbox)


def _as_they_are(turns: dict[str, Turn]) -> dict[str, Turn]:
    return turns


def _as_it_is(chain: ReadChain) -> ReadChain:
    return chain


def _find(owner: ResponseOwner, ids: list[str]) -> dict[str, Turn]:
    try:
        found = keeping.find(owner, ids, most_bytes=MAX_CHAIN_BYTES, ring=settings.ENCRYPTION_KEYS)
    except ConfigurationError as error:
        log.error("a stored response cannot be opened: %s", error)
        return {}
    return {name: read_turn(response.content) for name, response in found.items()}


def _chain(owner: ResponseOwner, response_id: str) -> ReadChain:
    try:
        found, is_whole = keeping.read_chain(
            owner, response_id, most_bytes=MAX_CHAIN_BYTES, ring=settings.ENCRYPTION_KEYS
        )
    except ConfigurationError as error:
        log.error("a stored response cannot be opened: %s", error)
        found, is_whole = [], False
    if not found:
        return ReadChain("", [], is_whole=False)
    turns = [read_turn(response.content) for response in found]
    before = _before(owner, turns[0])
    return ReadChain(found[0].chain_id, turns, is_whole=is_whole and before.is_whole, before=before)


def _before(owner: ResponseOwner, turn: Turn) -> Earlier:
    try:
        return items_before(owner, turn)
    except ConfigurationError as error:
        log.error("a conversation cannot be opened: %s", error)
        return Earlier([], {}, is_whole=False)


def _keep(owner: ResponseOwner, response_id: str, make: Callable[[], Turn], *, chain_id: str, previous_id: str) -> int:
    return keeping.keep(
        owner,
        OpenedResponse(response_id, chain_id, make().written()),
        previous_id=previous_id,
        days=settings.RESPONSES_DAYS,
        ring=settings.ENCRYPTION_KEYS,
    )
