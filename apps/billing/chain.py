"""The chain of hashes over the ledger: looking for what breaks it, and remembering how far it was seen whole.

The database links every transaction at COMMIT (migration 0009). The hash is computed here once more, apart from the
database's own function, so that a function that was replaced is found too."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

_SAID = """
json_build_array(entry.id, entry.kind, entry.organization_id, entry.idempotency_key, entry.content_digest,
    entry.reason, entry.actor, entry.reverses_id, (extract(epoch FROM entry.created_at) * 1000000)::bigint,
    said.lines)::text
"""
BROKEN_LINKS = f"""
SELECT coalesce(entry.id, link.transaction_id), CASE
    WHEN link.transaction_id IS NULL THEN 'is in no chain'
    WHEN entry.id IS NULL THEN 'is in the chain, but gone from the ledger'
    WHEN link.chain <> coalesce(entry.organization_id, '') THEN 'is in the chain of somebody else'
    WHEN link.position <> link.place THEN 'has place ' || link.position || ' in its chain as number ' || link.place
    WHEN link.previous_hash <> link.hash_before THEN 'does not follow the transaction before it'
    ELSE 'or its lines were changed: the hash is another' END
FROM billing_ledgertransaction entry
FULL JOIN (
    SELECT *, row_number() OVER chained AS place, coalesce(lag(hash) OVER chained, '') AS hash_before
    FROM billing_ledgerlink WINDOW chained AS (PARTITION BY chain ORDER BY position)
) link ON link.transaction_id = entry.id
LEFT JOIN (
    SELECT transaction_id, json_agg(json_build_array(account_id, amount_nanos, grant_id) ORDER BY id) AS lines
    FROM billing_ledgerline GROUP BY transaction_id
) said ON said.transaction_id = entry.id
WHERE entry.id IS NULL OR link.transaction_id IS NULL OR link.chain <> coalesce(entry.organization_id, '')
    OR link.position <> link.place OR link.previous_hash <> link.hash_before
    OR link.hash <> sha256(link.hash_before || convert_to({_SAID}, 'UTF8'))
"""  # noqa: S608 - only constants of this file
"""Transactions that are not where and what they were at their COMMIT."""
LOST_ENDS = """
SELECT CASE anchor.chain WHEN '' THEN 'the operator' ELSE anchor.chain END,
    'had ' || anchor.position || ' transactions when its chain was last proved, and the last of them is '
    || CASE WHEN link.hash IS NULL THEN 'gone' ELSE 'another one now' END
FROM billing_ledgeranchor anchor LEFT JOIN billing_ledgerlink link USING (chain, position)
WHERE link.hash IS DISTINCT FROM anchor.hash
"""
"""Chains whose end was cut off since they were last proved: the rest of such a chain looks whole."""
_ENDS = """
SELECT DISTINCT ON (chain) chain, position, hash FROM billing_ledgerlink ORDER BY chain, position DESC
"""
_REMEMBER = """
INSERT INTO billing_ledgeranchor (chain, position, hash, seen_at)
SELECT chain, position, hash, now() FROM unnest(%s::varchar[], %s::bigint[], %s::bytea[]) seen (chain, position, hash)
ORDER BY chain
ON CONFLICT (chain) DO UPDATE SET position = excluded.position, hash = excluded.hash, seen_at = excluded.seen_at
WHERE billing_ledgeranchor.position < excluded.position
"""


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The last link of a chain at some moment."""

    chain: str
    position: int
    hash: bytes


def read_ends() -> list[ChainEnd]:
    """Where every chain ends now, in the order of the chains."""
    with connection.cursor() as cursor:
        cursor.execute(_ENDS)
        return [ChainEnd(chain, position, bytes(end)) for chain, position, end in cursor.fetchall()]


def remember_ends(ends: Sequence[ChainEnd]) -> None:
    """Note where chains ended, of each the furthest. What is noted counts as right from then on.

    So the ends must have been read before both proofs were run, and both must have held: then all up to them was
    looked at. What was written meanwhile is for the next run."""
    with connection.cursor() as cursor:
        columns = ([end.chain for end in ends], [end.position for end in ends], [end.hash for end in ends])
        cursor.execute(_REMEMBER, columns)
