"""Settling what was recorded although nobody settled it: requests whose process died before it could."""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import redis

from apps.billing.admission import SETTLE, key_prefix, settle_arguments
from apps.billing.balance_cache import money_key
from apps.billing.unrecorded import forget_recorded
from apps.core.ids import created_at
from apps.core.redis import single_try_client
from apps.usage.contracts import Outcome, RequestClosed

SETTLED_IDS: Final = 100_000
SETTLED_S: Final = 840
"""Redis remembers settled requests for a minute longer, and at most SETTLED_IDS."""
AT_ONCE: Final = 200
"""Settlements in one trip: some milliseconds of the store's time, in which it serves nobody else."""
log = logging.getLogger(__name__)


def settle_recorded(closed: Sequence[RequestClosed]) -> int:
    """Settle the requests of a committed batch that still hold money, and all of which Redis may not have heard: its
    process died, or the store was emptied. Returns how many.

    Most were settled by their gateway long ago and cost one look here. Redis away: nothing is lost, only later, because
    a hold that is never settled expires into a rebuild from the records. Raises django.db.Error without PostgreSQL."""
    client = single_try_client()
    try:
        return _settle(client, closed)
    except redis.RedisError as error:
        log.warning("recorded requests not settled: %s", error)
        return 0
    finally:
        client.close()


def _settle(client: redis.Redis, closed: Sequence[RequestClosed]) -> int:
    by_organization: dict[str, list[RequestClosed]] = defaultdict(list)
    for entry in closed:
        by_organization[entry.opened.organization_id].append(entry)
    waiting: list[RequestClosed] = []
    for organization_id, entries in by_organization.items():
        waiting += _unsettled(client, organization_id, entries)
    if waiting:
        _settle_all(client, waiting)
    for organization_id, entries in by_organization.items():
        forget_recorded(client, organization_id, [entry.opened.request_id for entry in entries])
    return len(waiting)


def _settle_all(client: redis.Redis, waiting: list[RequestClosed]) -> None:
    """Some hundred a trip: after a store was lost they may be all of a batch."""
    run_id = client.info("server")["run_id"]
    client.script_load(SETTLE.text)
    for start in range(0, len(waiting), AT_ONCE):
        calls: Any = client.pipeline(transaction=False)
        for entry in waiting[start : start + AT_ONCE]:
            calls.evalsha(SETTLE.sha, 1, money_key(entry.opened.organization_id), run_id, *settle_arguments(entry))
        calls.execute()


def _unsettled(client: redis.Redis, organization_id: str, entries: list[RequestClosed]) -> list[RequestClosed]:
    """Those that hold money, whose process died, or that this store was never told of: it was emptied since."""
    prefix, names = key_prefix(organization_id), [entry.opened.request_id for entry in entries]
    look: Any = client.pipeline(transaction=False)
    holds, settled, how_many = (
        look.hmget(f"{prefix}holds", names).zmscore(f"{prefix}settled", names).zcard(f"{prefix}settled").execute()
    )
    since = time.time() - SETTLED_S
    return [
        entry
        for entry, hold, settled_at in zip(entries, holds, settled, strict=True)
        if hold is not None
        or entry.outcome is Outcome.INTERRUPTED
        or (
            settled_at is None
            and entry.charged_nanos
            and how_many < SETTLED_IDS
            and created_at(entry.opened.request_id).timestamp() > since
        )
    ]
