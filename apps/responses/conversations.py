"""Conversations: objects whose items are added, listed and deleted one by one. Synchronous, as `keeping`.

Whoever changes one locks the row of its chain first, and sees in the next statement what others did before: so items
of one addition stand together, and none is lost or counted twice. A call may be made twice; its items are added once.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import connection, transaction

from apps.responses.contracts import (
    ChainTooLong,
    ConversationFull,
    ItemsThere,
    OpenedConversation,
    OpenedItem,
    OpenedResponse,
    ReadItems,
    ResponseOwner,
)
from apps.responses.forgetting import drop
from apps.responses.keeping import keep
from apps.responses.sealing import opened, sealed

Ring = Mapping[str, bytes]
MAX_ITEMS: Final = 5_000
"""Of one conversation: each is a row to be read for the next turn."""
MAX_BYTES: Final = 20 << 20
"""Of all its items when they are opened, as of a body: a larger one could not be sent whole either."""
ROW_BYTES: Final = 512
"""What a conversation, and each item, counts for in its organization's room beside its content: rows and their entries
in indexes take that much. They cost their owner nothing, so that without it empty ones could fill the disk."""
_MINE: Final = """
FROM responses_responsechain chain WHERE chain.id = %(id)s AND chain.expires_at > now()
AND chain.organization_id = %(organization)s AND chain.project_id = %(project)s AND chain.sandbox = %(sandbox)s
"""
_LOCK: Final = f"SELECT 1 {_MINE} FOR UPDATE"
_STATE: Final = f"""
SELECT created_at, sealed, items, plain_bytes, next_place FROM responses_conversation
WHERE chain_id = (SELECT chain.id {_MINE})
"""  # noqa: S608 - a text of this module
_CREATE_CHAIN: Final = """
INSERT INTO responses_responsechain (id, organization_id, project_id, sandbox, bytes, expires_at)
VALUES (%(id)s, %(organization)s, %(project)s, %(sandbox)s, %(bytes)s, %(expires)s) ON CONFLICT (id) DO NOTHING
"""
_CREATE: Final = """
INSERT INTO responses_conversation (chain_id, sealed, items, plain_bytes, next_place, created_at)
VALUES (%(id)s, %(sealed)s, 0, 0, 0, %(now)s) ON CONFLICT (chain_id) DO NOTHING
"""
_ADD: Final = """
WITH added AS (
    INSERT INTO responses_conversationitem (conversation_id, place, item_id, sealed, plain_bytes)
    SELECT %(id)s, %(place)s + number - 1, item_id, content, plain
    FROM unnest(%(ids)s::text[], %(contents)s::bytea[], %(plain)s::bigint[])
        WITH ORDINALITY AS given (item_id, content, plain, number)
    ON CONFLICT (conversation_id, item_id) DO NOTHING
    RETURNING plain_bytes AS plain, octet_length(sealed) + %(row)s AS in_room
), total AS (
    SELECT count(*) AS items, coalesce(sum(plain), 0) AS plain, coalesce(sum(in_room), 0) AS in_room FROM added
), chain AS (
    UPDATE responses_responsechain SET bytes = bytes + total.in_room, expires_at = %(expires)s
    FROM total WHERE id = %(id)s
)
UPDATE responses_conversation AS known SET items = known.items + total.items,
    plain_bytes = known.plain_bytes + total.plain, next_place = next_place + cardinality(%(ids)s::text[])
