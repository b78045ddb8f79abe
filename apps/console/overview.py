"""The numbers of the console's first page: two days of hourly rollups in one query, summed up here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import msgspec
from django.db.models import Count, Q, Sum

from apps.accounts.models import Organization
from apps.catalog.models import Model, PriceVersion, Provider, Route
from apps.console.credentials import credential_state
from apps.console.figures import exact_usd, percent, short_count, short_usd
from apps.console.spending import month_start, spent_since
from apps.usage.models import TOKEN_COLUMNS, UsageRollup

HOURS_SHOWN = 24
ROWS_SHOWN = 8
NEWEST_SHOWN = 6
FAILING_FROM = 0.05
"""Share of failed requests in the last 24 hours from which a provider counts as failing."""


@dataclass(frozen=True)
class Totals:
    """Sums over some hours, models and providers."""

    requests: int = 0
    failed_requests: int = 0
    tokens: int = 0
    cost_nanos: int = 0
    cached_requests: int = 0
    saved_nanos: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.requests + other.requests,
            self.failed_requests + other.failed_requests,
            self.tokens + other.tokens,
            self.cost_nanos + other.cost_nanos,
            self.cached_requests + other.cached_requests,
            self.saved_nanos + other.saved_nanos,
        )

    @property
    def spend(self) -> str:
        return short_usd(self.cost_nanos)

    @property
    def exact_spend(self) -> str:
        return exact_usd(self.cost_nanos)

    @property
    def saved(self) -> str:
        """What customers did not pay, because the response cache answered."""
        return short_usd(self.saved_nanos)

    @property
    def short_tokens(self) -> str:
        return short_count(self.tokens)

    @property
    def failed_share(self) -> str:
        return percent(self.failed_requests, self.requests)

    @property
    def is_failing(self) -> bool:
        return self.failed_requests > 0 and self.failed_requests >= FAILING_FROM * self.requests


@dataclass(frozen=True)
class HourRow:
    """One hour of one model at one provider, over all organizations."""

    hour: datetime
    model: str
    provider: str
    totals: Totals


@dataclass(frozen=True)
class Slice:
    """One line of a table: a model or a provider in the last 24 hours."""

    name: str
    totals: Totals
    percent_of_spend: int

    @classmethod
    def of(cls, name: str, totals: Totals, everything: Totals) -> Self:
        share = totals.cost_nanos * 100 // everything.cost_nanos if everything.cost_nanos else 0
        return cls(name, totals, share)


@dataclass(frozen=True)
class Readiness:
    """How much of the catalog can be called now."""

    models_on_offer: int
    models: int
    providers_ready: int
    providers: int


@dataclass(frozen=True)
class NewOrganization:
    """A customer that came lately."""

    id: str
    name: str
    slug: str
    created_at: datetime
    spent: str


@dataclass(frozen=True)
class Overview:
    """Everything on the page. `failing` are providers, worst first; charts are JSON for Chart.js."""

    today: Totals
    last_day: Totals
    day_before: Totals
    models: list[Slice]
    providers: list[Slice]
    failing: list[Slice]
    requests_chart: str
    spend_chart: str
    chart_options: str
    readiness: Readiness
    newest: list[NewOrganization]


def read_overview(now: datetime) -> Overview:
    """The page as of `now`, in four queries."""
    this_hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day_start = this_hour - timedelta(hours=HOURS_SHOWN - 1)
    rows = read_hours(day_start - timedelta(hours=HOURS_SHOWN))
    recent = [row for row in rows if row.hour >= day_start]
    providers = slices(recent, by=lambda row: row.provider)
    hours = [day_start + timedelta(hours=number) for number in range(HOURS_SHOWN)]
    return Overview(
        today=total(row for row in recent if row.hour >= this_hour.replace(hour=0)),
        last_day=total(recent),
        day_before=total(row for row in rows if row.hour < day_start),
        models=slices(recent, by=lambda row: row.model)[:ROWS_SHOWN],
        providers=providers[:ROWS_SHOWN],
        failing=sorted(
            (one for one in providers if one.totals.is_failing),
            key=lambda one: one.totals.failed_requests / one.totals.requests,
            reverse=True,
        ),
        requests_chart=_requests_chart(hours, recent),
        spend_chart=_spend_chart(hours, recent),
        chart_options=CHART_OPTIONS,
        readiness=read_readiness(now),
        newest=newest_organizations(now),
    )


def read_hours(since: datetime) -> list[HourRow]:
    """All live usage from the hour `since` on, by hour, model and provider: test traffic is nobody's money."""
    columns = ("requests", "failed_requests", "cost_nanos", "cached_requests", "saved_nanos", *TOKEN_COLUMNS)
    sums = {f"{column}_sum": Sum(column) for column in columns}
    live = UsageRollup.objects.filter(hour__gte=since, sandbox=False)
    found = live.values("hour", "model", "provider").annotate(**sums)
    return [
        HourRow(
            row["hour"],
            row["model"],
            row["provider"],
            Totals(
                requests=int(row["requests_sum"]),
                failed_requests=int(row["failed_requests_sum"]),
                tokens=sum(int(row[f"{column}_sum"]) for column in TOKEN_COLUMNS),
                cost_nanos=int(row["cost_nanos_sum"]),
                cached_requests=int(row["cached_requests_sum"]),
                saved_nanos=int(row["saved_nanos_sum"]),
            ),
        )
        for row in found.order_by()
    ]


