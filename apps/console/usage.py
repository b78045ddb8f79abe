"""Usage records: one line a request, to look at. Built for tables far too long to count."""

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin import ShowFacets
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import (
    AutocompleteSelectFilter,
    ChoicesDropdownFilter,
    DropdownFilter,
    RangeDateFilter,
)
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from apps.accounts.models import Project
from apps.billing.receipts import percent_of
from apps.catalog.models import Model, Provider
from apps.console.access import ConsoleAdmin, ReadOnlyPermissions
from apps.console.figures import exact_usd, moment
from apps.console.site import console_site
from apps.core.ids import utc_day
from apps.keys.models import ApiKey
from apps.usage.contracts import RESPONSE_CACHE, Outcome, verdict_in_words
from apps.usage.models import UsageRecord

KEY_SEARCH_DAYS = 31
"""How far back the requests of one key are looked for: a bound on the partitions that are read."""

OUTCOMES = {
    Outcome.COMPLETED.value: "success",
    Outcome.FAILED.value: "danger",
    Outcome.CANCELLED.value: "warning",
    Outcome.INTERRUPTED.value: "warning",
}


class NameFilter(DropdownFilter):
    """Records that name one row of the catalog; the choice comes from there, not from a scan of the records."""

    catalog: type[Model] | type[Provider]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(row.pk, row.pk) for row in self.catalog.objects.order_by("pk").only("pk")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.parameter_name: self.value()}) if self.value() else queryset


class ModelFilter(NameFilter):
    """Requests for one model."""

    title = parameter_name = "model"
    catalog = Model


class ProviderFilter(NameFilter):
    """Requests that one provider served."""

    title = parameter_name = "provider"
    catalog = Provider

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*super().lookups(request, model_admin), (RESPONSE_CACHE, "the response cache")]


