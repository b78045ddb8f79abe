"""Whether the store of claims and kept answers can have forgotten what it was told of an organization's requests, and
how long that matters."""

import time
from datetime import UTC, datetime
from typing import Final

import redis
from django.conf import settings

from apps.core.errors import Unavailable
from apps.core.redis import single_try_client
from apps.core.scripts import NEW_STORE_KEY, NEW_STORE_MS, mark_of_store
from apps.usage.models import UsageRecord
from apps.usage.reports import first_request_id

FORGOTTEN_S: Final = 300.0
"""So long after a store began anew, requests from before it may still be sent again by programs that retry."""

RESTARTED_S: Final = 30.0
"""The same of a store that was restarted, and has lost seconds of its memory at most."""
CLOCKS_S: Final = 2.0
"""The clocks of gateway and store differ by less."""


def pause_ms(organization_id: str, remembered_s: float) -> int:
    """For how long whoever relies on the memory of that store must not, in milliseconds; 0 when nothing can be
    forgotten.

    A store that is younger than FORGOTTEN_S was emptied, restarted, or is new. For an organization that was served in
    the `remembered_s` before, it may have forgotten something. Raises Unavailable without the store, Error
    without PostgreSQL."""
    age_s = _store_age_s()
    if age_s >= FORGOTTEN_S:
        return 0
    began = time.time() - age_s
    return int(1000 * (FORGOTTEN_S - age_s)) if _was_served(organization_id, began - remembered_s, began) else 0


def restart_pause_ms(organization_id: str, remembered_s: float, *, told_ms: int, age_ms: int) -> int:
    """The same of a store that was restarted `age_ms` ago and remembers everything until `told_ms` (Unix).

    Only an organization that was served between then and the restart can miss anything. Raises Error without
    PostgreSQL."""
    left_ms = int(1000 * RESTARTED_S) - age_ms
    began = time.time() - age_ms / 1000
    since = max(told_ms / 1000 - CLOCKS_S, began - remembered_s)
    return left_ms if left_ms > 0 and _was_served(organization_id, since, began) else 0


def _was_served(organization_id: str, since: float, until: float) -> bool:
    """Whether a request of the organization came in between, in Unix seconds, and has a record."""
    first, end = (datetime.fromtimestamp(moment, UTC) for moment in (since, until))
    return (
        UsageRecord.objects.for_organization(organization_id)
        .filter(day__gte=first.date(), request_id__gte=first_request_id(first))
        .filter(request_id__lt=first_request_id(end))
        .exists()
    )


def _store_age_s() -> float:
    """How long ago somebody first noticed that the store knows nothing."""
    client = single_try_client(settings.ANSWERS_URL)
    try:
        run_id = client.info("server")["run_id"]
        client.execute_command(*mark_of_store(run_id))  # type: ignore[no-untyped-call]  # redis-py gives it no types
        left_ms = client.pttl(NEW_STORE_KEY.format(run_id=run_id))
    except redis.RedisError as error:
        raise Unavailable("the store is away") from error
    finally:
        client.close()
    return (NEW_STORE_MS - int(left_ms)) / 1000
