"""Makers of sellers, customers on credit, months of usage and payments, for the tests of documents."""

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from django.db import connection
from django.utils import timezone

from apps.accounts.models import Organization
from apps.billing.grants import Credit, grant_credit
from apps.billing.invoices.amounts import Item
from apps.billing.invoices.issuing import Draft
from apps.billing.invoices.months import Month
from apps.billing.ledger import billing_account
from apps.billing.models import (
    BillingProfile,
    GrantSource,
    InvoiceKind,
    LedgerTransaction,
    Payment,
    PaymentKind,
    PaymentStatus,
    SellerProfile,
    TaxRate,
)
from apps.billing.posting import post_batch
from apps.core.ids import new_id
from apps.core.money import NANOS_PER_USD
from apps.usage.contracts import RequestClosed
from apps.usage.partitions import ensure_partitions
from apps.usage.recording import record
from tests import factories
from tests.billing import books

_serial = count(1)


def seller(**changes: Any) -> SellerProfile:
    """The operator's own details."""
    values = {"name": "Crunch GmbH", "address": "Hauptstr. 1\n10115 Berlin", "country": "DE", "tax_number": "DE123"}
    return SellerProfile.objects.create(**{**values, **changes})


def profile(owner: Organization, **changes: Any) -> BillingProfile:
    """Whom the organization's invoices are made out to."""
    values = {"legal_name": "Acme Inc.", "address": "1 Road", "country": "DE", "emails": ["bills@acme.example"]}
    return BillingProfile.objects.create(organization=owner, **{**values, **changes})


def rate(country: str, percent: str, *, valid_from: str = "2020-01-01", **changes: Any) -> TaxRate:
    """A tax in force since a day."""
    values = {"country": country, "name": "VAT", "percent": Decimal(percent), "valid_from": valid_from}
    return TaxRate.objects.create(**{**values, **changes})


def on_credit(name: str = "Acme", limit_usd: int = 1000) -> Organization:
    """An organization that pays later."""
    owner = books.organization(name)
    terms = billing_account(owner.id)
    terms.credit_limit_nanos = limit_usd * NANOS_PER_USD
    terms.save()
    return owner


def draft(owner: Organization, *amounts_nanos: int, key: str = "", **changes: Any) -> Draft:
    """An invoice to be, with one line for each amount."""
    items = [Item(f"Line {place}", amount) for place, amount in enumerate(amounts_nanos or (NANOS_PER_USD,), start=1)]
    values = {"kind": InvoiceKind.MANUAL, "source_key": key or f"test:{next(_serial)}", "items": items}
    return Draft(owner.id, **{**values, **changes})


def paid(owner: Organization, amount_usd: int = 10) -> Payment:
    """A payment that is there, with its credit."""
    payment_id = new_id("pay")
    credit = Credit(amount_usd * NANOS_PER_USD, GrantSource.PURCHASED)
    grant = grant_credit(owner.id, credit, idempotency_key=f"payment:{payment_id}", reason="Bank transfer")
    return Payment.objects.create(
        id=payment_id,
        organization=owner,
        kind=PaymentKind.BANK_TRANSFER,
        status=PaymentStatus.PAID,
        amount_nanos=credit.amount_nanos,
        provider="manual",
        grant=grant,
        actor="test",
        paid_at=grant.created_at,
    )


def id_of(moment: datetime) -> str:
    """A request id that was made at a moment."""
    return f"req_{int(moment.timestamp() * 1000):012x}{next(_serial):020x}"


def use(owner: Organization, moment: datetime, cost_nanos: int, *, post: bool = True, **changes: Any) -> RequestClosed:
    """Posted usage of a moment, at a cost."""
    ensure_partitions([moment.date()])
    opened = factories.opened(organization_id=owner.id, request_id=id_of(moment), **changes)
    entry = factories.closed(opened, cost_nanos=cost_nanos)
    record([entry])
    if post:
        while post_batch():
            pass
    return entry


def backdate(written: LedgerTransaction, moment: datetime) -> None:
    """Let a transaction have been written at a moment: history that no code path could make."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE billing_ledgertransaction SET created_at = %s WHERE id = %s", [moment, written.pk])
        cursor.execute("SET session_replication_role = origin")


def this_month() -> Month:
    """The running month."""
    return Month.of(timezone.now())


def after(month: Month) -> datetime:
    """A moment at which a month is closed."""
    return month.end + timedelta(days=1)
