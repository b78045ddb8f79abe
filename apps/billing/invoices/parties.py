"""Who sells, who buys, and which taxes apply: looked up when a document is issued, and frozen with it."""

from datetime import date
from typing import Any

from django.db.models import Q

from apps.accounts.models import Organization
from apps.billing.invoices.amounts import Rate
from apps.billing.models import BillingProfile, PaymentCustomer, SellerProfile, TaxRate
from apps.core.errors import ConfigurationError

NO_SELLER = "no invoice can be issued before the operator has filled in who sells: console, Money, Seller"
Party = dict[str, Any]


def seller() -> SellerProfile:
    """The operator's own details. Raises ConfigurationError before they are filled in."""
    row: SellerProfile | None = SellerProfile.objects.first()
    if row is None:
        raise ConfigurationError(NO_SELLER)
    return row


def has_seller() -> bool:
    """Whether invoices can be issued at all."""
    return SellerProfile.objects.exists()


def seller_as_printed(row: SellerProfile) -> Party:
    """What a document says about who sells."""
    return {
        "name": row.name,
        "address": row.address,
        "country": row.country,
        "tax_number": row.tax_number,
        "email": row.email,
        "footer": row.footer,
    }


def buyer_as_printed(organization_id: str) -> Party:
    """What a document says about who buys: the billing profile, else what was said while paying, else the name."""
    profile = BillingProfile.objects.for_organization(organization_id).first()
    if profile is not None:
        return {
            "name": profile.legal_name,
            "address": profile.address,
            "country": profile.country,
            "region": profile.region,
            "tax_id": profile.tax_id,
            "purchase_order": profile.purchase_order,
        }
    payer = PaymentCustomer.objects.for_organization(organization_id).order_by("-created_at").first()
    name = Organization.objects.values_list("name", flat=True).get(pk=organization_id)
    return {
        "name": (payer.billing_name if payer else "") or name,
        "address": "",
        "country": payer.country.upper() if payer else "",
        "region": "",
        "tax_id": payer.tax_id if payer else "",
        "purchase_order": "",
    }


def billing_emails(organization_id: str) -> list[str]:
    """The addresses that get each document; empty when the organization named none."""
    profile = BillingProfile.objects.for_organization(organization_id).first()
    return list(profile.emails) if profile else []


def taxes_for(buyer: Party, day: date) -> list[Rate]:
    """The rates in force for a buyer on a UTC day, by name: of the region and the country, else those of nowhere.

    A reverse-charge rate is 0 % for a buyer with a tax id, who owes the tax instead."""
    place = Q(country=buyer["country"], region__in=["", buyer["region"]])
    rates = _in_force(place, day) if buyer["country"] else []
    return [_for_buyer(rate, buyer) for rate in rates or _in_force(Q(country=""), day)]


def _in_force(place: Q, day: date) -> list[TaxRate]:
    begun = TaxRate.objects.filter(place, valid_from__lte=day).order_by("region", "name", "-valid_from")
    latest = begun.distinct("region", "name")
    return [rate for rate in latest if rate.percent]


def _for_buyer(rate: TaxRate, buyer: Party) -> Rate:
    if rate.reverse_charge and buyer["tax_id"]:
        return Rate(rate.name, rate.percent * 0, reverse_charge=True)
    return Rate(rate.name, rate.percent)
