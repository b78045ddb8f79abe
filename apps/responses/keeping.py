"""Storing responses, finding them again, deleting one. Synchronous: the gateway comes here through its bridge."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import connection

from apps.responses.contracts import ChainTooLong, OpenedResponse, ResponseOwner
from apps.responses.sealing import opened, sealed

MAX_TURNS: Final = 1_000
"""Of one conversation: each is a row to be read for the next one."""
_KEEP: Final = """
WITH added AS (
    INSERT INTO responses_storedresponse (id, chain_id, previous_id, sealed, plain_bytes, created_at)
    VALUES (%(id)s, %(chain)s, %(previous)s, %(sealed)s, %(plain)s, %(now)s)
    ON CONFLICT (id) DO NOTHING RETURNING chain_id, octet_length(sealed) AS bytes
)
INSERT INTO responses_responsechain AS known (id, organization_id, project_id, sandbox, bytes, expires_at)
SELECT chain_id, %(organization)s, %(project)s, %(sandbox)s, bytes, %(expires)s FROM added
ON CONFLICT (id) DO UPDATE SET bytes = known.bytes + EXCLUDED.bytes, expires_at = EXCLUDED.expires_at
"""
"""What is stored already, because a connection died before it said so, is neither stored nor counted again. Its own row
comes before that of the conversation, against the order of locks: nobody else can wait for a row that is not there yet.
The reference between them is looked at when both are."""
_FIND: Final = """
SELECT stored.id, chain_id,
    CASE WHEN count(*) OVER () = 1 OR sum(plain_bytes) OVER () <= %(most)s THEN sealed END
FROM responses_storedresponse stored
JOIN responses_responsechain chain ON chain.id = chain_id
WHERE stored.id = ANY(%(ids)s) AND chain.expires_at > now()
    AND chain.organization_id = %(organization)s AND chain.project_id = %(project)s AND chain.sandbox = %(sandbox)s
"""
_WALK: Final = """
WITH RECURSIVE turn AS (
    SELECT stored.id, chain_id, previous_id, sealed, plain_bytes AS so_far, 1 AS place
    FROM responses_storedresponse stored JOIN responses_responsechain chain ON chain.id = chain_id
    WHERE stored.id = %(id)s AND chain.expires_at > now()
    AND chain.organization_id = %(organization)s AND chain.project_id = %(project)s AND chain.sandbox = %(sandbox)s
    UNION ALL
    SELECT stored.id, stored.chain_id, stored.previous_id, stored.sealed, so_far + stored.plain_bytes, place + 1
    FROM responses_storedresponse stored JOIN turn ON stored.id = turn.previous_id
    WHERE stored.chain_id = turn.chain_id AND place <= %(turns)s AND so_far <= %(most)s
)
SELECT id, chain_id, previous_id, sealed, so_far, place FROM turn ORDER BY place
"""
_DELETE: Final = """
WITH locked AS (
    SELECT chain.id FROM responses_responsechain chain
    WHERE chain.id = (SELECT chain_id FROM responses_storedresponse WHERE id = %(id)s) AND chain.expires_at > now()
    AND chain.organization_id = %(organization)s AND chain.project_id = %(project)s AND chain.sandbox = %(sandbox)s
    FOR UPDATE
), gone AS (
    DELETE FROM responses_storedresponse stored USING locked
    WHERE stored.chain_id = locked.id AND stored.id = %(id)s
    RETURNING stored.chain_id, octet_length(stored.sealed) AS freed
)
UPDATE responses_responsechain chain SET bytes = bytes - freed FROM gone WHERE chain.id = gone.chain_id
"""


def keep(
    owner: ResponseOwner,
    response: OpenedResponse,
    *,
    previous_id: str,
    days: int,
    ring: Mapping[str, bytes],
) -> int:
    """Store a response, for so many days after the last turn of its conversation; returns the bytes that it takes.

    It is on disk when this returns. Raises django.db.Error without PostgreSQL."""
    content = sealed(response.content, owner=owner, name=response.id, ring=ring)
    now = datetime.now(UTC)
    stored: dict[str, Any] = {
        "id": response.id,
        "chain": response.chain_id,
        "previous": previous_id,
        "sealed": content,
        "plain": len(response.content),
        "now": now,
        "expires": now + timedelta(days=days),
    }
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, stored | _of(owner))
    return len(content)


def find(
    owner: ResponseOwner, ids: list[str], *, most_bytes: int, ring: Mapping[str, bytes]
) -> dict[str, OpenedResponse]:
    """Those of these responses that are the owner's, by id: one of any size, or several of `most_bytes` together.

    Raises ChainTooLong, django.db.Error, ConfigurationError."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND, _of(owner) | {"ids": ids, "most": most_bytes})
        rows = cursor.fetchall()
    if any(content is None for _, _, content in rows):
        raise ChainTooLong
    return {
        name: OpenedResponse(name, chain, opened(bytes(content), owner=owner, name=name, ring=ring))
        for name, chain, content in rows
    }


def read_chain(
    owner: ResponseOwner, response_id: str, *, most_bytes: int, ring: Mapping[str, bytes]
) -> tuple[list[OpenedResponse], bool]:
    """The response and what it goes on from, the oldest first; and whether nothing is missing of that.

    Raises ChainTooLong, django.db.Error, ConfigurationError."""
    asked: dict[str, Any] = {"id": response_id, "turns": MAX_TURNS, "most": most_bytes}
    with connection.cursor() as cursor:
        cursor.execute(_WALK, asked | _of(owner))
        rows = cursor.fetchall()
    if not rows:
        return [], False
    *_, previous_id, _, so_far, place = rows[-1]
    if place > MAX_TURNS or so_far > most_bytes:
        raise ChainTooLong
    turns = [
        OpenedResponse(name, chain, opened(bytes(content), owner=owner, name=name, ring=ring))
        for name, chain, _, content, _, _ in reversed(rows)
    ]
    return turns, not previous_id


def delete(owner: ResponseOwner, response_id: str) -> bool:
    """Delete one response; whether there was one. Raises django.db.Error."""
    with connection.cursor() as cursor:
        cursor.execute(_DELETE, {"id": response_id} | _of(owner))
        return bool(cursor.rowcount)


def _of(owner: ResponseOwner) -> dict[str, Any]:
    return {"organization": owner.organization_id, "project": owner.project_id, "sandbox": owner.sandbox}
