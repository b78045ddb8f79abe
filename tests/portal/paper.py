"""Documents of the cast's organization, and a quick stand-in for the layout of PDFs."""

from datetime import date
from pathlib import Path

from django.utils import timezone

from apps.accounts.models import Organization
from apps.billing.invoices.amounts import Item
from apps.billing.invoices.credit_notes import CreditNoteDraft, issue_credit_note
from apps.billing.invoices.issuing import Draft, issue
from apps.billing.models import CreditNote, Invoice, InvoiceKind, SellerProfile

QUICK_PDF = "import sys; sys.stdin.read(); sys.stdout.write('%PDF-quick')"
NO_LIBRARY = "import sys; sys.exit(3)"


def seller() -> SellerProfile:
    """Who sells, made when missing."""
    fields = {"name": "Crunch GmbH", "address": "Hauptstr. 1\n10115 Berlin", "country": "DE", "tax_number": "DE123"}
    return SellerProfile.objects.get_or_create(defaults=fields)[0]


def invoice_of(organization: Organization, source: str = "paper", month: date | None = None) -> Invoice:
    """An invoice over $12.34567 of the organization; the same one for the same source."""
    seller()
    items = [Item("swift-1: 1,234 requests", 12_345_670_000)]
    draft = Draft(organization.id, InvoiceKind.MANUAL, source, items, month=month, due_on=timezone.now().date())
    return issue(draft)


def credit_note_of(invoice: Invoice) -> CreditNote:
    """A credit note over a dollar; the same one each time."""
    return issue_credit_note(CreditNoteDraft(invoice.id, 100, f"note:{invoice.id}", "Outage on the 3rd"))


def document_ids(organization: Organization) -> dict[str, str]:
    """What the addresses of documents need."""
    invoice = invoice_of(organization)
    month = f"{timezone.now():%Y-%m}"
    return {"invoice_id": invoice.id, "credit_note_id": credit_note_of(invoice).id, "month": month}


def stand_in(folder: Path, script: str) -> Path:
    """A process that answers at once, for apps.billing.invoices.printing.PROCESS."""
    path = folder / "stand_in.py"
    path.write_text(script)
    return path
