"""Reads of one organization's usage for pages: sums from the rollups, records page by page, one record."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from django.db.models import F, Max, Q, Sum
from django.db.models.functions import Coalesce, Trunc

from apps.core.errors import NotFound
from apps.core.ids import utc_day
from apps.core.models import OrganizationScopedQuerySet
from apps.usage.models import INPUT_COLUMNS, OUTPUT_COLUMNS, TOKEN_COLUMNS, UsageRecord, UsageRollup

PAGE_SIZE = 50
_SUMMED = (
    "requests",
    "failed_requests",
    "estimated_requests",
    *TOKEN_COLUMNS,
    "cost_nanos",
    "cached_requests",
    "saved_nanos",
)

Dimension = Literal["model", "key_id", "project_id"]


class Step(StrEnum):
    """How wide one point of a series is."""

    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True)
class Span:
    """Whole UTC hours or days: `since` inclusive, `until` exclusive, in steps of `step`."""

    since: datetime
    until: datetime
    step: Step

    def starts(self) -> list[datetime]:
        """Where each point of the span begins, oldest first."""
        width = timedelta(hours=1) if self.step is Step.HOUR else timedelta(days=1)
        return [self.since + number * width for number in range((self.until - self.since) // width)]


@dataclass(frozen=True)
class Narrowing:
    """What of an organization's usage is asked for; an empty word does not narrow.

    Live and test traffic are never mixed: it is the one or the other."""

    model: str = ""
    key_id: str = ""
    project_id: str = ""
    sandbox: bool = False

    def apply(self, rows: OrganizationScopedQuerySet) -> OrganizationScopedQuerySet:
        wanted = {"model": self.model, "key_id": self.key_id, "project_id": self.project_id}
        return rows.filter(sandbox=self.sandbox, **{column: value for column, value in wanted.items() if value})


EVERYTHING = Narrowing()
"""All live traffic."""


@dataclass(frozen=True)
class Sums:
    """Totals of some requests. The token buckets are disjoint; `cost_nanos` is in nano-USD."""

    requests: int = 0
    failed_requests: int = 0
    estimated_requests: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    cost_nanos: int = 0
    cached_requests: int = 0
    """Those that the response cache answered."""
    saved_nanos: int = 0
    """What they would have cost without it, less what they cost."""
    byok_requests: int = 0
    """Of the requests: those that the organization's own provider keys served."""

    @property
    def tokens_in(self) -> int:
        """All input, whether a prompt cache served it or not."""
        return sum(getattr(self, column) for column in INPUT_COLUMNS)

    @property
    def tokens_out(self) -> int:
        """All output, with reasoning."""
        return sum(getattr(self, column) for column in OUTPUT_COLUMNS)

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True)
class Point:
    """One step of a series; steps without requests stand there with zeros."""

    start: datetime
    sums: Sums


@dataclass(frozen=True)
class RecordsPage:
    """Records, newest first. `before` is the request id to ask the next page with; None on the last page."""

    records: list[UsageRecord]
    before: str | None


def last_hours(hours: int, now: datetime) -> Span:
    """The running UTC hour and the ones before it, `hours` in all."""
    until = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return Span(until - timedelta(hours=hours), until, Step.HOUR)


def last_days(days: int, now: datetime) -> Span:
    """The running UTC day and the ones before it, `days` in all."""
    until = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return Span(until - timedelta(days=days), until, Step.DAY)


def this_month(now: datetime) -> Span:
    """From the first of the running UTC month to the end of today."""
    today = last_days(1, now)
    return Span(today.since.replace(day=1), today.until, Step.DAY)


def sums(organization_id: str, span: Span, narrowing: Narrowing = EVERYTHING) -> Sums:
    """Totals of the span from the rollups, which follow the requests by about a second."""
    return _sums_from(_rollups(organization_id, span, narrowing).aggregate(**_totals()))


def series(organization_id: str, span: Span, narrowing: Narrowing = EVERYTHING) -> list[Point]:
    """The span step by step, oldest first, without gaps."""
    rows = (
        _rollups(organization_id, span, narrowing)
        .annotate(start=Trunc("hour", span.step.value, tzinfo=UTC))
        .values("start")
        .annotate(**_totals())
        .order_by("start")
    )
    found = {row.pop("start"): _sums_from(row) for row in rows}
    return [Point(start, found.get(start, Sums())) for start in span.starts()]


def sums_by(
    organization_id: str, span: Span, dimension: Dimension, *, narrowing: Narrowing = EVERYTHING
) -> dict[str, Sums]:
    """Totals of the span for each model, key or project that had requests, the most expensive first."""
    rows = (
        _rollups(organization_id, span, narrowing)
        .values(name=F(dimension))
        .annotate(**_totals())
        .order_by("-total_cost_nanos", "name")
    )
    return {row.pop("name"): _sums_from(row) for row in rows}


def last_used_hours(organization_id: str, span: Span) -> dict[str, datetime]:
    """For each key used in the span, live or sandbox: the beginning of the last UTC hour in which it was."""
    rows = _hours(organization_id, span).values("key_id").annotate(last=Max("hour")).order_by("key_id")
    return {row["key_id"]: row["last"] for row in rows}


def records_page(
    organization_id: str,
    span: Span,
    narrowing: Narrowing = EVERYTHING,
    *,
    before: str | None = None,
    size: int = PAGE_SIZE,
) -> RecordsPage:
    """Up to `size` records of the span, newest first, older than the request id `before`.

    Request ids are ordered by time, so the id alone is the page's key: a deep page costs what the first one
    does. The day range lets PostgreSQL skip partitions. Raises ValueError when `before` is no request id."""
    last_day = utc_day(before) if before else (span.until - timedelta(microseconds=1)).date()
    rows = UsageRecord.objects.for_organization(organization_id).filter(
        day__gte=span.since.date(), day__lte=last_day, request_id__gte=first_request_id(span.since)
    )
    if before:
        rows = rows.filter(request_id__lt=before)
    found = list(narrowing.apply(rows).order_by("-request_id")[: size + 1])
    records = found[:size]
    return RecordsPage(records, records[-1].request_id if len(found) > size else None)


def record_of(organization_id: str, request_id: str) -> UsageRecord:
    """One record of the organization. Raises NotFound, also for ids that are not ours or belong to others."""
    missing = NotFound(f"there is no request {request_id}")
    try:
        day = utc_day(request_id)
    except ValueError as error:
        raise missing from error
    record: UsageRecord | None = (
        UsageRecord.objects.for_organization(organization_id).filter(day=day, request_id=request_id).first()
    )
    if record is None:
        raise missing
    return record


def _rollups(organization_id: str, span: Span, narrowing: Narrowing) -> OrganizationScopedQuerySet:
    return narrowing.apply(_hours(organization_id, span))


def _hours(organization_id: str, span: Span) -> OrganizationScopedQuerySet:
    return UsageRollup.objects.for_organization(organization_id).filter(hour__gte=span.since, hour__lt=span.until)


def _totals() -> dict[str, Any]:
    own = Coalesce(Sum("requests", filter=Q(byok=True)), 0)
    return {**{f"total_{name}": Coalesce(Sum(name), 0) for name in _SUMMED}, "total_byok_requests": own}


def _sums_from(row: dict[str, int]) -> Sums:
    return Sums(**{name.removeprefix("total_"): int(value) for name, value in row.items()})


def first_request_id(moment: datetime) -> str:
    """The smallest request id that can have been made at `moment`."""
    return f"req_{int(moment.timestamp() * 1000):012x}{'0' * 20}"