FROM total WHERE chain_id = %(id)s RETURNING total.in_room
"""
_COUNT: Final = """
WITH chain AS (
    UPDATE responses_responsechain SET bytes = bytes + %(in_room)s, expires_at = %(expires)s
    WHERE id = %(id)s
)
UPDATE responses_conversation SET items = items + %(items)s, plain_bytes = plain_bytes + %(plain)s
WHERE chain_id = %(id)s
"""
_HAS_ANY: Final = "SELECT 1 FROM responses_conversationitem WHERE conversation_id = %s AND item_id = ANY(%s) LIMIT 1"
_PLACE: Final = "SELECT place FROM responses_conversationitem WHERE conversation_id = %s AND item_id = %s"
_ITEM: Final = "SELECT sealed FROM responses_conversationitem WHERE conversation_id = %s AND item_id = %s"
_PAGE: Final = """
SELECT item_id, sealed, found FROM (
    SELECT item_id, sealed, sum(plain_bytes) OVER before AS so_far, row_number() OVER before AS number,
        count(*) OVER () AS found
    FROM (
        SELECT * FROM responses_conversationitem WHERE conversation_id = %(id)s AND place {beyond} %(place)s
        ORDER BY place {order} LIMIT %(most)s
    ) nearest WINDOW before AS (ORDER BY place {order})
) page WHERE number = 1 OR (so_far <= %(most_bytes)s AND number < %(most)s) ORDER BY number
"""
_PAGES: Final = {True: _PAGE.format(beyond=">", order="ASC"), False: _PAGE.format(beyond="<", order="DESC")}
"""Whether the earliest comes first -> the query."""
_SIZE: Final = """
SELECT count(*), coalesce(sum(plain_bytes), 0) FROM responses_conversationitem
WHERE conversation_id = %(id)s AND place < %(end)s
"""
_BEFORE: Final = """
SELECT item_id, sealed FROM responses_conversationitem
WHERE conversation_id = %(id)s AND place < %(end)s ORDER BY place
"""
_DELETE_ITEM: Final = """
DELETE FROM responses_conversationitem WHERE conversation_id = %s AND item_id = %s
RETURNING plain_bytes, octet_length(sealed)
"""
_SET_METADATA: Final = """
WITH known AS (SELECT octet_length(sealed) AS bytes FROM responses_conversation WHERE chain_id = %(id)s), chain AS (
    UPDATE responses_responsechain SET bytes = responses_responsechain.bytes + %(bytes)s - known.bytes,
        expires_at = %(expires)s
    FROM known WHERE id = %(id)s
)
UPDATE responses_conversation SET sealed = %(sealed)s WHERE chain_id = %(id)s
"""


class _State(NamedTuple):
    created_at: datetime
    sealed: bytes
    items: int
    plain_bytes: int
    next_place: int


class Conversation:
    """One conversation as its owner finds it. What is not the owner's is not there: the answer is None or False.

    All raise django.db.Error; what reads raises ConfigurationError for what cannot be opened."""

    def __init__(self, owner: ResponseOwner, conversation_id: str, *, days: int, ring: Ring) -> None:
        """`days` is for how long it is kept after a change."""
        self._owner = owner
        self._id = conversation_id
        self._days = days
        self._ring = ring
        self._who: dict[str, Any] = {
            "id": conversation_id,
            "organization": owner.organization_id,
            "project": owner.project_id,
            "sandbox": owner.sandbox,
        }

    def create(self, metadata: bytes, items: Sequence[OpenedItem]) -> int:
        """Make it; returns the bytes that it takes."""
        content = self._sealed(metadata)
        size = len(content) + ROW_BYTES
        row = self._who | {"sealed": content, "bytes": size, "now": datetime.now(UTC), "expires": self._over()}
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_CREATE_CHAIN, row)
            cursor.execute(_CREATE, row)
            if (added := self._append(items, given=())) is None:
                raise RuntimeError("an id of another conversation")
            return size + added

    def read(self) -> OpenedConversation | None:
        """It, without its items."""
        state = self._state()
        return None if state is None else self._opened(state)

    def set_metadata(self, metadata: bytes) -> OpenedConversation | None:
        """Put other metadata in place of what it has."""
        with transaction.atomic(), connection.cursor() as cursor:
            state = self._locked()
            if state is None:
                return None
            content = self._sealed(metadata)
            cursor.execute(
                _SET_METADATA, {"id": self._id, "sealed": content, "bytes": len(content), "expires": self._over()}
            )
        return OpenedConversation(self._id, state.created_at, metadata)

    def delete(self) -> bool:
        """Delete it, its items, and the responses that were made in it; whether there was one."""
        with transaction.atomic(), connection.cursor() as cursor:
            if self._locked() is None:
                return False
            drop(cursor, [self._id])
        return True

    def append(self, items: Sequence[OpenedItem], *, given: Sequence[str]) -> int | None:
        """Add items; the bytes that they take. `given` are ids among theirs that their caller chose.

        Raises ItemsThere when one of those is in it already, ConversationFull."""
        with transaction.atomic():
            return self._append(items, given=given, is_bounded=True)

    def keep(
        self, items: Sequence[OpenedItem], response: OpenedResponse | None, *, previous_id: str = ""
    ) -> int | None:
        """Add what a turn brought, however much, and store its response if there is one: both or none; the bytes that
        they take."""
        with transaction.atomic():
            added = self._append(items, given=())
            if added is None or response is None:
                return added
            return added + keep(self._owner, response, previous_id=previous_id, days=self._days, ring=self._ring)

    def page(self, *, limit: int, is_ascending: bool, after: str) -> tuple[list[OpenedItem], bool] | None:
        """So many items, fewer if they are large, and whether there are more. Raises KeyError for an unknown `after`,
        which is "" for none."""
        state = self._state()
        if state is None:
            return None
        place = -1 if is_ascending else state.next_place
        with connection.cursor() as cursor:
            if after:
                cursor.execute(_PLACE, (self._id, after))
                if (row := cursor.fetchone()) is None:
                    raise KeyError(after)
                place = row[0]
            asked: dict[str, Any] = {"id": self._id, "place": place, "most": limit + 1, "most_bytes": MAX_BYTES}
            cursor.execute(_PAGES[is_ascending], asked)
            rows = cursor.fetchall()
        return self._items([row[:2] for row in rows]), bool(rows) and rows[0][2] > len(rows)

    def item(self, item_id: str) -> OpenedItem | None:
        """One of its items; None too where there is no such conversation."""
        if self._state() is None:
            return None
        with connection.cursor() as cursor:
            cursor.execute(_ITEM, (self._id, item_id))
            row = cursor.fetchone()
        return None if row is None else self._items([(item_id, row[0])])[0]

    def delete_item(self, item_id: str) -> OpenedConversation | None:
        """Delete one of its items; the conversation, where both were there."""
        with transaction.atomic(), connection.cursor() as cursor:
            state = self._locked()
            if state is None:
                return None
            cursor.execute(_DELETE_ITEM, (self._id, item_id))
            row = cursor.fetchone()
            if row is None:
                return None
            self._count(items=-1, plain=-row[0], in_room=-row[1] - ROW_BYTES)
        return self._opened(state)

    def items(self, *, end: int | None = None) -> ReadItems | None:
        """All its items, or those before the place `end`. Raises ChainTooLong."""
        state = self._state()
        if state is None:
            return None
        asked: dict[str, Any] = {"id": self._id, "end": state.next_place if end is None else end}
        count, size = state.items, state.plain_bytes
        with connection.cursor() as cursor:
            if end is not None:
                cursor.execute(_SIZE, asked)
                count, size = cursor.fetchone()
            if count > MAX_ITEMS or size > MAX_BYTES:
                raise ChainTooLong
            cursor.execute(_BEFORE, asked)
            rows = cursor.fetchall()
        return ReadItems(self._items(rows), asked["end"])

    def _append(self, items: Sequence[OpenedItem], *, given: Sequence[str], is_bounded: bool = False) -> int | None:
        """Within a transaction."""
        state = self._locked()
        if state is None:
            return None
        plain = [len(item.content) for item in items]
        names = [item.id for item in items]
        if is_bounded and (state.items + len(items) > MAX_ITEMS or state.plain_bytes + sum(plain) > MAX_BYTES):
            raise ConversationFull
        contents = [self._sealed(item.content, item.id) for item in items]
        added: dict[str, Any] = {"id": self._id, "ids": names, "contents": contents, "plain": plain, "row": ROW_BYTES}
        with connection.cursor() as cursor:
            if given:
                cursor.execute(_HAS_ANY, (self._id, list(given)))
                if cursor.fetchone() is not None:
                    raise ItemsThere
            cursor.execute(_ADD, added | {"place": state.next_place, "expires": self._over()})
            return int(cursor.fetchone()[0])

    def _count(self, *, items: int, plain: int, in_room: int) -> None:
        counted: dict[str, Any] = {"id": self._id, "items": items, "plain": plain, "in_room": in_room}
        with connection.cursor() as cursor:
            cursor.execute(_COUNT, counted | {"expires": self._over()})

    def _locked(self) -> _State | None:
        """Its state, which nobody else changes before this transaction ends."""
        with connection.cursor() as cursor:
            cursor.execute(_LOCK, self._who)
            return None if cursor.fetchone() is None else self._state()

    def _state(self) -> _State | None:
        with connection.cursor() as cursor:
            cursor.execute(_STATE, self._who)
            row = cursor.fetchone()
        return None if row is None else _State(*row)

    def _over(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=self._days)

    def _opened(self, state: _State) -> OpenedConversation:
        metadata = opened(bytes(state.sealed), owner=self._owner, name=self._id, ring=self._ring)
        return OpenedConversation(self._id, state.created_at, metadata)

    def _items(self, rows: Sequence[tuple[str, Any]]) -> list[OpenedItem]:
        return [
            OpenedItem(item_id, opened(bytes(content), owner=self._owner, name=self._name_of(item_id), ring=self._ring))
            for item_id, content in rows
        ]

    def _sealed(self, content: bytes, item_id: str = "") -> bytes:
        name = self._name_of(item_id) if item_id else self._id
        return sealed(content, owner=self._owner, name=name, ring=self._ring)

    def _name_of(self, item_id: str) -> str:
        return f"{self._id}/{item_id}"
