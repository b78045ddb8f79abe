"""Usage to review: records whose usage, as the upstream told it, breaks a rule. An operator looks, and says so."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RadioFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.console.access import ConsoleAdmin
from apps.console.figures import exact_usd, moment
from apps.console.site import console_site
from apps.core.ids import created_at, utc_day
from apps.usage.models import UsageRecord, UsageReview

STATES = {"Waiting": "warning", "Reviewed": "success"}


class ReviewForm(forms.ModelForm):
    """What an operator found out. Saving it takes the record off the queue."""

    note = forms.CharField(
        max_length=1000,
        widget=UnfoldAdminTextareaWidget({"rows": 4}),
        help_text="What it was, and what was done about it. Saving marks the record as reviewed; it stays as it is.",
    )

    class Meta:
        model = UsageReview
        fields = ("note",)


class ReviewStateFilter(RadioFilter):
    """Waiting for somebody, or looked at."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in STATES:
            return queryset
        return queryset.filter(reviewed_at__isnull=self.value() == "Waiting")


@admin.register(UsageReview, site=console_site)
class UsageReviewAdmin(ConsoleAdmin):
    """The queue, newest first. Recording fills it; nobody adds to it by hand."""

    form = ReviewForm
    list_display = ("heading", "organization", "served", "reason", "state", "reviewed_by")
    list_filter = (ReviewStateFilter, ("organization", AutocompleteSelectFilter))
    list_select_related = ("organization",)
    list_fullwidth = True
    search_fields = ("=request_id", "provider", "model", "reason")
    ordering = ("-request_id",)
    sortable_by = ()
    actions = None
    readonly_fields = ("record", "began", "organization", "served_by", "reason", "told", "billed", "state", "reviewed")
    fieldsets = (
        (None, {"fields": (("record", "began"), ("organization", "served_by"), "reason", ("state", "reviewed"))}),
        ("What the upstream told", {"fields": ("told",)}),
        ("What is billed", {"fields": ("billed",)}),
        ("Review", {"fields": ("note",)}),
    )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: UsageReview, form: Any, change: bool) -> None:
        obj.reviewed_by = request.user.get_username()
        obj.reviewed_at = timezone.now()
        obj.save(update_fields=["note", "reviewed_by", "reviewed_at"])

    def response_change(self, request: HttpRequest, obj: UsageReview) -> HttpResponse:
        self.message_user(request, f"{obj.request_id} is marked as reviewed.", messages.SUCCESS)
        return redirect(f"{reverse('console:usage_usagereview_changelist')}?state=Waiting")

    @display(header=True, description="Request (UTC)")
    def heading(self, row: UsageReview) -> tuple[str, str]:
        return moment(created_at(row.request_id)), row.request_id

    @display(header=True, description="Model")
    def served(self, row: UsageReview) -> tuple[str, str]:
        return row.model, row.provider

    @display(description="State", label=STATES)
    def state(self, row: UsageReview) -> str:
        return "Reviewed" if row.reviewed_at else "Waiting"

    @display(description="Request")
    def record(self, row: UsageReview) -> str:
        page = reverse("console:usage_usagerecord_change", args=[row.request_id.replace("_", "_5F")])
        return format_html('<a href="{}" class="underline">{}</a>', page, row.request_id)

    @display(description="Began (UTC)")
    def began(self, row: UsageReview) -> str:
        return moment(created_at(row.request_id))

    @display(description="Served by")
    def served_by(self, row: UsageReview) -> str:
        return f"{row.model} at {row.provider}"

    @display(description="Usage as told")
    def told(self, row: UsageReview) -> str:
        record = _record_of(row)
        return record.raw_usage if record else ""

    @display(description="Tokens and cost")
    def billed(self, row: UsageReview) -> str:
        record = _record_of(row)
        if record is None:
            return ""
        counted = "by our own estimate" if record.estimated else "as told"
        tokens = f"{record.tokens_in:,} tokens in, {record.tokens_out:,} out"
        return f"{tokens}, {counted}: {exact_usd(record.cost_nanos)}"

    @display(description="Reviewed (UTC)")
    def reviewed(self, row: UsageReview) -> str:
        return f"{moment(row.reviewed_at)} by {row.reviewed_by}" if row.reviewed_at else ""


def _record_of(row: UsageReview) -> UsageRecord | None:
    """The record, from its one partition."""
    record: UsageRecord | None = (
        UsageRecord.objects.for_organization(row.organization_id)
        .filter(day=utc_day(row.request_id), request_id=row.request_id)
        .first()
    )
    return record
