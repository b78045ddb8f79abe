"""What an organization had or owed at the end of a UTC month, to the nano-USD, and whether that is final.

Usage counts in the hour in which it was asked for, though it is posted seconds later; every other movement counts when
it was written. So the balance at a moment is today's, without the movements and the usage since then. Each answer is
one statement, so it sees one moment of the books."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from apps.billing.invoices.months import Month
from apps.usage.models import UnpostedUsage

MARGIN = timedelta(minutes=15)
"""How long journals may take to reach the database after the last request of a month has ended."""

_POSITION = """
SELECT coalesce((SELECT balance_nanos FROM billing_ledgeraccount WHERE organization_id = %(owner)s), 0)
    - coalesce((
        SELECT sum(line.amount_nanos) FROM billing_ledgertransaction entry
        JOIN billing_ledgerline line ON line.transaction_id = entry.id
        JOIN billing_ledgeraccount account ON account.id = line.account_id AND account.organization_id = %(owner)s
        WHERE entry.organization_id = %(owner)s AND entry.kind <> 'usage' AND entry.created_at >= %(before)s
            AND (entry.kind = 'charge' OR entry.created_at >= %(seen_at)s)), 0)
    + coalesce((
        SELECT sum(cost_nanos) FROM usage_usagerollup
        WHERE organization_id = %(owner)s AND NOT sandbox AND hour >= %(before)s), 0)
"""


def balance_at(organization_id: str, moment: datetime) -> int:
    """The balance (nano-USD) at the beginning of a UTC hour; below zero it was owed."""
    return _position(organization_id, before=moment, seen_at=moment)


def owed_from_before(organization_id: str, moment: datetime, *, seen_at: datetime | None = None) -> int:
    """What of the debt (nano-USD, 0 or more) dates from before a UTC hour and is still owed at `seen_at`, or now.

    Payments pay the oldest debt first: so what came in since then counts, usage and charges since then do not."""
    return max(0, -_position(organization_id, before=moment, seen_at=seen_at))


def is_closed(month: Month, now: datetime) -> bool:
    """Whether everything of a month is posted: no request of it can still run, and none waits for posting."""
    longest = timedelta(seconds=settings.UPSTREAM_TOTAL_TIMEOUT_S)
    if now < month.end + longest + MARGIN:
        return False
    return not UnpostedUsage.objects.filter(day__lt=month.next().first_day).exists()


def _position(organization_id: str, *, before: datetime, seen_at: datetime | None) -> int:
    values: dict[str, str | datetime] = {"owner": organization_id, "before": before, "seen_at": seen_at or "infinity"}
    with connection.cursor() as cursor:
        cursor.execute(_POSITION, values)
        return int(cursor.fetchone()[0])
