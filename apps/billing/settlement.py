"""Settling what was recorded although nobody settled it: requests whose process died before it could."""

import logging
from collections import defaultdict
from collections.abc import Sequence

import redis

from apps.billing.admission import SETTLE, key_prefix, settle_arguments
from apps.billing.balance_cache import money_key
from apps.core.redis import single_try_client
from apps.usage.contracts import Outcome, RequestClosed

log = logging.getLogger(__name__)


def settle_recorded(closed: Sequence[RequestClosed]) -> int:
    """Settle the requests of a committed batch that still hold money, and all whose process died; returns how many.

    Most were settled by their gateway long ago and cost one look here. Redis away: nothing is lost, only later, because
    a hold that is never settled expires into a rebuild from the records."""
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
        holds = client.hmget(f"{key_prefix(organization_id)}holds", [entry.opened.request_id for entry in entries])
        waiting += [
            entry
            for entry, hold in zip(entries, holds, strict=True)
            if hold is not None or entry.outcome is Outcome.INTERRUPTED
        ]
    if waiting:
        run_id = client.info("server")["run_id"]
        for entry in waiting:
            client.eval(SETTLE.text, 1, money_key(entry.opened.organization_id), run_id, *settle_arguments(entry))
    return len(waiting)
