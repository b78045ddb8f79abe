"""Stored responses that go: when their time is over, when an organization has too many, or when it wants that.

Whoever changes what is stored takes the lock of the conversation first, and that of its responses after it: nobody
waits for one who waits for him."""

from typing import Final, NamedTuple

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Count, Sum

from apps.responses.models import Conversation, ResponseChain, StoredResponse

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
_HANGING: Final = (
    ("responses_storedresponse", "chain_id"),
    ("responses_conversationitem", "conversation_id"),
    ("responses_conversation", "chain_id"),
    ("responses_responsechain", "id"),
)
"""Tables in the order in which they are deleted from, and which of their columns has the id of the chain."""
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
    conversations: int
    bytes: int


class Erased(NamedTuple):
    """How much of it was deleted."""

    responses: int
    conversations: int


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


def erase(organization_id: str) -> Erased:
    """Delete all that an organization has stored by now; how much. What is just being stored is waited for. Raises
    django.db.Error."""
    responses = conversations = 0
    while True:
        chains, erased = _delete(_ALL, (organization_id,))
        responses += erased.responses
        conversations += erased.conversations
        if not chains:  # a part may be short without being the last: others may have deleted some of it meanwhile
            return Erased(responses, conversations)


def drop(cursor: CursorWrapper, ids: list[str]) -> Erased:
    """Delete chains, which their caller has locked, with all that hangs on them; how much. Raises django.db.Error.

    The web may not read what is in a response, so this is no deletion of Django's."""
    counts = {}
    for table, column in _HANGING:
        cursor.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)", (ids,))  # noqa: S608 - names of this module
        counts[table] = cursor.rowcount
    return Erased(counts["responses_storedresponse"], counts["responses_conversation"])


def kept_by(organization_id: str) -> Kept:
    """How much an organization has stored that can still be read or waits to be deleted."""
    chains = ResponseChain.objects.for_organization(organization_id)
    total = chains.aggregate(total=Sum("bytes"))["total"] or 0
    count = StoredResponse.objects.filter(chain__in=chains).aggregate(count=Count("id"))["count"]
    conversations = Conversation.objects.filter(chain__in=chains).aggregate(count=Count("chain_id"))["count"]
    return Kept(count, conversations, total)


def _in_batches(which: str, values: tuple[str | int, ...]) -> int:
    total = 0
    for _ in range(MAX_BATCHES):
        chains, _ = _delete(which, values)
        total += chains
        if chains < BATCH:
            break
    return total


def _delete(which: str, values: tuple[str | int, ...]) -> tuple[int, Erased]:
    """Delete some of the chains that a query locks; how many, and how much hung on them."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(which, (*values, BATCH))
        ids = [row[0] for row in cursor.fetchall()]
        return len(ids), drop(cursor, ids)
