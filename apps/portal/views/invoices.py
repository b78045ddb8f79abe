"""Invoices, credit notes and monthly statements as pages, PDF and CSV; and whom invoices are made out to."""

import csv
from collections.abc import Iterator
from io import StringIO
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_cache_control

from apps.accounts.models import Organization
from apps.accounts.roles import Capability
from apps.billing.invoices import rendering
from apps.billing.invoices.months import Month
from apps.billing.invoices.parties import has_seller
from apps.billing.invoices.statements import CSV_COLUMNS, Statement, rows
from apps.billing.invoices.statements import statement as statement_of
from apps.billing.models import BillingProfile, CreditNote, Invoice
from apps.core.errors import ConfigurationError, InvalidInput, NotFound, Unavailable
from apps.portal.access import Access, organization_page
from apps.portal.invoice_forms import BillingProfileForm
from apps.portal.pages import render_page
from apps.portal.streaming import streamed
from apps.usage.export import csv_cell

SHOWN_ON_BILLING = 5
SHOWN_IN_LIST = 200
Document = Invoice | CreditNote | Statement


def documents_context(organization: Organization) -> dict[str, Any]:
    """What the section on the billing page shows: the latest documents and months."""
    months = _months(organization)
    return {
        "latest_invoices": _invoices(organization)[:SHOWN_ON_BILLING],
        "latest_months": months[:SHOWN_ON_BILLING],
        "billing_profile": BillingProfile.objects.for_organization(organization.id).first(),
        "has_seller": has_seller(),
    }


@organization_page(get=Capability.MANAGE_BILLING)
def invoices(request: HttpRequest, access: Access) -> HttpResponse:
    """All invoices and credit notes, and the months with a statement."""
    organization = access.organization
    context = {
        "invoices": _invoices(organization)[:SHOWN_IN_LIST],
        "credit_notes": list(
            CreditNote.objects.for_organization(organization.id).select_related("invoice")[:SHOWN_IN_LIST]
        ),
        "months": _months(organization),
        "has_seller": has_seller(),
        "shown": SHOWN_IN_LIST,
    }
    return render_page(request, access, "portal/billing/invoices.html", context)


@organization_page(get=Capability.MANAGE_BILLING)
def invoice(request: HttpRequest, access: Access, invoice_id: str) -> HttpResponse:
    """An invoice as a page that prints well."""
    return _page(access, _invoice(access, invoice_id), reverse("portal:invoice_pdf", args=[_slug(access), invoice_id]))


@organization_page(get=Capability.MANAGE_BILLING)
def invoice_pdf(request: HttpRequest, access: Access, invoice_id: str) -> HttpResponse:
    """An invoice as PDF."""
    page = reverse("portal:invoice", args=[_slug(access), invoice_id])
    return _pdf(request, access, _invoice(access, invoice_id), page)


@organization_page(get=Capability.MANAGE_BILLING)
def credit_note(request: HttpRequest, access: Access, credit_note_id: str) -> HttpResponse:
    """A credit note as a page that prints well."""
    address = reverse("portal:credit_note_pdf", args=[_slug(access), credit_note_id])
    return _page(access, _credit_note(access, credit_note_id), address)


@organization_page(get=Capability.MANAGE_BILLING)
def credit_note_pdf(request: HttpRequest, access: Access, credit_note_id: str) -> HttpResponse:
    """A credit note as PDF."""
    page = reverse("portal:credit_note", args=[_slug(access), credit_note_id])
    return _pdf(request, access, _credit_note(access, credit_note_id), page)


@organization_page(get=Capability.MANAGE_BILLING)
def statement(request: HttpRequest, access: Access, month: str) -> HttpResponse:
    """A month's statement, computed now."""
    shown = _statement(access, month)
    table = reverse("portal:statement_csv", args=[_slug(access), month])
    return _page(access, shown, reverse("portal:statement_pdf", args=[_slug(access), month]), {"CSV": table})


@organization_page(get=Capability.MANAGE_BILLING)
def statement_pdf(request: HttpRequest, access: Access, month: str) -> HttpResponse:
    """A month's statement as PDF."""
    page = reverse("portal:statement", args=[_slug(access), month])
    return _pdf(request, access, _statement(access, month), page)