@admin.register(UsageRecord, site=console_site)
class UsageRecordAdmin(ReadOnlyPermissions, ConsoleAdmin):
    """Requests, newest first. Day before id in the order: so the newest partition answers alone."""

    list_display = ("heading", "organization", "served", "outcome", "tokens_in", "tokens_out", "cost", "took")
    list_filter = (
        ("day", RangeDateFilter),
        ("organization", AutocompleteSelectFilter),
        ModelFilter,
        ProviderFilter,
        ("status", ChoicesDropdownFilter),
        "sandbox",
    )
    list_select_related = ("organization",)
    list_fullwidth = True
    search_fields = ("request_id",)
    search_help_text = f"A whole request id, or a whole key id (last {KEY_SEARCH_DAYS} days)"
    ordering = ("-day", "-request_id")
    sortable_by = ()
    show_facets = ShowFacets.NEVER
    show_full_result_count = False
    paginator = InfinitePaginator
    actions = None
    fieldsets = (
        (None, {"fields": (("request_id", "outcome"), ("created", "organization"), ("project", "key"))}),
        (
            "Served by",
            {
                "fields": (
                    ("model", "provider"),
                    ("upstream_model", "sandbox"),
                    ("credential_id", "fee_ppm"),
                    ("streamed", "http_status"),
                    ("finish_reason", "error_code"),
                    "all_attempts",
                    "guarded",
                )
            },
        ),
        (
            "Tokens",
            {
                "fields": (
                    ("input_tokens", "output_tokens"),
                    ("cache_read_tokens", "reasoning_tokens"),
                    ("cache_write_tokens", "cache_write_1h_tokens"),
                    ("audio_input_tokens", "audio_output_tokens"),
                    ("image_input_tokens", "image_output_tokens"),
                    ("images", "service_tier"),
                    ("counted_by", "review"),
                    "raw_usage",
                )
            },
        ),
        (
            "Cost and time",
            {"fields": (("cost", "overage"), ("cached", "price_version_id"), ("took", "first_byte"), "recorded")},
        ),
    )
    readonly_fields = (
        "outcome",
        "all_attempts",
        "guarded",
        "created",
        "project",
        "key",
        "cost",
        "overage",
        "took",
        "first_byte",
        "recorded",
        "cached",
        "counted_by",
    )

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> UsageRecord | None:
        """The day stands in the id, so one partition is asked and not all of them."""
        try:
            day = utc_day(object_id)
        except ValueError:
            return None
        record: UsageRecord | None = self.get_queryset(request).filter(day=day, request_id=object_id).first()
        return record

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Whole ids only: a search within texts would read every record there is."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.startswith("key_"):
            since = timezone.now().date() - timedelta(days=KEY_SEARCH_DAYS)
            return queryset.filter(key_id=term, day__gte=since), False
        try:
            return queryset.filter(day=utc_day(term), request_id=term), False
        except ValueError:
            return queryset.none(), False

    @display(header=True, description="Request (UTC)")
    def heading(self, row: UsageRecord) -> tuple[str, str]:
        return moment(row.created_at), row.request_id

    @display(header=True, description="Model")
    def served(self, row: UsageRecord) -> tuple[str, str]:
        return row.model, row.provider

    @display(description="Counted by")
    def counted_by(self, row: UsageRecord) -> str:
        if row.is_cached:
            return "the provider of the first request"
        return "CRUN, estimated" if row.estimated else "the provider"

    @display(description="Response cache")
    def cached(self, row: UsageRecord) -> str:
        if row.cache_share_ppm is None:
            return ""
        return f"{percent_of(row.cache_share_ppm)} % of the price; {exact_usd(row.saved_nanos)} saved"

    @display(description="Time (UTC)")
    def created(self, row: UsageRecord) -> str:
        return moment(row.created_at)

    @display(description="Status", label=OUTCOMES)
    def outcome(self, row: UsageRecord) -> str:
        return row.status

    @display(description="Attempts")
    def all_attempts(self, row: UsageRecord) -> str:
        """What else was tried, with the providers that customers are not told."""
        told = (
            f"{number}. {made['model']} by {made['provider']}: {made.get('error_code') or made['outcome']},"
            f" {made['duration_ms']:,} ms"
            for number, made in enumerate(row.attempts, start=1)
        )
        return "; ".join(told) or _only_attempt(row)

    @display(description="Guardrails")
    def guarded(self, row: UsageRecord) -> str:
        """What the organization's own rules did."""
        told = (f"{made['name']}: {verdict_in_words(made['action'], made['direction'])}" for made in row.guardrails)
        return "; ".join(told) or "-"

    @display(description="In")
    def tokens_in(self, row: UsageRecord) -> str:
        return f"{row.tokens_in:,}"

    @display(description="Out")
    def tokens_out(self, row: UsageRecord) -> str:
        return f"{row.tokens_out:,}"

    @display(description="Cost")
    def cost(self, row: UsageRecord) -> str:
        return f"{exact_usd(row.cost_nanos)}{' est.' if row.estimated else ''}"

    @display(description="Beyond the hold, not billed")
    def overage(self, row: UsageRecord) -> str:
        return exact_usd(row.overage_nanos)

    @display(description="Duration")
    def took(self, row: UsageRecord) -> str:
        return f"{row.duration_ms:,} ms"

    @display(description="First byte")
    def first_byte(self, row: UsageRecord) -> str:
        return "" if row.first_byte_ms is None else f"{row.first_byte_ms:,} ms"

    @display(description="Project")
    def project(self, row: UsageRecord) -> str:
        found = Project.objects.for_organization(row.organization_id).filter(pk=row.project_id).first()
        return found.name if found else row.project_id

    @display(description="API key")
    def key(self, row: UsageRecord) -> str:
        found = ApiKey.objects.for_organization(row.organization_id).filter(pk=row.key_id).first()
        return str(found) if found else row.key_id

    @display(description="Recorded (UTC)")
    def recorded(self, row: UsageRecord) -> str:
        return moment(row.recorded_at)


def _only_attempt(row: UsageRecord) -> str:
    """What is said of a record that names at most one call of a provider."""
    if not row.provider:
        return "none: refused before any provider was asked"
    return "none: a kept answer" if row.is_cached else "1"