def total(rows: Iterable[HourRow]) -> Totals:
    """The sum of all rows."""
    return sum((row.totals for row in rows), start=Totals())


def slices(rows: list[HourRow], *, by: Callable[[HourRow], str]) -> list[Slice]:
    """The rows summed by a name, the dearest first."""
    sums: dict[str, Totals] = {}
    for row in rows:
        sums[by(row)] = sums.get(by(row), Totals()) + row.totals
    ordered = sorted(sums.items(), key=lambda item: (-item[1].cost_nanos, -item[1].requests, item[0]))
    everything = total(rows)
    return [Slice.of(name, totals, everything) for name, totals in ordered]


def read_readiness(now: datetime) -> Readiness:
    """Counts of what can be called at `now`: models with a price in force and a route to a ready provider."""
    providers = list(Provider.objects.filter(enabled=True))
    ready = [provider.pk for provider in providers if credential_state(provider).is_usable]
    counts = Model.objects.aggregate(
        models=Count("pk"),
        on_offer=Count(
            "pk",
            filter=Q(enabled=True)
            & Q(pk__in=Route.objects.filter(enabled=True, provider__in=ready).values("model"))
            & Q(pk__in=PriceVersion.objects.filter(starts_at__lte=now).values("model")),
        ),
    )
    return Readiness(counts["on_offer"], counts["models"], len(ready), len(providers))


def newest_organizations(now: datetime) -> list[NewOrganization]:
    """The latest customers with what they spent since the month began."""
    found = Organization.objects.annotate(spent_nanos=spent_since(month_start(now), owner="organization"))
    return [
        NewOrganization(row.pk, row.name, row.slug, row.created_at, short_usd(row.spent_nanos))
        for row in found.order_by("-created_at")[:NEWEST_SHOWN]
    ]


def _by_hour(hours: list[datetime], rows: list[HourRow]) -> list[Totals]:
    sums = dict.fromkeys(hours, Totals())
    for row in rows:
        if row.hour in sums:
            sums[row.hour] += row.totals
    return [sums[hour] for hour in hours]


def _requests_chart(hours: list[datetime], rows: list[HourRow]) -> str:
    points = _by_hour(hours, rows)
    succeeded = [point.requests - point.failed_requests for point in points]
    failed = [point.failed_requests for point in points]
    return _chart(
        hours,
        [("Succeeded", succeeded, "var(--color-primary-500)"), ("Failed", failed, "var(--console-failed)")],
    )


def _spend_chart(hours: list[datetime], rows: list[HourRow]) -> str:
    # A chart's axis is the one place where money may be a float: nothing is computed from it.
    dollars = [point.cost_nanos / 1_000_000_000 for point in _by_hour(hours, rows)]
    return _chart(hours, [("USD", dollars, "var(--color-primary-500)")])


def _chart(hours: list[datetime], series: list[tuple[str, list[int] | list[float], str]]) -> str:
    datasets = [{"label": name, "data": values, "backgroundColor": color} for name, values, color in series]
    chart = {"labels": [f"{hour:%H}:00" for hour in hours], "datasets": datasets}
    return msgspec.json.encode(chart).decode()


_TICKS = {"color": "#9ca3af", "maxRotation": 0, "autoSkipPadding": 16}
CHART_OPTIONS = msgspec.json.encode(
    {
        "animation": False,
        "maintainAspectRatio": False,
        "borderRadius": 3,
        "maxBarThickness": 18,
        "interaction": {"mode": "index", "intersect": False},
        "plugins": {"legend": {"display": False}},
        "scales": {
            "x": {"stacked": True, "border": {"display": False}, "grid": {"display": False}, "ticks": _TICKS},
            "y": {
                "stacked": True,
                "beginAtZero": True,
                "border": {"display": False},
                "grid": {"color": "#e5e7eb"},
                "ticks": {**_TICKS, "maxTicksLimit": 5},
            },
        },
    }
).decode()
