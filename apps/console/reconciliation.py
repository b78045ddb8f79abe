"""Reconciliation: runs of the proofs with what they found, and vendors' bills beside our own records."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST
from unfold.admin import TabularInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminFileFieldWidget

from apps.billing.models import ProofResult, ReconciliationRun, VendorReport
from apps.billing.reconciliation.drift import Drift, read_drift
from apps.billing.reconciliation.running import ask_for_run
from apps.billing.reconciliation.vendor_costs import ReadFile, keep_file, read_file
from apps.billing.reconciliation.vendor_reports import MAX_BYTES
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin, ReadOnlyPermissions
from apps.console.figures import exact_usd, moment
from apps.console.site import console_site
from apps.core.errors import Conflict, DomainError

RESULTS = {"All hold": "success", "Failed": "danger", "Waiting": "info", "Running": "info", "Broken off": "warning"}
GIVEN_UP_AFTER = timedelta(hours=6)
"""A run without an end is taken for dead after so long."""
DAYS_SHOWN = 31
ROWS_SHOWN = 200


class ProofInline(ReadOnlyPermissions, TabularInline):
    """What each proof found."""

    model = ProofResult
    fields = readonly_fields = ("name", "result", "detail", "took")
    ordering = ("place",)
    extra = 0
    hide_title = True
    verbose_name_plural = "Proofs"

    @display(description="Result", label={"Holds": "success", "Failed": "danger"})
    def result(self, row: ProofResult) -> str:
        return "Holds" if row.holds else "Failed"

    @display(description="Took")
    def took(self, row: ProofResult) -> str:
        return f"{row.seconds:.3f} s"


@admin.register(ReconciliationRun, site=console_site)
class ReconciliationRunAdmin(ReadOnlyPermissions, ConsoleAdmin):
    """All runs, newest first; above them the latest with all its proofs."""

    list_display = ("heading", "result", "failed_proofs", "took", "cause", "actor")
    list_before_template = "console/reconciliation_latest.html"
    ordering = ("-id",)
    sortable_by = ()
    actions = None
    inlines = (ProofInline,)
    fieldsets = ((None, {"fields": (("result", "took"), ("started", "finished"), ("cause", "actor"), "totals", "id")}),)
    readonly_fields = ("result", "took", "started", "finished", "totals", "id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        failed = Count("results", filter=Q(results__holds=False))
        return super().get_queryset(request).annotate(failed_number=failed)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        latest = ReconciliationRun.objects.filter(finished_at__isnull=False).order_by("-finished_at").first()
        results = list(latest.results.all()) if latest else []
        is_under_way = ReconciliationRun.objects.filter(finished_at=None, asked_at__gt=_now() - GIVEN_UP_AFTER).exists()
        context = {"title": "Reconciliation", "latest": latest, "results": results, "is_under_way": is_under_way}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        view = require_POST(self.admin_site.admin_view(self.run_now))
        return [path("run-now/", view, name="billing_reconciliationrun_now"), *super().get_urls()]

    def run_now(self, request: HttpRequest) -> HttpResponse:
        """Ask the worker for a run; it takes it up within seconds."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        ask_for_run(request.user.get_username())
        messages.success(request, "The worker will begin within a few seconds. Load this page again to see the result.")
        return redirect(reverse("console:billing_reconciliationrun_changelist"))

    @display(header=True, description="Run (UTC)")
    def heading(self, row: ReconciliationRun) -> tuple[str, str]:
        return moment(row.started_at or row.asked_at), row.id

    @display(description="Result", label=RESULTS)
    def result(self, row: ReconciliationRun) -> str:
        if row.finished_at:
            return "All hold" if row.holds else "Failed"
        if row.asked_at < _now() - GIVEN_UP_AFTER:
            return "Broken off"
        return "Running" if row.started_at else "Waiting"

    @display(description="Failed proofs")
    def failed_proofs(self, row: Any) -> int:
        return int(row.failed_number)

    @display(description="Took")
    def took(self, row: ReconciliationRun) -> str:
        if not (row.started_at and row.finished_at):
            return "-"
        return f"{(row.finished_at - row.started_at).total_seconds():.1f} s"

    @display(description="Started (UTC)")
    def started(self, row: ReconciliationRun) -> str:
        return moment(row.started_at)

    @display(description="Finished (UTC)")
    def finished(self, row: ReconciliationRun) -> str:
        return moment(row.finished_at)

    @display(description="Sum of all lines, by account")
    def totals(self, row: ReconciliationRun) -> str:
        found = sorted(row.account_totals.items())
        return ", ".join(f"{kind.replace('_', ' ')} {exact_usd(int(total))}" for kind, total in found) or "-"


