"""Copies of requests that went to routes on trial: what they used, and how they ended."""

from django.contrib import admin
from unfold.contrib.filters.admin import AllValuesCheckboxFilter
from unfold.decorators import display

from apps.console.access import ConsoleAdmin, ReadOnlyPermissions
from apps.console.figures import moment
from apps.console.site import console_site
from apps.usage.models import ShadowRecord

STATES = {"Completed": "success", "Failed": "danger", "Cancelled": "warning"}


@admin.register(ShadowRecord, site=console_site)
class ShadowRecordAdmin(ReadOnlyPermissions, ConsoleAdmin):
    """The newest first. Nobody is charged for one."""

    list_display = ("made", "model", "route", "state", "tokens", "duration_ms", "request_id")
    list_filter = (
        ("model", AllValuesCheckboxFilter),
        ("provider", AllValuesCheckboxFilter),
        ("status", AllValuesCheckboxFilter),
    )
    list_fullwidth = True
    search_fields = ("=request_id", "=id")
    ordering = ("-id",)
    sortable_by = ()
    actions = None
    show_full_result_count = False

    @display(description="Made (UTC)")
    def made(self, row: ShadowRecord) -> str:
        return moment(row.created_at)

    @display(description="Route")
    def route(self, row: ShadowRecord) -> str:
        return f"{row.provider}: {row.upstream_model}"

    @display(description="Ended", label=STATES)
    def state(self, row: ShadowRecord) -> tuple[str, str]:
        words = row.get_status_display()
        return words, f"{words} {row.error_code}".strip()

    @display(description="Input, cached, output")
    def tokens(self, row: ShadowRecord) -> str:
        return f"{row.input_tokens:,} / {row.cache_read_tokens:,} / {row.output_tokens:,}"
