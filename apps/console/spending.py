"""Sums of money as database expressions, for lists of organizations and projects."""

from datetime import UTC, datetime

from django.db.models import BigIntegerField, OuterRef, Subquery, Sum
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone

from apps.usage.models import UsageRollup


def month_start(now: datetime | None = None) -> datetime:
    """The first moment of the UTC month."""
    return (now or timezone.now()).astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def spent_since(start: datetime, *, owner: str) -> Coalesce:
    """Nano-USD spent from `start` on by each row of the outer query, which the rollups name in `owner`."""
    spent = (
        UsageRollup.objects.filter(**{owner: OuterRef("pk")}, hour__gte=start, sandbox=False)
        .order_by()
        .values(owner)
        .annotate(total=Cast(Sum("cost_nanos"), BigIntegerField()))
        .values("total")
    )
    return Coalesce(Subquery(spent), 0, output_field=BigIntegerField())