class VendorReportForm(forms.ModelForm):
    """A vendor's file. It is read while the form is checked, so that what is wrong stands beside it; saved later."""

    read: ReadFile
    file = forms.FileField(
        widget=UnfoldAdminFileFieldWidget,
        help_text="OpenAI: the JSON of /v1/organization/costs, grouped by line_item. Anthropic: the usage or cost CSV.",
    )

    class Meta:
        model = VendorReport
        fields = ("provider",)

    def clean_file(self) -> UploadedFile:
        file: UploadedFile = self.cleaned_data["file"]
        if file.size is not None and file.size > MAX_BYTES:
            raise forms.ValidationError(f"The file is larger than {MAX_BYTES >> 20} MiB.")
        return file

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        file, provider = cleaned.get("file"), cleaned.get("provider")
        if file and provider:
            try:
                self.read = read_file(provider.pk, file.read())
            except DomainError as error:
                self.add_error("file", error.message[:1].upper() + error.message[1:] + ".")
        return cleaned


@admin.register(VendorReport, site=console_site)
class VendorReportAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """Imported files, and above them what vendors say beside what our records say, by day and model."""

    form = VendorReportForm
    list_display = ("heading", "provider_id", "days", "rows_said", "imported", "imported_by")
    list_before_template = "console/drift.html"
    autocomplete_fields = ("provider",)
    ordering = ("-imported_at",)
    sortable_by = ()
    actions = None
    readonly_fields = ("provider_id", "days", "rows_said", "imported", "digest")

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("provider", "file")})]
        return [
            (None, {"fields": (("provider_id", "name"), ("days", "rows_said"), ("imported", "imported_by"), "digest")})
        ]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        try:
            return super().add_view(request, form_url, extra_context)
        except Conflict as error:  # somebody imported the file for another provider since the form was checked
            messages.error(request, error.message[:1].upper() + error.message[1:] + ".")
            return redirect(reverse("console:billing_vendorreport_changelist"))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Keep what the file says. The object becomes its report, perhaps that of an earlier import."""
        name = form.cleaned_data["file"].name or "file"
        report, obj.is_new = keep_file(form.read, name=name, actor=request.user.get_username())
        for field in VendorReport._meta.concrete_fields:
            setattr(obj, field.attname, getattr(report, field.attname))

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return super().log_addition(request, obj, message) if obj.is_new else None

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> HttpResponse:
        if obj.is_new:
            counts = f"{obj.new_rows} new, {obj.changed_rows} changed and {obj.known_rows} known rows"
            messages.success(request, f"{obj.name}: {counts}.")
        else:
            messages.info(request, "This file was imported before: nothing changed.")
        return redirect(f"{reverse('console:billing_vendorreport_changelist')}?provider__id__exact={obj.provider_id}")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = {"title": "Vendor costs", "drift": drift_table(request.GET.get("provider__id__exact", ""))}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    @display(header=True, description="File")
    def heading(self, row: VendorReport) -> tuple[str, str]:
        return row.name, row.digest[:12]

    @display(description="Days")
    def days(self, row: VendorReport) -> str:
        return str(row.first_day) if row.first_day == row.last_day else f"{row.first_day} to {row.last_day}"

    @display(description="Rows")
    def rows_said(self, row: VendorReport) -> str:
        return f"{row.new_rows} new, {row.changed_rows} changed, {row.known_rows} known"

    @display(description="Imported (UTC)")
    def imported(self, row: VendorReport) -> str:
        return moment(row.imported_at)


def drift_table(provider_id: str) -> dict[str, Any]:
    """Drift of the provider, else of that whose file came last, over the days up to its latest report."""
    reports = VendorReport.objects.order_by("-imported_at")
    newest = (reports.filter(provider=provider_id) if provider_id else reports).first()
    if newest is None:
        return {"rows": [], "provider": provider_id}
    of_provider = VendorReport.objects.filter(provider=newest.provider_id)
    last = max(of_provider.values_list("last_day", flat=True))
    first = max(min(of_provider.values_list("first_day", flat=True)), last - timedelta(days=DAYS_SHOWN - 1))
    rows = read_drift(newest.provider_id, first, last)
    return {
        "rows": [_shown(row) for row in rows[:ROWS_SHOWN]],
        "more": max(0, len(rows) - ROWS_SHOWN),
        "provider": newest.provider_id,
        "percent": settings.VENDOR_DRIFT_PERCENT,
    }


def _shown(row: Drift) -> dict[str, Any]:
    return {
        "day": row.day,
        "model": row.model,
        "our_tokens": row.our_tokens,
        "vendor_tokens": row.vendor_tokens,
        "charged": None if row.charged_nanos is None else exact_usd(row.charged_nanos),
        "vendor": None if row.vendor_nanos is None else exact_usd(row.vendor_nanos),
        "margin": None if row.margin_nanos is None else exact_usd(row.margin_nanos),
        "reasons": "; ".join(row.reasons(settings.VENDOR_DRIFT_PERCENT)),
    }


def _now() -> datetime:
    return datetime.now(UTC)
