"""Alerts of the operator and of all organizations, with what became of their e-mails and webhooks."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter, RadioFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from apps.billing.models import Alert, DeliveryState
from apps.console.access import ConsoleAdmin, ReadOnlyPermissions
from apps.console.figures import moment
from apps.console.site import console_site


class AudienceFilter(RadioFilter):
    """The operator's own, or those of customers."""

    title = "audience"
    parameter_name = "audience"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("operator", "Operator"), ("customers", "Customers")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in ("operator", "customers"):
            return queryset
        return queryset.filter(organization__isnull=self.value() == "operator")


class NewFilter(RadioFilter):
    """Whether somebody has taken note."""

    title = "noted"
    parameter_name = "noted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Not yet"), ("yes", "Noted")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(acknowledged_at__isnull=self.value() == "no") if self.value() else queryset


@admin.register(Alert, site=console_site)
class AlertAdmin(ReadOnlyPermissions, ConsoleAdmin):
    """What was raised, newest first. Operators take note of their own; customers of theirs."""

    list_display = ("heading", "whose", "created", "noted", "emails", "webhooks")
    list_filter = (
        AudienceFilter,
        NewFilter,
        ("kind", ChoicesDropdownFilter),
        ("organization", AutocompleteSelectFilter),
    )
    list_select_related = ("organization",)
    search_fields = ("subject", "id", "organization__name", "organization__slug")
    ordering = ("-id",)
    paginator = InfinitePaginator
    show_full_result_count = False
    actions = ("take_note",)
    fields = (
        ("heading", "whose"),
        "text",
        "details",
        "id",
        ("created", "noted"),
        ("emails", "webhooks"),
    )
    readonly_fields = ("heading", "whose", "created", "noted", "emails", "webhooks")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        delivered = Q(emails__state=DeliveryState.DELIVERED)
        arrived = Q(deliveries__state=DeliveryState.DELIVERED)
        return (
            super()
            .get_queryset(request)
            .annotate(
                emails_sent=Count("emails", filter=delivered, distinct=True),
                emails_all=Count("emails", distinct=True),
                webhooks_sent=Count("deliveries", filter=arrived, distinct=True),
                webhooks_all=Count("deliveries", distinct=True),
            )
        )

    @admin.action(description="Take note of the selected alerts of the operator", permissions=["view"])
    def take_note(self, request: HttpRequest, queryset: QuerySet[Alert]) -> None:
        own = Alert.objects.filter(pk__in=queryset.values("pk"), organization=None, acknowledged_at=None)
        count = own.update(acknowledged_at=timezone.now(), acknowledged_by=getattr(request.user, "email", ""))
        messages.success(request, f"{count} alert{'' if count == 1 else 's'} noted.")

    @display(header=True, description="Alert", ordering="id")
    def heading(self, row: Alert) -> tuple[str, str]:
        return row.subject, row.kind

    @display(description="For")
    def whose(self, row: Alert) -> str:
        return str(row.organization) if row.organization else "Operator"

    @display(description="Raised (UTC)", ordering="created_at")
    def created(self, row: Alert) -> str:
        return moment(row.created_at)

    @display(description="Noted (UTC)")
    def noted(self, row: Alert) -> str:
        return moment(row.acknowledged_at) or "no"

    @display(description="E-mails")
    def emails(self, row: Any) -> str:
        return f"{row.emails_sent} of {row.emails_all} sent"

    @display(description="Webhooks")
    def webhooks(self, row: Any) -> str:
        return f"{row.webhooks_sent} of {row.webhooks_all} delivered" if row.webhooks_all else "none"
