"""The form in which an organization says whom its invoices are made out to."""

import re

from django import forms
from django.core.validators import validate_email

from apps.billing.invoices.countries import country_problem
from apps.billing.models import BillingProfile
from apps.billing.models.invoices import is_country, is_region

MAX_EMAILS = 10


class BillingProfileForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's forms cannot be subscripted at run time
    """Legal name, address, tax id, and who gets the invoices. Counts for documents that are issued from now on."""

    country = forms.CharField(
        required=False, max_length=2, help_text="Two letters, such as DE or US. Decides which tax is contained."
    )
    region = forms.CharField(
        required=False, max_length=3, help_text="State or province where taxes differ by it, such as CA."
    )
    emails = forms.CharField(
        label="Billing e-mails",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "autocomplete": "off"}),
        help_text=f"Up to {MAX_EMAILS} addresses, each on a line. Each new invoice is sent there as PDF.",
    )

    class Meta:
        model = BillingProfile
        fields = ("legal_name", "address", "country", "region", "tax_id", "purchase_order")
        labels = {"legal_name": "Legal name", "tax_id": "Tax id", "purchase_order": "Purchase order"}
        help_texts = {
            "tax_id": "VAT or other tax number. With one, the tax may be yours to pay (reverse charge).",
            "purchase_order": "Printed on each invoice.",
        }
        widgets = {"address": forms.Textarea(attrs={"rows": 3, "autocomplete": "street-address"})}

    def clean_country(self) -> str:
        country: str = self.cleaned_data["country"].strip().upper()
        if country:
            is_country(country)
        if problem := country_problem(country):
            raise forms.ValidationError(problem)
        return country

    def clean_region(self) -> str:
        region: str = self.cleaned_data["region"].strip().upper()
        if region:
            is_region(region)
        return region

    def clean_tax_id(self) -> str:
        return " ".join(self.cleaned_data["tax_id"].split())

    def clean_emails(self) -> list[str]:
        addresses = list(dict.fromkeys(re.split(r"[\s,;]+", self.cleaned_data["emails"].strip())))
        addresses = [address for address in addresses if address]
        if len(addresses) > MAX_EMAILS:
            raise forms.ValidationError(f"At most {MAX_EMAILS} addresses.")
        for address in addresses:
            try:
                validate_email(address)
            except forms.ValidationError as error:
                raise forms.ValidationError(f"“{address}” is no e-mail address.") from error
        return addresses

    def clean(self) -> dict[str, object]:
        cleaned: dict[str, object] = super().clean() or self.cleaned_data
        if cleaned.get("region") and not cleaned.get("country"):
            self.add_error("country", "A region needs its country.")
        return cleaned
