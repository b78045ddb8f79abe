"""Daily partitions of the usage records: made ahead of time, and again by whoever is about to write one."""

from collections.abc import Iterable
from datetime import date, timedelta

from django.db import connection, transaction
from django.utils import timezone

DAYS_AHEAD = 7
_ADVISORY_LOCK = 0x6372756E


def ensure_partitions(days: Iterable[date]) -> None:
    """Make the partitions of these days where they are missing. Safe to call at the same time from anywhere."""
    wanted = set(days)
    missing = sorted(wanted - _existing(wanted))
    if not missing:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
        for day in missing:
            # A function of the owner: the process that records usage may not make tables.
            cursor.execute("SELECT usage_make_partition(%s)", [day])


def ensure_upcoming_partitions() -> None:
    """Partitions for today and the week ahead."""
    today = timezone.now().date()
    ensure_partitions(today + timedelta(days=ahead) for ahead in range(-1, DAYS_AHEAD + 1))


def _existing(days: set[date]) -> set[date]:
    names = {_name(day): day for day in days}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid"
            " WHERE inhparent = 'usage_usagerecord'::regclass AND relname = ANY(%s)",
            [list(names)],
        )
        return {names[name] for (name,) in cursor.fetchall()}


def _name(day: date) -> str:
    return f"usage_record_{day:%Y%m%d}"
