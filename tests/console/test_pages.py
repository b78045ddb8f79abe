"""Every page of the console, found in its registry: operators see it, nobody else does."""

from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.db.models import Model as DatabaseModel
from django.test import Client, RequestFactory
from django.urls import reverse

from apps.accounts.models import User
from apps.console.urls import console_site  # with its pages: the site alone has none
from tests.console.cast import Rows

KINDS = sorted(console_site._registry, key=lambda kind: kind._meta.label)
PAGES = ("changelist", "add", "change", "history")


def page_address(kind: type[DatabaseModel], page: str, rows: Rows) -> str:
    name = f"console:{kind._meta.app_label}_{kind._meta.model_name}_{page}"
    return reverse(name, args=[quote(rows.of(kind).pk)] if page in ("change", "history") else [])


def may_add(kind: type[DatabaseModel], user: User) -> bool:
    request = RequestFactory().get("/")
    request.user = user
    return bool(console_site._registry[kind].has_add_permission(request))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind._meta.model_name)
def test_an_operator_sees_every_page(
    console: Client, operator: User, rows: Rows, kind: type[DatabaseModel], page: str
) -> None:
    response = console.get(page_address(kind, page, rows))
    assert response.status_code == (403 if page == "add" and not may_add(kind, operator) else 200)
    if response.status_code == 200:
        assert "CRUN console" in response.content.decode()


def is_sent_to_the_login(response: Any) -> bool:
    return response.status_code == 302 and response.headers["Location"].startswith(reverse("console:login"))


def test_customers_and_strangers_see_none_of_them(rows: Rows) -> None:
    customer, stranger = Client(), Client()
    customer.force_login(rows.customer)
    for client in (customer, stranger):
        for kind in KINDS:
            for page in PAGES:
                address = page_address(kind, page, rows)
                assert is_sent_to_the_login(client.get(address)), address


def test_the_registry_holds_what_operators_need_and_nothing_else() -> None:
    assert [kind._meta.label for kind in KINDS] == [
        "accounts.Organization",
        "accounts.Plan",
        "accounts.Project",
        "accounts.User",
        "billing.Alert",
        "billing.CreditNote",
        "billing.Grant",
        "billing.Invoice",
        "billing.LedgerTransaction",
        "billing.Payment",
        "billing.PriceRule",
        "billing.ProviderKeyFee",
        "billing.ReconciliationRun",
        "billing.Rerating",
        "billing.SellerProfile",
        "billing.TaxRate",
        "billing.VendorReport",
        "billing.WebhookInbox",
        "catalog.Model",
        "catalog.PriceVersion",
        "catalog.Provider",
        "keys.ApiKey",
        "policies.GuardrailRule",
        "policies.ProviderCredential",
        "usage.ShadowRecord",
        "usage.UsageRecord",
        "usage.UsageReview",
    ]


def acts(rows: Rows) -> list[str]:
    """Addresses beside the usual pages."""
    return [
        reverse("console:index"),
        reverse("console:search") + "?s=acme&extended=1",
        reverse("console:accounts_organization_add_project", args=[quote(rows.organization.pk)]),
        reverse("console:accounts_organization_add_key", args=[quote(rows.organization.pk)]),
        reverse("console:auth_user_password_change", args=[rows.customer.pk]),
        reverse("console:billing_payment_refund", args=[quote(rows.payment.pk)]),
        reverse("console:billing_webhookinbox_replay", args=[rows.event.pk]),
        reverse("console:keys_apikey_revoke", args=[quote(rows.key.pk)]),
        reverse("console:keys_apikey_resume", args=[quote(rows.key.pk)]),
        reverse("console:billing_reconciliationrun_now"),
        reverse("console:catalog_provider_test", args=[quote(rows.provider.pk)]),
        reverse("console:catalog_model_new_price", args=[quote(rows.model.pk)]),
        reverse("console:catalog_priceversion_preview"),
        reverse("console:catalog_priceversion_new_version", args=[rows.price.pk]),
        *(
            reverse(f"console:billing_invoice_{act}", args=[quote(rows.invoice.pk)])
            for act in ("open_page", "open_pdf", "credit", "paid_by_hand", "resend")
        ),
        reverse("console:billing_creditnote_open_pdf", args=[quote(rows.credit_note.pk)]),
    ]


@pytest.mark.parametrize("method", ["get", "post"])
def test_customers_and_strangers_can_do_nothing(rows: Rows, method: str) -> None:
    customer, stranger = Client(), Client()
    customer.force_login(rows.customer)
    for client in (customer, stranger):
        for act in acts(rows):
            response: Any = getattr(client, method)(act, {"confirmed": "yes"})
            assert is_sent_to_the_login(response) or (method == "get" and response.status_code == 405), act
    rows.key.refresh_from_db()
    assert rows.key.revoked_at is None


def test_a_deactivated_operator_is_out(console: Client, operator: User) -> None:
    operator.is_active = False
    operator.save()
    assert console.get(reverse("console:index")).status_code == 302


def test_search_finds_customers_and_models(console: Client, rows: Rows) -> None:
    found = console.get(reverse("console:search"), {"s": "acme", "extended": "1"}).content.decode()
    assert "Acme" in found
    assert "acme/small-1" in found


def test_pages_may_load_nothing_from_elsewhere(console: Client) -> None:
    for page in (console.get(reverse("console:index")), Client().get(reverse("console:login"))):
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "connect-src 'self'" in page.headers["Content-Security-Policy"]


def test_nothing_can_be_deleted_in_bulk(console: Client, rows: Rows) -> None:
    for kind in KINDS:
        row = rows.of(kind)
        choice = {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"}
        console.post(page_address(kind, "changelist", rows), choice)
        assert kind._default_manager.filter(pk=row.pk).exists(), kind
