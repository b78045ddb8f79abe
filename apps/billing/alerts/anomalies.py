"""Spending that is unusual against the last four weeks.

The rule, for the running UTC day and for its hours: of the 28 days before, those with any spending count. Usual is
their median (for hours: the median of each day's dearest hour, so that a job that runs at another hour is no news).
Unusual is what is more than three times that, and more than the median by six median absolute deviations, and more
than 10 USD in a day or 5 USD in an hour. With fewer than seven days of spending there is no "usual" yet."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

from django.db.models import Sum

from apps.billing.alerts.raising import raise_alert
from apps.billing.models import AlertKind
from apps.core.limits import usd_text
from apps.core.money import NANOS_PER_USD, format_usd
from apps.usage.models import UsageRollup

BASELINE_DAYS: Final = 28
LEAST_DAYS: Final = 7
FACTOR: Final = 3
DEVIATIONS: Final = 6
LEAST_DAY_NANOS: Final = 10 * NANOS_PER_USD
LEAST_HOUR_NANOS: Final = 5 * NANOS_PER_USD


def usual_limit(baseline: Sequence[int], least_nanos: int) -> int | None:
    """The most that is still usual, in nano-USD; None while there are too few days to know. Pure."""
    if len(baseline) < LEAST_DAYS:
        return None
    middle = median(baseline)
    deviation = median(abs(value - middle) for value in baseline)
    return max(int(FACTOR * middle), int(middle + DEVIATIONS * deviation), least_nanos)


def evaluate_anomalies(organization_ids: Collection[str], now: datetime) -> None:
    """Raise what is due for these organizations, from what is posted. Only those that spend enough cost a look back."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rows: Any = UsageRollup.objects.filter(
        organization_id__in=organization_ids, sandbox=False, hour__gte=today, hour__lt=today + timedelta(days=1)
    )
    spent: dict[str, dict[datetime, int]] = defaultdict(dict)
    for owner, hour, cost in rows.values_list("organization_id", "hour").annotate(cost=Sum("cost_nanos")).order_by():
        spent[owner][hour] = int(cost)
    loud = {
        owner: hours
        for owner, hours in spent.items()
        if sum(hours.values()) > LEAST_DAY_NANOS or max(hours.values()) > LEAST_HOUR_NANOS
    }
    before = _days_before(loud, today)
    for owner, hours in loud.items():
        days = before[owner].values()
        _compare(owner, "day", today, sum(hours.values()), usual_limit([sum(day) for day in days], LEAST_DAY_NANOS))
        hour = max(hours, key=lambda moment: hours[moment])
        _compare(owner, "hour", hour, hours[hour], usual_limit([max(day) for day in days], LEAST_HOUR_NANOS))


def _days_before(organization_ids: Collection[str], today: datetime) -> dict[str, dict[datetime, list[int]]]:
    """For each organization the days of the last four weeks in which it spent anything: the cost of their hours."""
    rows: Any = UsageRollup.objects.filter(
        organization_id__in=organization_ids,
        sandbox=False,
        hour__gte=today - timedelta(days=BASELINE_DAYS),
        hour__lt=today,
    )
    days: dict[str, dict[datetime, list[int]]] = defaultdict(lambda: defaultdict(list))
    for owner, hour, cost in rows.values_list("organization_id", "hour").annotate(cost=Sum("cost_nanos")).order_by():
        if cost > 0:
            days[owner][hour.replace(hour=0)].append(int(cost))
    return days


def _compare(organization_id: str, span: str, starts_at: datetime, spent: int, limit: int | None) -> None:
    if limit is None or spent <= limit:
        return
    when = "today" if span == "day" else f"in the hour from {starts_at:%H:%M} UTC"
    raise_alert(
        organization_id,
        AlertKind.SPEND_ANOMALY,
        # once a day for the day, and once a day for its hours
        key=f"spend.anomaly:{organization_id}:{span}:{starts_at:%Y-%m-%d}",
        subject=f"Unusual spending: {usd_text(spent)} USD {when}",
        text=f"{usd_text(spent)} USD were spent {when}. In the last four weeks up to {usd_text(limit)} USD"
        f" would have been usual. If this is not what you expect, look which key it was, and revoke it.",
        details={
            "span": span,
            "starts_at": starts_at.isoformat(),
            "spent_nanos": spent,
            "spent_usd": format_usd(spent),
            "usual_nanos": limit,
            "usual_usd": format_usd(limit),
        },
    )
