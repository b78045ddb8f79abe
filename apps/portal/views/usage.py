"""Usage: charts, the table of requests, one request's receipt, and the file of all of them."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from urllib.parse import urlencode

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from apps.accounts.models import Project
from apps.accounts.roles import Capability
from apps.billing.receipt_reading import find_receipt
from apps.core.ids import created_at
from apps.keys.models import ApiKey
from apps.portal.access import Access, organization_page
from apps.portal.charts import chart_of
from apps.portal.pages import render_page
from apps.portal.receipts import labelled, status_of
from apps.portal.streaming import streamed
from apps.usage import export as usage_export
from apps.usage.reports import (
    Narrowing,
    Span,
    last_days,
    last_hours,
    records_page,
    series,
    sums,
    sums_by,
)

RANGES = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
DEFAULT_RANGE = "30d"
SANDBOX = "sandbox"
"""What the address says of test traffic; live traffic needs no word."""
HIDDEN_COLUMNS = frozenset({"provider"})
"""Which upstream served a request is the operator's business."""


@dataclass(frozen=True)
class Question:
    """What a visitor asked to see. Nonsense in the address means the default, or narrows to nothing."""

    range: str
    narrowing: Narrowing
    before: str | None

    @classmethod
    def of(cls, request: HttpRequest) -> "Question":
        query = request.GET
        wanted_range = query.get("range", DEFAULT_RANGE)
        return cls(
            range=wanted_range if wanted_range in RANGES else DEFAULT_RANGE,
            narrowing=Narrowing(
                model=query.get("model", ""),
                key_id=query.get("key", ""),
                project_id=query.get("project", ""),
                sandbox=query.get("traffic") == SANDBOX,
            ),
            before=query.get("before") or None,
        )

    def span(self, now: datetime) -> Span:
        return last_hours(24, now) if self.range == "24h" else last_days(int(self.range.removesuffix("d")), now)

    def address(self, before: str | None) -> str:
        """The query string of another page of the same question."""
        narrowing = self.narrowing
        wanted = {
            "traffic": SANDBOX if narrowing.sandbox else "",
            "range": self.range,
            "model": narrowing.model,
            "key": narrowing.key_id,
            "project": narrowing.project_id,
            "before": before or "",
        }
        return "?" + urlencode({name: value for name, value in wanted.items() if value})


@organization_page(get=Capability.VIEW_USAGE)
def usage(request: HttpRequest, access: Access) -> HttpResponse:
    """Charts and table for a range, narrowed by model, key and project."""
    question = Question.of(request)
    organization_id = access.organization.id
    span = question.span(timezone.now())
    narrowing = question.narrowing
    try:
        page = records_page(organization_id, span, narrowing, before=question.before)
    except ValueError as error:
        raise Http404 from error
    points = series(organization_id, span, narrowing)
    keys = {
        key.id: key
        for key in ApiKey.objects.for_organization(organization_id).order_by("name")
        if key.sandbox == narrowing.sandbox
    }
    projects = {project.id: project for project in Project.objects.for_organization(organization_id)}
    context = {
        "question": question,
        "ranges": RANGES.items(),
        "range_words": RANGES[question.range],
        "span": span,
        "total": sums(organization_id, span, narrowing),
        "chart": chart_of(points, span.step),
        "points": points,
        "by_model": list(sums_by(organization_id, span, "model", narrowing=narrowing).items()),
        "models": sorted({*_models_of(organization_id, span, narrowing), *filter(None, [narrowing.model])}),
        "keys": keys,
        "projects": projects,
        "rows": [(record, keys.get(record.key_id)) for record in page.records],
        "older": question.address(page.before) if page.before else "",
        "newest": question.address(None) if question.before else "",
        "export_query": question.address(None),
    }
    return render_page(request, access, "portal/usage.html", context)


@organization_page(get=Capability.VIEW_USAGE)
def request_detail(request: HttpRequest, access: Access, request_id: str) -> HttpResponse:
    """One request: what it used, at which price, and so what it cost. The same receipt as the API's."""
    organization_id = access.organization.id
    receipt = find_receipt(organization_id, request_id, journal_root=settings.JOURNAL_DIR)
    if receipt is None:
        raise Http404
    opened = receipt.closed.opened
    context = {
        "receipt": receipt,
        "lines": labelled(receipt),
        "closed": receipt.closed,
        "opened": opened,
        "status": status_of(receipt),
        "began": created_at(request_id),
        "price_from": datetime.fromtimestamp(receipt.price.starts_at, UTC) if receipt.price else None,
        "key": ApiKey.objects.for_organization(organization_id).filter(pk=opened.key_id).first(),
        "project": Project.objects.for_organization(organization_id).filter(pk=opened.project_id).first(),
        "section": "usage",
    }
    return render_page(request, access, "portal/usage_request.html", context)


@organization_page(get=Capability.VIEW_USAGE)
def export(request: HttpRequest, access: Access) -> HttpResponseBase:
    """All requests of the range as CSV, one row a request, oldest first."""
    question = Question.of(request)
    span = question.span(timezone.now())
    is_sandbox = question.narrowing.sandbox
    rows = usage_export.iter_rows(access.organization.id, since=span.since, until=span.until, sandbox=is_sandbox)
    kind = "sandbox-usage" if is_sandbox else "usage"
    name = f"{kind}-{access.organization.slug}-{span.since:%Y%m%d}-{question.range}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
    return streamed(request, _csv_lines(rows), content_type="text/csv; charset=utf-8", headers=headers)


def _models_of(organization_id: str, span: Span, narrowing: Narrowing) -> list[str]:
    """All models of this kind of traffic in the span: what the filter offers."""
    return list(sums_by(organization_id, span, "model", narrowing=Narrowing(sandbox=narrowing.sandbox)))


def _csv_lines(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    columns = [column for column in usage_export.COLUMNS if column not in HIDDEN_COLUMNS]
    line = StringIO()
    writer = csv.writer(line)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([usage_export.csv_cell(row[column]) for column in columns])
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    yield line.getvalue()
