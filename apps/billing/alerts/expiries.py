"""Credit that ends soon: told 30 days, 7 days and 1 day ahead."""

from datetime import datetime, timedelta
from typing import Final

from apps.billing.alerts.apart import each
from apps.billing.alerts.raising import raise_alert
from apps.billing.models import Alert, AlertKind, Grant
from apps.core.limits import usd_text
from apps.core.money import format_usd

STEPS: Final = (1, 7, 30)
"""Days, the nearest first: of several that have come at once the nearest is told."""
CHUNK: Final = 500


def due_step(created_at: datetime, expires_at: datetime, now: datetime) -> int | None:
    """The step that has come; None when none has. Credit that was given for fewer days than a step skips it. Pure."""
    for days in STEPS:
        moment = expires_at - timedelta(days=days)
        if moment <= now < expires_at:
            return days if created_at < moment else None
    return None


def evaluate_expiries(now: datetime) -> None:
    """Raise what is due, of all organizations."""
    ending = Grant.objects.filter(
        remaining_nanos__gt=0, expires_at__gt=now, expires_at__lte=now + timedelta(days=max(STEPS))
    ).order_by("expires_at")
    due: dict[str, tuple[Grant, int]] = {}
    for grant in ending.iterator(chunk_size=CHUNK):
        if grant.expires_at is None:
            continue
        step = due_step(grant.created_at, grant.expires_at, now)
        if step is not None:
            due[f"grant.expiring:{grant.id}:{step}"] = (grant, step)
        if len(due) >= CHUNK:
            _raise_new(due)
            due.clear()
    _raise_new(due)


def _raise_new(due: dict[str, tuple[Grant, int]]) -> None:
    told = set(Alert.objects.filter(dedupe_key__in=due).values_list("dedupe_key", flat=True))
    each([key for key in due if key not in told], lambda key: _raise(key, *due[key]), work="an alert of ending credit")


def _raise(key: str, grant: Grant, step: int) -> None:
    rest = usd_text(grant.remaining_nanos)
    day = f"{grant.expires_at:%Y-%m-%d %H:%M} UTC"
    when = "tomorrow" if step == 1 else f"in {step} days"
    raise_alert(
        grant.organization_id,
        AlertKind.GRANT_EXPIRING,
        key=key,
        subject=f"{rest} USD of your credit ends {when}",
        text=f"{rest} USD that are left of a {grant.source} credit of {usd_text(grant.amount_nanos)} USD end at {day}."
        " What is not used by then is lost.",
        details={
            "grant_id": grant.id,
            "source": grant.source,
            "step_days": step,
            "expires_at": grant.expires_at.isoformat() if grant.expires_at else None,
            "remaining_nanos": grant.remaining_nanos,
            "remaining_usd": format_usd(grant.remaining_nanos),
        },
    )
