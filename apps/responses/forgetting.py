"""Stored responses that go: when their time is over, when an organization has too many, or when it wants that.

Whoever changes what is stored takes the lock of the conversation first, and that of its responses after it: nobody
waits for one who waits for him."""

from typing import Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Count, Sum

from apps.responses.models import ResponseChain, StoredResponse

BATCH: Final = 200
"""Conversations that are deleted in one transaction, so that none takes long."""
MAX_BATCHES: Final = 500
"""Of one pass; the next one goes on."""
_EXPIRED: Final = """
SELECT id FROM responses_responsechain WHERE expires_at <= now()
ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
"""
_ALL: Final = """
SELECT id FROM responses_responsechain WHERE organization_id = %s ORDER BY id LIMIT %s FOR UPDATE
"""
_BEYOND: Final = """
SELECT chain.id FROM responses_responsechain chain JOIN (
    SELECT id, sum(bytes) OVER (ORDER BY expires_at DESC, id DESC) AS so_far
    FROM responses_responsechain WHERE organization_id = %s
) ranked ON ranked.id = chain.id
WHERE so_far > %s ORDER BY expires_at LIMIT %s FOR UPDATE OF chain SKIP LOCKED
"""


class Kept(NamedTuple):
    """How much an organization has stored."""

    responses: int
    bytes: int


def purge_expired() -> int:
    """Delete conversations whose time is over, a bounded number of them; how many. Raises django.db.Error."""
    return _in_batches(_EXPIRED, ())


def evict(organization_id: str, most_bytes: int) -> int:
    """Delete the conversations that rested longest until no more than `most_bytes` of the organization's are left; how
    many. Raises django.db.Error."""
    return _in_batches(_BEYOND, (organization_id, most_bytes))


def evict_all(most_bytes: int) -> int:
    """The same for every organization that has more."""
    larger = (
        ResponseChain.objects.order_by()
        .values("organization_id")
        .annotate(total=Sum("bytes"))
        .filter(total__gt=most_bytes)
        .values_list("organization_id", flat=True)
    )
    return sum(evict(organization_id, most_bytes) for organization_id in larger)


def erase(organization_id: str) -> int:
    """Delete all that an organization has stored by now; how many responses. What is just being stored is waited for.
    Raises django.db.Error."""
    total = 0
    while True:
        chains, responses = _delete(_ALL, (organization_id,))
        total += responses
        if not chains:  # a part may be short without being the last: others may have deleted some of it meanwhile
            return total


def kept_by(organization_id: str) -> Kept:
    """How much an organization has stored that can still be read or waits to be deleted."""
    chains = ResponseChain.objects.for_organization(organization_id)
    total = chains.aggregate(total=Sum("bytes"))["total"] or 0
    count = StoredResponse.objects.filter(chain__in=chains).aggregate(count=Count("id"))["count"]
    return Kept(count, total)


def _in_batches(which: str, values: tuple[str | int, ...]) -> int:
    total = 0
    for _ in range(MAX_BATCHES):
        chains, _ = _delete(which, values)
        total += chains
        if chains < BATCH:
            break
    return total


def _delete(which: str, values: tuple[str | int, ...]) -> tuple[int, int]:
    """Delete some of the conversations that a query locks; how many, and how many responses of theirs."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(which, (*values, BATCH))
        ids = [row[0] for row in cursor.fetchall()]
        # The web may not read what is in a response, so this is no deletion of Django's.
        cursor.execute("DELETE FROM responses_storedresponse WHERE chain_id = ANY(%s)", (ids,))
        responses = cursor.rowcount
        cursor.execute("DELETE FROM responses_responsechain WHERE id = ANY(%s)", (ids,))
    return len(ids), responses