@organization_page(get=Capability.MANAGE_BILLING)
def statement_csv(request: HttpRequest, access: Access, month: str) -> HttpResponseBase:
    """A month's statement as CSV: opening balance, every movement, closing balance."""
    shown = _statement(access, month)
    name = f"{_slug(access)}-{rendering.file_name(shown)}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-cache"}
    return streamed(request, _csv_lines(shown), content_type="text/csv; charset=utf-8", headers=headers)


@organization_page(get=Capability.MANAGE_BILLING, post=Capability.MANAGE_BILLING)
def billing_profile(request: HttpRequest, access: Access) -> HttpResponse:
    """Whom invoices are made out to; a POST changes it for what is issued from now on."""
    organization = access.organization
    row = BillingProfile.objects.for_organization(organization.id).first()
    if request.method == "POST":
        form = BillingProfileForm(request.POST, instance=row or BillingProfile(organization=organization))
        if not form.is_valid():
            return _profile_page(request, access, form, status=422)
        profile = form.save(commit=False)
        profile.emails = form.cleaned_data["emails"]
        profile.save()
        messages.success(request, "The billing profile is saved. It counts for invoices that are issued from now on.")
        return redirect("portal:invoices", slug=organization.slug)
    initial = {"emails": "\n".join(row.emails)} if row else {"legal_name": organization.name}
    return _profile_page(request, access, BillingProfileForm(instance=row, initial=initial))


def _profile_page(request: HttpRequest, access: Access, form: BillingProfileForm, *, status: int = 200) -> HttpResponse:
    return render_page(request, access, "portal/billing/billing_profile.html", {"form": form}, status=status)


def _page(access: Access, document: Document, pdf_address: str, more: dict[str, str] | None = None) -> HttpResponse:
    back = reverse("portal:invoices", args=[_slug(access)])
    links = {"All invoices and statements": back, "PDF": pdf_address, **(more or {})}
    return _private(HttpResponse(rendering.html_of(document, links)))


def _pdf(request: HttpRequest, access: Access, document: Document, page: str) -> HttpResponse:
    """The PDF, or a page that says why there is none and where the document can be read instead."""
    try:
        content = rendering.pdf_of(document)
    except (ConfigurationError, Unavailable, InvalidInput) as error:
        context = {"reason": error.message, "page": page, "name": rendering.file_name(document)}
        return render_page(request, access, "portal/billing/no_pdf.html", context, status=503)
    response = _private(HttpResponse(content, content_type="application/pdf"))
    response.headers["Content-Disposition"] = f'inline; filename="{rendering.file_name(document)}.pdf"'
    return response


def _private(response: HttpResponse) -> HttpResponse:
    patch_cache_control(response, private=True, no_cache=True)
    return response


def _csv_lines(shown: Statement) -> Iterator[str]:
    yield ",".join(CSV_COLUMNS) + "\r\n"
    for row in rows(shown):
        line = StringIO()
        # The amount is a number, and its minus sign no formula.
        csv.writer(line).writerow(row[name] if name == "amount_usd" else csv_cell(row[name]) for name in CSV_COLUMNS)
        yield line.getvalue()


def _invoices(organization: Organization) -> Any:
    return Invoice.objects.for_organization(organization.id).order_by("-id")


def _invoice(access: Access, invoice_id: str) -> Invoice:
    row: Invoice | None = Invoice.objects.for_organization(access.organization.id).filter(pk=invoice_id).first()
    if row is None:
        raise Http404
    return row


def _credit_note(access: Access, credit_note_id: str) -> CreditNote:
    notes = CreditNote.objects.for_organization(access.organization.id).select_related("invoice")
    row: CreditNote | None = notes.filter(pk=credit_note_id).first()
    if row is None:
        raise Http404
    return row


def _statement(access: Access, month: str) -> Statement:
    try:
        return statement_of(access.organization.id, Month.parse(month), now=timezone.now())
    except NotFound as error:
        raise Http404 from error


def _months(organization: Organization) -> list[Month]:
    """Since the organization exists, the running month first."""
    first, month, found = Month.of(organization.created_at), Month.of(timezone.now()), []
    while month >= first:
        found.append(month)
        month = month.previous()
    return found


def _slug(access: Access) -> str:
    return access.organization.slug
