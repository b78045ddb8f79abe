"""Documents as HTML for a browser and as PDF, from the same templates and the same style sheet."""

from pathlib import Path
from typing import Any

from django.contrib.staticfiles import finders
from django.template.loader import render_to_string

from apps.billing.invoices.credit_notes import credited_so_far
from apps.billing.invoices.parties import buyer_as_printed, has_seller, seller, seller_as_printed
from apps.billing.invoices.printing import pdf
from apps.billing.invoices.statements import Statement
from apps.billing.models import CreditNote, Invoice, InvoiceKind, InvoiceStatus
from apps.core.errors import ConfigurationError

STYLE_SHEET = "css/invoice.css"
TITLES = {
    InvoiceKind.PAYMENT: "Invoice and receipt",
    InvoiceKind.USAGE: "Invoice",
    InvoiceKind.MANUAL: "Invoice",
}


def html_of(document: Invoice | CreditNote | Statement, links: dict[str, str] | None = None) -> str:
    """The whole page for a browser. `links` (words -> address) stand above the document and are not printed."""
    template, context = _described(document)
    return render_to_string(template, {**context, "links": links or {}, "is_page": True})


def pdf_of(document: Invoice | CreditNote | Statement) -> bytes:
    """The document as PDF. Slow: never on an event loop. Raises as apps.billing.invoices.printing.pdf does."""
    template, context = _described(document)
    return pdf(render_to_string(template, context), _style_sheet())


def file_name(document: Invoice | CreditNote | Statement) -> str:
    """What a download is called, without its ending."""
    if isinstance(document, Statement):
        return f"statement-{document.month}"
    return document.number


def _described(document: Invoice | CreditNote | Statement) -> tuple[str, dict[str, Any]]:
    if isinstance(document, Invoice):
        return "invoices/invoice.html", _invoice(document)
    if isinstance(document, CreditNote):
        return "invoices/credit_note.html", _credit_note(document)
    return "invoices/statement.html", _statement(document)


def _invoice(invoice: Invoice) -> dict[str, Any]:
    credited, _ = credited_so_far(invoice)
    return {
        "title": TITLES[InvoiceKind(invoice.kind)],
        "invoice": invoice,
        "seller": invoice.seller,
        "buyer": invoice.buyer,
        "lines": list(invoice.lines.all()),
        "taxes": list(invoice.taxes.all()),
        "credit_notes": list(invoice.credit_notes.order_by("id")),
        "rest_cents": invoice.total_cents - credited,
        "is_open": invoice.status == InvoiceStatus.ISSUED,
    }


def _credit_note(note: CreditNote) -> dict[str, Any]:
    invoice = note.invoice
    return {
        "title": "Credit note",
        "note": note,
        "invoice": invoice,
        "seller": invoice.seller,
        "buyer": invoice.buyer,
        "taxes": list(invoice.taxes.all()),
        "goes_to_balance": note.transaction_id is not None,
    }


def _statement(statement: Statement) -> dict[str, Any]:
    return {
        "title": "Statement",
        "statement": statement,
        "seller": seller_as_printed(seller()) if has_seller() else {},
        "buyer": buyer_as_printed(statement.organization_id),
    }


def _style_sheet() -> str:
    found = finders.find(STYLE_SHEET)
    if not isinstance(found, str):
        raise ConfigurationError(f"static/{STYLE_SHEET} is missing from this installation")
    return Path(found).read_text(encoding="utf-8")
