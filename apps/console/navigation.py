"""The console's sidebar and its static files; apps.console.unfold names these functions."""

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse


def groups(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar: what an operator looks for, by subject."""
    return [
        {"items": [_item("Overview", "monitoring", "index")]},
        {
            "title": "Customers",
            "separator": True,
            "items": [
                _item("Organizations", "domain", "accounts_organization_changelist"),
                _item("Projects", "folder_open", "accounts_project_changelist"),
                _item("Plans", "tune", "accounts_plan_changelist"),
                _item("API keys", "key", "keys_apikey_changelist"),
                _item("Provider keys", "vpn_key", "policies_providercredential_changelist"),
                _item("Guardrails", "shield", "policies_guardrailrule_changelist"),
                _item("Users", "group", "accounts_user_changelist"),
            ],
        },
        {
            "title": "Catalog",
            "separator": True,
            "items": [
                _item("Providers", "dns", "catalog_provider_changelist"),
                _item("Models", "neurology", "catalog_model_changelist"),
                _item("Prices", "sell", "catalog_priceversion_changelist"),
                _item("Price books", "loyalty", "billing_pricerule_changelist"),
                _item("Fees for own provider keys", "key_vertical", "billing_providerkeyfee_changelist"),
            ],
        },
        {
            "title": "Usage",
            "separator": True,
            "items": [
                _item("Requests", "receipt_long", "usage_usagerecord_changelist"),
                _item("To review", "fact_check", "usage_usagereview_changelist"),
                _item("Copies", "content_copy", "usage_shadowrecord_changelist"),
            ],
        },
        {
            "title": "Money",
            "separator": True,
            "items": [
                _item("Credit", "account_balance_wallet", "billing_grant_changelist"),
                _item("Payments", "payments", "billing_payment_changelist"),
                _item("Incoming events", "inbox", "billing_webhookinbox_changelist"),
                _item("Ledger", "menu_book", "billing_ledgertransaction_changelist"),
                _item("Re-ratings", "published_with_changes", "billing_rerating_changelist"),
                _item("Alerts", "notifications", "billing_alert_changelist"),
                _item("Invoices", "request_quote", "billing_invoice_changelist"),
                _item("Credit notes", "undo", "billing_creditnote_changelist"),
                _item("Tax rates", "percent", "billing_taxrate_changelist"),
                _item("Seller", "storefront", "billing_sellerprofile_changelist"),
                _item("Reconciliation", "rule", "billing_reconciliationrun_changelist"),
                _item("Vendor costs", "request_quote", "billing_vendorreport_changelist"),
            ],
        },
    ]


def icon(request: HttpRequest) -> str:
    """The product's mark, beside the console's name."""
    return static("img/mark.svg")


def style_sheet(request: HttpRequest) -> str:
    """The few rules that the theme lacks."""
    return static("console/console.css")


def _item(title: str, symbol: str, page: str) -> dict[str, Any]:
    return {"title": title, "icon": symbol, "link": reverse(f"console:{page}")}
