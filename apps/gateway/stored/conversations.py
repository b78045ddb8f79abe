"""Conversations in PostgreSQL, for one worker. All that takes long, or waits, is done in threads."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from django.conf import settings

from apps.core.errors import ConfigurationError
from apps.core.ids import new_id
from apps.gateway.dialects.responses.conversations import (
    Added,
    HeldItem,
    as_input,
    deleted_conversation,
    held_seals,
    items_of_turn,
    last_route,
    read_held,
    told_conversation,
    told_page,
)
from apps.gateway.dialects.responses.history import Account, Item, Turn, holder_of
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.stored.reading import Readers
from apps.responses.contracts import OpenedConversation, OpenedItem, OpenedResponse, ResponseOwner
from apps.responses.conversations import Conversation

_ID: Final = re.compile(r"conv_[0-9a-f]{32}")
Result = TypeVar("Result")
log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """A conversation as a request takes it along."""

    input: list[Item]
    end: int
    """The place that all its items stand before."""
    ids: frozenset[str]
    route: tuple[str, str] | None
    """Who answered last."""
    sealed_by: dict[str, Account]
    """What stands sealed in it -> whose account can open it."""


class Earlier(NamedTuple):
    """What was said in a conversation before a turn of it."""

    input: list[Item]
    sealed_by: dict[str, Account]
    is_whole: bool
    """Whether that is still all there."""


class ConversationRoom:
    """Finds and changes conversations. What it gives is JSON, made where it was read, or None for what is not there.

    All raise Unavailable, and GatewayError (429) where too much of the organization waits."""

    def __init__(self, readers: Readers, note_written: Callable[[str, int], None]) -> None:
        """`note_written` is told how many bytes of an organization were written."""
        self._readers = readers
        self._note_written = note_written

    async def create(self, owner: ResponseOwner, metadata: dict[str, str], items: Sequence[HeldItem]) -> bytes:
        """Make a conversation with these items. Raises ConversationFull."""
        name = new_id("conv")

        def create(conversation: Conversation) -> tuple[bytes | None, int]:
            written = conversation.create(write_json(metadata), _written(items))
            return _told(conversation.read()), written

        told, written = await self._ask(owner, name, create) or (None, 0)
        if told is None:
            raise RuntimeError("a conversation that was just made is not there")
        self._note_written(owner.organization_id, written)
        return told

    async def told(self, owner: ResponseOwner, name: str) -> bytes | None:
        """The conversation, without its items."""
        return await self._ask(owner, name, lambda conversation: _told(conversation.read()))

    async def describe(self, owner: ResponseOwner, name: str, metadata: dict[str, str]) -> bytes | None:
        """Give it other metadata."""
        return await self._ask(owner, name, lambda conversation: _told(conversation.set_metadata(write_json(metadata))))

    async def delete(self, owner: ResponseOwner, name: str) -> bytes | None:
        """Delete it, its items and the responses that were made in it."""
        is_deleted = await self._ask(owner, name, lambda conversation: conversation.delete())
        return write_json(deleted_conversation(name)) if is_deleted else None

    async def add(self, owner: ResponseOwner, name: str, added: Added) -> bytes | None:
        """Add items, and list them. Raises ItemsThere, ConversationFull."""

        def add(conversation: Conversation) -> tuple[bytes | None, int]:
            written = conversation.append(_written(added.items), given=added.given)
            return (None, 0) if written is None else (write_json(told_page(added.items, has_more=False)), written)

        told, written = await self._ask(owner, name, add) or (None, 0)
        self._note_written(owner.organization_id, written)
        return told

    async def page(
        self, owner: ResponseOwner, name: str, *, limit: int, is_ascending: bool, after: str
    ) -> bytes | None:
        """A page of its items. Raises KeyError for an unknown `after`, which is "" for none."""
        if after and holder_of(after) is None and await self.told(owner, name) is not None:
            raise KeyError(after)

        def page(conversation: Conversation) -> bytes | None:
            found = conversation.page(limit=limit, is_ascending=is_ascending, after=after)
            return None if found is None else write_json(told_page(_held(found[0]), has_more=found[1]))

        return await self._ask(owner, name, page)

    async def item(self, owner: ResponseOwner, name: str, item_id: str) -> bytes | None:
        """One of its items."""
        if holder_of(item_id) is None:
            return None

        def item(conversation: Conversation) -> bytes | None:
            found = conversation.item(item_id)
            return None if found is None else write_json(read_held(found.content).item)

        return await self._ask(owner, name, item)

    async def delete_item(self, owner: ResponseOwner, name: str, item_id: str) -> bytes | None:
        """Delete one of its items; the conversation."""
        if holder_of(item_id) is None:
            return None
        return await self._ask(owner, name, lambda conversation: _told(conversation.delete_item(item_id)))

    async def taken(self, owner: ResponseOwner, name: str) -> Taken | None:
        """All its items as input of a request. Raises ChainTooLong."""
        return await self._ask(owner, name, _taken)

    async def _ask(self, owner: ResponseOwner, name: str, query: Callable[[Conversation], Result]) -> Result | None:
        if _ID.fullmatch(name) is None:
            return None

        def ask() -> Result | None:
            try:
                return query(conversation_of(owner, name))
            except ConfigurationError as error:
                log.error("a conversation cannot be opened: %s", error)
                return None

        return await self._readers.read(owner.organization_id, ask)


def conversation_of(owner: ResponseOwner, name: str) -> Conversation:
    """A conversation, whether there is one or not."""
    return Conversation(owner, name, days=settings.RESPONSES_DAYS, ring=settings.ENCRYPTION_KEYS)


def is_conversation_id(text: str) -> bool:
    """Whether a conversation can have this id."""
    return _ID.fullmatch(text) is not None


def keep_turn(
    owner: ResponseOwner, name: str, response_id: str, make: Callable[[], Turn], *, is_stored: bool
) -> int | None:
    """Add a turn to its conversation, and store its response if that is wanted; the bytes that they take, None where
    there is no such conversation any more. One that failed adds nothing. Synchronous; raises django.db.Error."""
    turn = make()
    response = OpenedResponse(response_id, name, turn.written()) if is_stored else None
    has_failed = turn.response["status"] == "failed"
    items = [] if has_failed else items_of_turn(turn, response_id.partition("_")[2])
    return conversation_of(owner, name).keep(_written(items), response)


def items_before(owner: ResponseOwner, turn: Turn) -> Earlier:
    """What was said in the conversation of a stored turn before it. Synchronous; raises ChainTooLong,
    ConfigurationError, django.db.Error."""
    if turn.before is None:
        return Earlier([], {}, is_whole=True)
    read = conversation_of(owner, turn.before.conversation_id).items(end=turn.before.end)
    if read is None:
        return Earlier([], {}, is_whole=False)
    held = _held(read.items)
    return Earlier(as_input(held), held_seals(held), is_whole=len(read.items) == turn.before.count)


def _taken(conversation: Conversation) -> Taken | None:
    read = conversation.items()
    if read is None:
        return None
    held = _held(read.items)
    return Taken(as_input(held), read.end, frozenset(each.id for each in held), last_route(held), held_seals(held))


def _told(conversation: OpenedConversation | None) -> bytes | None:
    if conversation is None:
        return None
    created_at = int(conversation.created_at.timestamp())
    return write_json(told_conversation(conversation.id, created_at, read_json(conversation.metadata)))


def _held(items: Sequence[OpenedItem]) -> list[HeldItem]:
    return [read_held(item.content) for item in items]


def _written(items: Sequence[HeldItem]) -> list[OpenedItem]:
    return [OpenedItem(item.id, item.written()) for item in items]
