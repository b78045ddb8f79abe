"""The brake: a key that spends faster than it may is paused, and its people are told.

It looks at what is settled, each few seconds, and never stands on the data path: between the spending and the pause
lie the shipping of the records (about a second) and one round of this. What a key can spend in that time is bounded
by its budget and its rates. Requests that run already come to their end."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import connection, transaction

from apps.accounts.models import Organization
from apps.billing.alerts.apart import each
from apps.billing.alerts.raising import raise_alert
from apps.billing.models import AlertKind
from apps.core.brake_fields import MAX_MINUTES
from apps.core.limits import usd_text
from apps.core.money import format_usd
from apps.keys.pausing import pause_key

log = logging.getLogger(__name__)

LOOK_BACK: Final = timedelta(minutes=MAX_MINUTES, hours=1)
"""What the first, coarse look covers: the longest brake, the longest request and the hour they begin in."""

_CANDIDATES: Final = """
WITH spent AS (
    SELECT key_id, sum(cost_nanos) AS nanos FROM usage_usagerollup
    WHERE hour >= %(hour)s AND NOT sandbox
    GROUP BY key_id
)
SELECT braked.id, braked.organization_id, braked.name, braked.nanos, braked.minutes, braked.brake_counts_from
FROM spent JOIN (
    SELECT key.*, coalesce(key.brake_nanos, plan.brake_nanos) AS nanos,
        CASE WHEN key.brake_nanos IS NULL THEN plan.brake_minutes ELSE key.brake_minutes END AS minutes
    FROM keys_apikey key
    JOIN accounts_organization organization ON organization.id = key.organization_id
    LEFT JOIN accounts_plan plan ON plan.id = organization.plan_id
    WHERE key.paused_at IS NULL AND key.revoked_at IS NULL AND NOT key.sandbox
) braked ON braked.id = spent.key_id
WHERE braked.nanos > 0 AND spent.nanos > braked.nanos
ORDER BY braked.id
"""
"""The sums of the last hours are made once, by the index on the hour, however many keys and however long a history."""
_SPENT: Final = """
SELECT coalesce(sum(cost_nanos), 0) FROM usage_usagerecord
WHERE organization_id = %(organization)s AND day >= %(day)s AND request_id >= %(first_id)s AND key_id = %(key)s
    AND NOT sandbox AND created_at + duration_ms * interval '1 millisecond' > %(since)s
"""


@dataclass(frozen=True)
class Braked:
    """A key whose last hours were dear enough to look closer."""

    key_id: str
    organization_id: str
    name: str
    nanos: int
    minutes: int
    counts_from: datetime | None


def brake(now: datetime) -> list[str]:
    """Pause every key that spent more than its brake allows; returns their ids.

    Running it twice at once pauses and tells once: whoever locks the key first does both in one transaction. A key for
    which that fails is logged, comes again in the next round, and does not stop the others."""
    pulled = []

    def look(key: Braked) -> None:
        spent = _spent(key, now)
        if spent > key.nanos and _pull(key, spent):
            pulled.append(key.key_id)

    each(_candidates(now), look, work="the brake")
    return pulled


def _candidates(now: datetime) -> Iterable[Braked]:
    hour = (now - LOOK_BACK - timedelta(seconds=settings.UPSTREAM_TOTAL_TIMEOUT_S)).replace(
        minute=0, second=0, microsecond=0
    )
    with connection.cursor() as cursor:
        cursor.execute(_CANDIDATES, {"hour": hour})
        return [Braked(*row) for row in cursor.fetchall()]


def _spent(key: Braked, now: datetime) -> int:
    """Nano-USD of the requests that ended within the minutes of the brake, since the key was last resumed."""
    since = now - timedelta(minutes=key.minutes)
    if key.counts_from is not None:
        since = max(since, key.counts_from)
    first = since - timedelta(seconds=settings.UPSTREAM_TOTAL_TIMEOUT_S * 2)  # where the longest of them began
    with connection.cursor() as cursor:
        cursor.execute(
            _SPENT,
            {
                "organization": key.organization_id,
                "key": key.key_id,
                "day": first.date(),
                "first_id": f"req_{int(first.timestamp() * 1000):012x}",
                "since": since,
            },
        )
        (spent,) = cursor.fetchone()
    return int(spent)


@transaction.atomic
def _pull(key: Braked, spent: int) -> bool:
    minutes = f"{key.minutes} minute{'' if key.minutes == 1 else 's'}"
    reason = f"{usd_text(spent)} USD within {minutes}, and its brake allows {usd_text(key.nanos)} USD"
    paused = pause_key(key.key_id, reason=reason)
    if paused is None or paused.paused_at is None:
        return False
    slug = Organization.objects.values_list("slug", flat=True).get(pk=key.organization_id)
    page = f"{settings.PUBLIC_URL}/o/{slug}/keys/"
    raise_alert(
        key.organization_id,
        AlertKind.KEY_PAUSED,
        key=f"key.paused:{key.key_id}:{paused.paused_at.isoformat()}",
        subject=f"The key “{key.name}” is paused: it was spending too fast",
        text=f"The key “{key.name}” ({paused.redacted}) spent {reason}. Its requests are refused from now on. If the"
        f" spending is what you want, resume the key with one click on {page}; otherwise revoke it there.",
        details={
            "key_id": key.key_id,
            "key_name": key.name,
            "paused_at": paused.paused_at.isoformat(),
            "minutes": key.minutes,
            "spent_nanos": spent,
            "spent_usd": format_usd(spent),
            "brake_nanos": key.nanos,
            "brake_usd": format_usd(key.nanos),
            "resume_url": page,
        },
    )
    log.warning("a key was paused by its brake", extra={"key_id": key.key_id, "spent_nanos": spent})
    return True
