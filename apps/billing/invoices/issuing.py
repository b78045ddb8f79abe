"""Issuing a document: a number without a gap, the parties as they are now, and rows that never change again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.accounts.models import Organization
from apps.billing.alerts.raising import raise_alert
from apps.billing.invoices import parties
from apps.billing.invoices.amounts import Account, Item, Tax, add_up, contained_taxes, in_usd
from apps.billing.ledger import SYSTEM
from apps.billing.models import (
    AlertKind,
    CreditNote,
    DocumentSeries,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoiceStatus,
    InvoiceTax,
)
from apps.billing.models.invoices import DESCRIPTION_LENGTH
from apps.core.errors import Conflict, InvalidInput
from apps.core.money import NANOS_PER_CENT, format_usd

LEAST_DIGITS = 6


@dataclass(frozen=True)
class Draft:
    """An invoice to be. `source_key` says what it is for: the same one is the same invoice."""

    organization_id: str
    kind: InvoiceKind
    source_key: str
    items: Sequence[Item]
    month: date | None = None
    due_on: date | None = None
    taxed_on: date | None = None
    """Whose tax rates hold; None for the day of issue."""
    note: str = ""
    is_paid: bool = False
    actor: str = SYSTEM


@transaction.atomic
def issue(draft: Draft) -> Invoice:
    """Issue an invoice, once for its source; returns the first one for a used key.

    The row of the series is locked until COMMIT: numbers are given one after the other, and a transaction that ends
    otherwise gives its number back. Raises ConfigurationError when no seller is known, InvalidInput for a total below
    zero and Conflict for a source that another organization used."""
    seller = parties.seller()
    series = lock_series(seller.invoice_prefix)
    earlier: Invoice | None = Invoice.objects.filter(source_key=draft.source_key).first()
    if earlier is not None:
        if earlier.organization_id != draft.organization_id:
            raise Conflict(f"{draft.source_key!r} was invoiced to another organization")
        return earlier
    account = add_up(draft.items)
    if not account.lines or account.total_cents < 0:
        raise InvalidInput("an invoice has lines that sum to zero or more")
    buyer = parties.buyer_as_printed(draft.organization_id)
    now = timezone.now()
    taxed_on = draft.taxed_on or now.astimezone(UTC).date()
    taxes = contained_taxes(account.total_cents, parties.taxes_for(buyer, taxed_on))
    invoice: Invoice = Invoice.objects.create(
        organization_id=draft.organization_id,
        **next_number(series),
        kind=draft.kind,
        source_key=draft.source_key,
        month=draft.month,
        seller=parties.seller_as_printed(seller),
        buyer=buyer,
        total_nanos=account.total_nanos,
        total_cents=account.total_cents,
        tax_cents=sum(tax.tax_cents for tax in taxes),
        note=draft.note,
        due_on=draft.due_on,
        issued_at=now,
        actor=draft.actor,
        status=InvoiceStatus.PAID if draft.is_paid else InvoiceStatus.ISSUED,
        paid_at=now if draft.is_paid else None,
    )
    _add_rows(invoice, account, taxes)
    announce(invoice, invoice.total_cents, "Invoice")
    return invoice


def _add_rows(invoice: Invoice, account: Account, taxes: Sequence[Tax]) -> None:
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=invoice,
            position=position,
            kind=line.kind,
            description=line.description[:DESCRIPTION_LENGTH],
            amount_nanos=line.amount_nanos,
            amount_cents=line.amount_cents,
        )
        for position, line in enumerate(account.lines, start=1)
    )
    InvoiceTax.objects.bulk_create(
        InvoiceTax(
            invoice=invoice,
            position=position,
            name=tax.rate.name,
            percent=tax.rate.percent,
            reverse_charge=tax.rate.reverse_charge,
            base_cents=tax.base_cents,
            tax_cents=tax.tax_cents,
        )
        for position, tax in enumerate(taxes, start=1)
    )


def lock_series(prefix: str) -> DocumentSeries:
    """The series below a prefix, locked until the end of the transaction; made when it is new."""
    DocumentSeries.objects.bulk_create([DocumentSeries(prefix=prefix)], ignore_conflicts=True)
    series: DocumentSeries = DocumentSeries.objects.select_for_update().get(pk=prefix)
    return series


def next_number(series: DocumentSeries) -> dict[str, object]:
    """The next number of a locked series, as the fields of a document."""
    series.last_number += 1
    series.save(update_fields=["last_number"])
    number = f"{series.prefix}{series.last_number:0{LEAST_DIGITS}d}"
    return {"series": series, "sequence": series.last_number, "number": number}


def announce(document: Invoice | CreditNote, amount_cents: int, what: str) -> None:
    """Tell the organization of a new document, by alert and webhook, in the transaction that issues it."""
    slug = Organization.objects.values_list("slug", flat=True).get(pk=document.organization_id)
    nanos = amount_cents * NANOS_PER_CENT
    address = document_address(slug, document)
    raise_alert(
        document.organization_id,
        AlertKind.INVOICE_ISSUED,
        key=f"invoice.issued:{document.id}",
        subject=f"{what} {document.number} over {in_usd(amount_cents)}",
        text=f"{what} {document.number} is ready: {address}",
        details={
            "document_id": document.id,
            "number": document.number,
            "amount_nanos": nanos,
            "amount_usd": format_usd(nanos),
            "url": address,
        },
    )


def document_address(slug: str, document: Invoice | CreditNote) -> str:
    """The page of a document, for messages."""
    folder = "credit-notes/" if isinstance(document, CreditNote) else ""
    return f"{settings.PUBLIC_URL}/o/{slug}/billing/invoices/{folder}{document.id}/"
