"""Plans: limits that several organizations share."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.decorators import display

from apps.accounts.models import Plan
from apps.console.figures import moment
from apps.console.limits import LIMITS_FIELDSET, PRIORITY_FIELDSET, LimitsAdmin, in_words
from apps.console.organizations import link
from apps.console.site import console_site
from apps.core.brake_fields import BRAKE_FIELDS

BRAKE_FIELDSET = ("Brake of each key", {"fields": (BRAKE_FIELDS,)})


@admin.register(Plan, site=console_site)
class PlanAdmin(LimitsAdmin):
    """Limits for many organizations at once."""

    list_display = ("heading", "limits_in_words", "organization_count", "created")
    search_fields = ("name", "id")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).annotate(organizations_number=Count("organizations"))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return [(None, {"fields": (("name", "id"),)}), LIMITS_FIELDSET, BRAKE_FIELDSET, PRIORITY_FIELDSET]
        basics = {"fields": (("name", "id"), ("organization_count", "created"))}
        return [(None, basics), LIMITS_FIELDSET, BRAKE_FIELDSET, PRIORITY_FIELDSET]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("id", "organization_count", "created") if obj else ()

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return {} if obj else {"id": ("name",)}

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A plan that no organization is on is named nowhere."""
        return self.has_change_permission(request, obj) and obj is not None and not obj.organizations.exists()

    @display(header=True, description="Plan", ordering="name")
    def heading(self, row: Plan) -> tuple[str, str]:
        return row.name, row.id

    @display(description="Limits")
    def limits_in_words(self, row: Plan) -> str:
        return in_words(row.limits)

    @display(description="Organizations", ordering="organizations_number")
    def organization_count(self, row: Any) -> SafeString:
        query = urlencode({"plan__id__exact": row.pk})
        address = f"{reverse('console:accounts_organization_changelist')}?{query}"
        return link(address, str(row.organizations_number))

    @display(description="Created (UTC)", ordering="created_at")
    def created(self, row: Plan) -> str:
        return moment(row.created_at)
