"""Tax rates in the console: entered once, never edited."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import NON_FIELD_ERRORS
from django.http import HttpRequest
from unfold.decorators import display

from apps.billing.invoices.countries import country_problem
from apps.billing.models import TaxRate
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin
from apps.console.site import console_site


class TaxRateForm(forms.ModelForm):
    """A new rate."""

    class Meta:
        model = TaxRate
        fields = ("country", "region", "name", "percent", "valid_from", "reverse_charge")
        help_texts: ClassVar = {
            "valid_from": "The first UTC day. Look twice: a rate is never edited, only replaced from a later day on."
        }
        error_messages: ClassVar = {
            NON_FIELD_ERRORS: {
                "unique_together": "This tax has a rate from that day on, and rates are never edited: let the right"
                " one begin a day later. What was invoiced meanwhile is put right with credit notes."
            }
        }

    def clean_country(self) -> str:
        country: str = self.cleaned_data["country"]
        if problem := country_problem(country):
            raise forms.ValidationError(problem)
        return country


@admin.register(TaxRate, site=console_site)
class TaxRateAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """Tax rates. A rate is never edited: a new row with a later first day replaces it, 0 percent ends it."""

    list_display = ("place", "name", "percent", "valid_from", "reverse_charge", "created_by")
    form = TaxRateForm
    search_fields = ("country", "region", "name")
    ordering = ("country", "region", "name", "-valid_from")
    actions = None
    fields = (("country", "region"), ("name", "percent"), ("valid_from", "reverse_charge"))

    def save_model(self, request: HttpRequest, obj: TaxRate, form: Any, change: bool) -> None:
        obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)

    @display(description="Where", ordering="country")
    def place(self, row: TaxRate) -> str:
        return "-".join(part for part in (row.country, row.region) if part) or "elsewhere"
