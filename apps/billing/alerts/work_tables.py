"""The work tables of delivery: leasing what is due, telling how a try ended, and when the next one is.

A lease is the row's `next_at` moved on: who dies holding one loses it after LEASE. Several workers may claim at the
same time, and each try belongs to one of them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Any, Final, TypeVar

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.billing.models import AlertEmail, AlertPass, DeliveryState, WebhookDelivery
from apps.billing.models.alerts import ERROR_LENGTH

RETRY_AFTER_S: Final = (10, 60, 600, 3_600, 3 * 3_600, 8 * 3_600, 14 * 3_600)
"""The wait after each try that failed: eight tries over at least 26 hours."""
MAX_TRIES: Final = len(RETRY_AFTER_S) + 1
JITTER: Final = 0.2
"""Each wait is longer by up to so much, so that messages which failed together do not come again together."""
LEASE: Final = timedelta(seconds=90)
NO_ANSWER: Final = "the sender ended before it knew"
_random = SystemRandom()

Row = TypeVar("Row", WebhookDelivery, AlertEmail)


@transaction.atomic
def lease(rows: "QuerySet[Row]", *, limit: int, now: datetime) -> list[Row]:
    """Up to `limit` rows that are due, each leased to the caller alone, with this try counted in `attempts`."""
    due = rows.filter(state=DeliveryState.PENDING, next_at__lte=now).order_by("next_at")
    claimed = list(due.select_for_update(skip_locked=True, of=("self",))[:limit])
    for row in claimed:
        row.attempts += 1
        row.next_at = now + LEASE
    if claimed:
        type(claimed[0]).objects.bulk_update(claimed, ["attempts", "next_at"])
    return claimed


def succeed(row: Row, **columns: Any) -> bool:
    """The try that was leased went through. False when the lease had passed to somebody else meanwhile."""
    return _finish(row, {"state": DeliveryState.DELIVERED, "last_error": "", "finished_at": timezone.now(), **columns})


def fail(row: Row, error: str, *, number: int, **columns: Any) -> bool:
    """The try failed, the `number`-th by the schedule: try again later, or give up after MAX_TRIES.

    False when the lease had passed to somebody else meanwhile."""
    now = timezone.now()
    changed: dict[str, Any] = {"last_error": error[:ERROR_LENGTH], **columns}
    if number >= MAX_TRIES:
        changed |= {"state": DeliveryState.FAILED, "finished_at": now}
    else:
        changed["next_at"] = now + wait_after(number)
    return _finish(row, changed)


def put_off(row: Row, wait: timedelta) -> bool:
    """The leased try did not take place: it no longer counts, and is due again after `wait`.

    False when the lease had passed to somebody else meanwhile."""
    return _finish(row, {"attempts": row.attempts - 1, "next_at": timezone.now() + wait})


def wait_after(number: int) -> timedelta:
    """How long after the `number`-th failed try (from 1) the next one comes."""
    return timedelta(seconds=RETRY_AFTER_S[number - 1] * (1 + JITTER * _random.random()))


def take_turn(name: str, seconds: float) -> bool:
    """Whether the caller may do the work of this name now; nobody else may for `seconds`, or until `end_turn`.

    Slow servers of customers can hold up one worker process this way, never all of them."""
    now = timezone.now()
    until = now + timedelta(seconds=seconds)
    if AlertPass.objects.filter(name=name, seen_until__lte=now).update(seen_until=until):
        return True
    return AlertPass.objects.get_or_create(name=name, defaults={"seen_until": until})[1]


def end_turn(name: str) -> None:
    """The work of this name is done for now."""
    AlertPass.objects.filter(name=name).update(seen_until=timezone.now())


def give_up_lost(rows: Iterable[Row], tries_of: Any) -> list[Row]:
    """Those rows that still have a try; the ones whose last try was lost with its sender are failed here."""
    alive = []
    for row in rows:
        if tries_of(row) > MAX_TRIES:
            _finish(row, {"state": DeliveryState.FAILED, "last_error": NO_ANSWER, "finished_at": timezone.now()})
        else:
            alive.append(row)
    return alive


def _finish(row: Row, columns: dict[str, Any]) -> bool:
    mine = type(row).objects.filter(pk=row.pk, state=DeliveryState.PENDING, attempts=row.attempts)
    return bool(mine.update(**columns))
