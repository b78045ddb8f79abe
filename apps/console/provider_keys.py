"""Customers' own provider keys, to be seen and never read, and the fees for requests with them."""

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display

from apps.billing.models import ProviderKeyFee
from apps.billing.pricing.book import DEFAULT_FEE_PPM
from apps.billing.pricing.versions import START_TOLERANCE, whole_second
from apps.billing.receipts import percent_of
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin, ReadOnlyPermissions
from apps.console.figures import moment
from apps.console.site import console_site
from apps.core.changes import announce_on_commit
from apps.policies.models import ProviderCredential


@admin.register(ProviderCredential, site=console_site)
class ProviderCredentialAdmin(ReadOnlyPermissions, ConsoleAdmin):
    """Which organizations bring a key of their own, to which provider, and how it does. The keys are theirs."""

    list_display = ("label", "organization", "provider", "ending", "state", "is_exclusive", "used", "last_error")
    list_filter = (("organization", AutocompleteSelectFilter), ("provider", AutocompleteSelectFilter), "enabled")
    list_select_related = ("organization", "provider")
    search_fields = ("id", "label", "organization__name", "organization__slug")
    ordering = ("organization", "provider", "order", "id")
    actions = None
    list_fullwidth = True
    fields = (
        ("label", "id"), ("organization", "provider"), ("ending", "state"), ("order", "is_exclusive"),
        ("model_ids", "key_ids"), ("used", "last_error"), ("created_by", "changed_by"),
    )  # fmt: skip
    readonly_fields = ("id", "ending", "state", "used", "last_error", "created_by", "changed_by")

    @display(description="Key")
    def ending(self, row: ProviderCredential) -> str:
        return f"···{row.last_four}"

    @display(description="State", label={"On": "success", "Off": "default", "Failing": "danger"})
    def state(self, row: ProviderCredential) -> str:
        if not row.enabled:
            return "Off"
        return "Failing" if row.last_error else "On"

    @display(description="Last used (UTC)", ordering="last_used_at")
    def used(self, row: ProviderCredential) -> str:
        return moment(row.last_used_at) if row.last_used_at else "Never"


class ProviderKeyFeeForm(forms.ModelForm):
    """A new fee. It never starts in the past: what was rated until now keeps its fee."""

    class Meta:
        model = ProviderKeyFee
        fields = ("organization", "percent", "starts_at", "note")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "starts_at" in self.fields:
            starts_at = self.fields["starts_at"]
            starts_at.required, starts_at.initial = False, None
            starts_at.help_text = "UTC. Empty: in force from the moment you save."

    def clean_starts_at(self) -> datetime:
        now = timezone.now()
        chosen: datetime | None = self.cleaned_data["starts_at"]
        if chosen is not None and chosen < now - START_TOLERANCE:
            raise forms.ValidationError("A fee cannot start in the past.")
        return whole_second(now) if chosen is None else max(chosen, whole_second(now))

    def clean(self) -> dict[str, Any]:
        """What the database would refuse is said here."""
        cleaned = self.cleaned_data
        if not self.errors:
            same = ProviderKeyFee.objects.filter(organization=cleaned["organization"], starts_at=cleaned["starts_at"])
            if same.exists():
                self.add_error("starts_at", "A fee with this start exists: let this one start a second later.")
        return cleaned


@admin.register(ProviderKeyFee, site=console_site)
class ProviderKeyFeeAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """What requests with own provider keys cost, latest first. Without any: 5 % for everybody."""

    form = ProviderKeyFeeForm
    list_display = ("whose", "says", "starts", "note", "created_by")
    list_filter = (("organization", AutocompleteSelectFilter),)
    list_select_related = ("organization",)
    search_fields = ("id", "organization__name", "organization__slug", "note")
    autocomplete_fields = ("organization",)
    ordering = ("-starts_at", "-id")
    sortable_by = ()
    actions = None

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None:
            return [(None, {"fields": (("whose", "says"), ("starts", "created_by"), "note", "id")})]
        usual = f"Until the first one for everybody starts, the fee is {percent_of(DEFAULT_FEE_PPM)} %."
        return [(None, {"description": usual, "fields": ("organization", "percent", "starts_at", "note")})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("whose", "says", "starts", "id")

    def save_model(self, request: HttpRequest, obj: ProviderKeyFee, form: Any, change: bool) -> None:
        obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)
        announce_on_commit("catalog")

    @display(description="Organization")
    def whose(self, row: ProviderKeyFee) -> str:
        return str(row.organization or "everybody")

    @display(description="Fee")
    def says(self, row: ProviderKeyFee) -> str:
        return f"{row.percent.normalize():f} % of the usual price"

    @display(description="Starts (UTC)")
    def starts(self, row: ProviderKeyFee) -> str:
        return moment(row.starts_at)
