"""Billing: the balance, the credit it is made of in its order of use, and the latest movements."""

from typing import Any

from django.http import HttpRequest, HttpResponse

from apps.accounts.roles import Capability
from apps.billing.grants import in_order_of_use
from apps.billing.ledger import balance_nanos, credit_limit_nanos, movements
from apps.billing.models import Grant, GrantSource, TransactionKind
from apps.portal.access import Access, organization_page
from apps.portal.pages import render_page
from apps.portal.payments import payments_context
from apps.portal.views.invoices import documents_context

MOVEMENTS_SHOWN = 50
KIND_WORDS = {
    TransactionKind.GRANT: "Credit",
    TransactionKind.USAGE: "Usage",
    TransactionKind.CHARGE: "Charge",
    TransactionKind.REFUND: "Refund",
    TransactionKind.ADJUSTMENT: "Adjustment",
    TransactionKind.EXPIRY: "Expired credit",
    TransactionKind.WRITE_OFF: "Debt given up",
    TransactionKind.PAYMENT_REFUND: "Payment refunded",
    TransactionKind.DISPUTE: "Disputed payment",
}
SOURCE_WORDS = {
    GrantSource.PROMOTIONAL: "Promotional",
    GrantSource.GOODWILL: "Goodwill",
    GrantSource.MANUAL: "Manual",
    GrantSource.PURCHASED: "Purchased",
}


@organization_page(get=Capability.MANAGE_BILLING)
def billing(request: HttpRequest, access: Access) -> HttpResponse:
    """What the organization has to spend, and how it came to be. `before` in the address pages the movements."""
    return billing_page(request, access)


def billing_page(
    request: HttpRequest, access: Access, *, extra: dict[str, Any] | None = None, status: int = 200
) -> HttpResponse:
    """The page; `extra` has a form that needs another look, for who answers with it."""
    organization_id = access.organization.id
    grants = in_order_of_use(Grant.objects.for_organization(organization_id)).select_related("transaction")
    rows = movements(organization_id, limit=MOVEMENTS_SHOWN + 1, before=request.GET.get("before") or None)
    shown = rows[:MOVEMENTS_SHOWN]
    context: dict[str, Any] = {
        "balance_nanos": balance_nanos(organization_id),
        "credit_limit_nanos": credit_limit_nanos(organization_id),
        "open_grants": [(grant, SOURCE_WORDS[GrantSource(grant.source)]) for grant in grants if grant.remaining_nanos],
        "movements": [(row, KIND_WORDS[TransactionKind(row.kind)]) for row in shown],
        "older": shown[-1].transaction_id if len(rows) > MOVEMENTS_SHOWN else "",
        "is_first_page": "before" not in request.GET,
    }
    context |= documents_context(access.organization)
    context |= payments_context(access.organization) | (extra or {})
    return render_page(request, access, "portal/billing.html", context, status=status)
