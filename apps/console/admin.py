"""Names the modules that register pages with the console; Django imports this one at start-up."""

from apps.console import (
    alerts,
    invoices,
    keys,
    money,
    offer,
    organizations,
    payments,
    plans,
    prices,
    pricing,
    providers,
    reconciliation,
    reviews,
    tax_rates,
    usage,
    users,
)

__all__ = [
    "alerts",
    "invoices",
    "keys",
    "money",
    "offer",
    "organizations",
    "payments",
    "plans",
    "prices",
    "pricing",
    "providers",
    "reconciliation",
    "reviews",
    "tax_rates",
    "usage",
    "users",
]
