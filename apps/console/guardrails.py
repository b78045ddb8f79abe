"""Guardrails of all organizations: what they have, and switching one off that does harm. Their owners write them."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.decorators import display

from apps.console.access import ConsoleAdmin
from apps.console.figures import moment
from apps.console.organizations import link
from apps.console.site import console_site
from apps.policies.changing import announce_policy
from apps.policies.guardrails import in_words
from apps.policies.models import GuardrailRule


@admin.register(GuardrailRule, site=console_site)
class GuardrailAdmin(ConsoleAdmin):
    """Rules can be switched and deleted here, not written: they are the organization's own."""

    list_display = ("heading", "whose", "looks_for", "direction", "action", "state", "changed")
    list_filter = ("kind", "mode")
    search_fields = ("=id", "name", "=organization__slug", "=organization__id")
    list_select_related = ("organization", "key")
    ordering = ("-created_at",)
    actions = None
    fields = (("name", "whose"), ("kind", "looks_for"), ("direction", "action"), ("mode", "holds_for"), "changed")
    readonly_fields = ("name", "whose", "kind", "looks_for", "direction", "action", "holds_for", "changed")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing names a rule but verdicts, which keep its name."""
        return self.has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        announce_policy(obj.organization_id)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        super().delete_model(request, obj)
        announce_policy(obj.organization_id)

    @display(header=True, description="Guardrail", ordering="name")
    def heading(self, row: GuardrailRule) -> tuple[str, str]:
        return row.name, row.get_kind_display()

    @display(description="Organization", ordering="organization__name")
    def whose(self, row: GuardrailRule) -> SafeString:
        return link(reverse("console:accounts_organization_change", args=[row.organization_id]), row.organization.name)

    @display(description="Holds for")
    def holds_for(self, row: GuardrailRule) -> str:
        return row.key.name if row.key else "all keys"

    @display(description="Looks for")
    def looks_for(self, row: GuardrailRule) -> str:
        return in_words(row)

    @display(description="State", label={"on": "success", "log": "warning", "off": "danger"}, ordering="mode")
    def state(self, row: GuardrailRule) -> str:
        return row.mode

    @display(description="Changed (UTC)", ordering="changed_at")
    def changed(self, row: GuardrailRule) -> str:
        return moment(row.changed_at)
