"""Invoices in the console: reading, writing one by hand, credit notes, and who sells."""

from decimal import Decimal
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.billing.invoices import rendering
from apps.billing.invoices.amounts import Item, in_usd
from apps.billing.invoices.credit_notes import CreditNoteDraft, credited_so_far, issue_credit_note
from apps.billing.invoices.issuing import Draft, issue
from apps.billing.invoices.mailing import send_again
from apps.billing.invoices.parties import has_seller
from apps.billing.invoices.payments import mark_paid
from apps.billing.models import CreditNote, Invoice, InvoiceKind, InvoiceStatus, SellerProfile
from apps.billing.models.ledger import REASON_LENGTH
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin, ReadOnlyPermissions
from apps.console.figures import exact_usd, moment
from apps.console.site import console_site
from apps.core.errors import DomainError
from apps.core.ids import new_id
from apps.core.money import NANOS_PER_CENT, NANOS_PER_USD

MAX_INVOICE_USD = 1_000_000_000
"""Nine times as much is what a column of nano-USD holds."""
STATES = {"Issued": "warning", "Paid": "success", "Void": "danger"}
HIDDEN_KEY: dict[str, Any] = {"max_length": 60, "widget": forms.HiddenInput, "required": False}


class ManualInvoiceForm(forms.ModelForm):
    """An invoice for something beside the wallet. The hidden key makes a form that is sent twice one invoice."""

    lines = forms.CharField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4, "placeholder": "Setup | 500.00"}),
        help_text="Each on a line: what for, a vertical bar, the amount in USD with its tax, in whole cents.",
    )
    idempotency_key = forms.CharField(initial=partial(new_id, "form"), **HIDDEN_KEY)

    class Meta:
        model = Invoice
        fields = ("organization", "due_on", "note")

    def clean_lines(self) -> list[Item]:
        items = []
        for line in self.cleaned_data["lines"].splitlines():
            description, _, amount = line.rpartition("|")
            if line.strip():
                items.append(Item(description.strip(), self._nanos(line, description.strip(), amount.strip())))
        if sum(item.amount_nanos for item in items) <= 0:
            raise forms.ValidationError("The lines must sum to more than zero.")
        if sum(abs(item.amount_nanos) for item in items) > MAX_INVOICE_USD * NANOS_PER_USD:
            raise forms.ValidationError(f"The lines are more than {MAX_INVOICE_USD:,} USD together.")
        return items

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not has_seller():
            self.add_error(None, "Fill in who sells first: Money, Seller.")
        return cleaned

    @staticmethod
    def _nanos(line: str, description: str, amount: str) -> int:
        try:
            cents = Decimal(amount) * 100
        except ArithmeticError:
            cents = Decimal("NaN")
        if (
            not description
            or not cents.is_finite()
            or cents != cents.to_integral_value()
            or abs(cents) > MAX_INVOICE_USD * 100
        ):
            raise forms.ValidationError(f"“{line}” is not like: Setup | 500.00")
        return int(cents) * NANOS_PER_CENT


class CreditNoteForm(forms.Form):
    """How much of an invoice is taken back, and why."""

    amount_usd = forms.DecimalField(
        label="Amount in USD",
        min_value=Decimal("0.01"),
        max_value=MAX_INVOICE_USD,
        decimal_places=2,
        widget=UnfoldAdminDecimalFieldWidget,
    )
    reason = forms.CharField(
        max_length=REASON_LENGTH - 100, widget=UnfoldAdminTextInputWidget, help_text="The customer sees it."
    )
    idempotency_key = forms.CharField(initial=partial(new_id, "form"), **HIDDEN_KEY)


@admin.register(Invoice, site=console_site)
class InvoiceAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """Invoices of all organizations. An issued one never changes: credit notes take it back."""

    form = ManualInvoiceForm
    list_display = ("heading", "organization", "kind_name", "state", "total", "issued", "due_on", "sent")
    list_filter = (
        ("organization", AutocompleteSelectFilter),
        ("kind", ChoicesDropdownFilter),
        ("status", ChoicesDropdownFilter),
    )
    list_select_related = ("organization",)
    search_fields = ("number", "=id", "organization__name", "organization__slug")
    autocomplete_fields = ("organization",)
    ordering = ("-id",)
    actions = None
    actions_detail = ("open_page", "open_pdf", "credit", "paid_by_hand", "resend")

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("organization", "lines", "note", "due_on", "idempotency_key")})]
        return [
            (
                None,
                {"fields": (("number", "organization"), ("kind_name", "state"), ("total", "tax"), "lines_in_words")},
            ),
            ("Credit notes", {"fields": ("credited",)}),
            ("History", {"fields": (("issued", "due_on"), ("paid", "sent"), ("actor", "note"), ("source_key", "id"))}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("kind_name", "state", "total", "tax", "lines_in_words", "credited", "issued", "paid", "sent", "id")
        return shown if obj else ()

    def save_model(self, request: HttpRequest, obj: Invoice, form: Any, change: bool) -> None:
        chosen = form.cleaned_data
        draft = Draft(
            chosen["organization"].pk,
            InvoiceKind.MANUAL,
            source_key=f"manual:{chosen.get('idempotency_key') or new_id('form')}",
            items=chosen["lines"],
            note=chosen["note"],
            due_on=chosen["due_on"],
            actor=request.user.get_username(),
        )
        obj.pk = issue(draft).pk
        obj.refresh_from_db()

    def response_add(self, request: HttpRequest, obj: Invoice, post_url_continue: Any = None) -> HttpResponse:
        self.message_user(request, f"{obj.number} over {in_usd(obj.total_cents)} is issued.", messages.SUCCESS)
        return redirect(reverse("console:billing_invoice_change", args=[obj.pk]))

    @action(description="Page", icon="visibility")
    def open_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The invoice as the customer sees it."""
        invoice = self._invoice(object_id)
        links = {"Back to the console": reverse("console:billing_invoice_change", args=[invoice.pk])}
        return HttpResponse(rendering.html_of(invoice, links))

    @action(description="PDF", icon="picture_as_pdf")
    def open_pdf(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The invoice as PDF, or why there is none."""
        invoice = self._invoice(object_id)
        try:
            return as_pdf(invoice)
        except DomainError as error:
            self.message_user(request, error.message, messages.ERROR)
            return redirect(reverse("console:billing_invoice_change", args=[invoice.pk]))

    @action(description="Issue credit note", icon="undo", variant=ActionVariant.DANGER)
    def credit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how much and why, and on POST do it."""
        invoice = self._invoice(object_id)
        rest = invoice.total_cents - credited_so_far(invoice)[0]
        form = CreditNoteForm(request.POST or None, initial={"amount_usd": f"{rest // 100}.{rest % 100:02d}"})
        if request.method == "POST" and form.is_valid() and self._credit(request, invoice, form):
            return redirect(reverse("console:billing_invoice_change", args=[invoice.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Credit note for {invoice.number}",
            "opts": self.opts,
            "invoice": invoice,
            "form": form,
            "rest": in_usd(rest),
            "moves_balance": invoice.kind == InvoiceKind.USAGE,
            "is_payment": invoice.kind == InvoiceKind.PAYMENT,
        }
        return TemplateResponse(request, "console/credit_note.html", context)

    def _credit(self, request: HttpRequest, invoice: Invoice, form: CreditNoteForm) -> bool:
        chosen = form.cleaned_data
        draft = CreditNoteDraft(
            invoice.pk,
            int(chosen["amount_usd"] * 100),
            f"console:{chosen['idempotency_key'] or new_id('form')}",
            chosen["reason"],
            request.user.get_username(),
        )
        try:
            note = issue_credit_note(draft)
        except DomainError as error:
            form.add_error(None, error.message)
            return False
        self.log_change(request, invoice, f"Credit note {note.number}.")
        self.message_user(request, f"{note.number} over {in_usd(note.amount_cents)} is issued.", messages.SUCCESS)
        return True

    @action(description="Mark as paid", icon="paid")
    def paid_by_hand(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A POST notes that a manual invoice was paid; others follow the ledger."""
        invoice = self._invoice(object_id)
        return self._confirmed(request, invoice, "Mark as paid", partial(mark_paid, invoice.pk))

    @action(description="Send again", icon="mail")
    def resend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A POST has the invoice sent to the billing addresses once more."""
        invoice = self._invoice(object_id)
        return self._confirmed(request, invoice, "Send again", partial(send_again, invoice))

    def _confirmed(self, request: HttpRequest, invoice: Invoice, act: str, do: Any) -> HttpResponse:
        page = reverse("console:billing_invoice_change", args=[invoice.pk])
        if request.method != "POST":
            context = {
                **self.admin_site.each_context(request),
                "title": f"{act}: {invoice.number}",
                "opts": self.opts,
                "invoice": invoice,
                "act": act,
                "page": page,
            }
            return TemplateResponse(request, "console/invoice_act.html", context)
        try:
            do()
        except DomainError as error:
            self.message_user(request, error.message, messages.ERROR)
        else:
            self.log_change(request, invoice, f"{act}.")
            self.message_user(request, f"{invoice.number}: done.", messages.SUCCESS)
        return redirect(page)

    @staticmethod
    def _invoice(object_id: str) -> Invoice:
        row: Invoice | None = Invoice.objects.filter(pk=unquote(object_id)).first()
        if row is None:
            raise Http404
        return row

    @display(header=True, description="Invoice", ordering="number")
    def heading(self, row: Invoice) -> tuple[str, str]:
        return row.number, row.buyer["name"]

    @display(description="Kind", ordering="kind")
    def kind_name(self, row: Invoice) -> str:
        month = f", {row.month:%B %Y}" if row.month else ""
        return f"{InvoiceKind(row.kind).name.capitalize()}{month}"

    @display(description="Status", label=STATES, ordering="status")
    def state(self, row: Invoice) -> str:
        return InvoiceStatus(row.status).name.capitalize()

    @display(description="Total", ordering="total_cents")
    def total(self, row: Invoice) -> str:
        return in_usd(row.total_cents)

    @display(description="Contained tax")
    def tax(self, row: Invoice) -> str:
        return in_usd(row.tax_cents)

    @display(description="Lines")
    def lines_in_words(self, row: Invoice) -> str:
        return "\n".join(f"{line.description}: {exact_usd(line.amount_nanos)}" for line in row.lines.all())

    @display(description="Credit notes")
    def credited(self, row: Invoice) -> str:
        notes = [f"{note.number}: {in_usd(note.amount_cents)}, {note.reason}" for note in row.credit_notes.all()]
        return "\n".join(notes) or "none"

    @display(description="Issued (UTC)", ordering="id")
    def issued(self, row: Invoice) -> str:
        return moment(row.issued_at)

    @display(description="Paid (UTC)")
    def paid(self, row: Invoice) -> str:
        return moment(row.paid_at) or "no"

    @display(description="E-mail (UTC)")
    def sent(self, row: Invoice) -> str:
        return moment(row.emailed_at) or "waits"


def as_pdf(document: Invoice | CreditNote) -> HttpResponse:
    """The PDF as an answer. Raises as the rendering does."""
    response = HttpResponse(rendering.pdf_of(document), content_type="application/pdf")
    response.headers["Content-Disposition"] = f'inline; filename="{rendering.file_name(document)}.pdf"'
    return response


@admin.register(CreditNote, site=console_site)
class CreditNoteAdmin(ReadOnlyPermissions, ConsoleAdmin):
    """Credit notes of all organizations; new ones are issued on the page of their invoice."""

    list_display = ("heading", "organization", "invoice", "amount", "reason", "issued")
    list_filter = (("organization", AutocompleteSelectFilter),)
    list_select_related = ("organization", "invoice")
    search_fields = ("number", "invoice__number", "organization__name", "organization__slug")
    ordering = ("-id",)
    actions = None
    actions_detail = ("open_pdf",)
    fieldsets = (
        (None, {"fields": (("number", "organization"), ("invoice", "amount"), "reason")}),
        ("History", {"fields": (("issued", "actor"), ("transaction", "id"))}),
    )
    readonly_fields = ("amount", "issued", "id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("invoice", "organization")

    @action(description="PDF", icon="picture_as_pdf")
    def open_pdf(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The credit note as PDF, or why there is none."""
        note = CreditNote.objects.filter(pk=unquote(object_id)).select_related("invoice").first()
        if note is None:
            raise Http404
        try:
            return as_pdf(note)
        except DomainError as error:
            self.message_user(request, error.message, messages.ERROR)
            return redirect(reverse("console:billing_creditnote_change", args=[note.pk]))

    @display(header=True, description="Credit note", ordering="number")
    def heading(self, row: CreditNote) -> tuple[str, str]:
        return row.number, row.actor

    @display(description="Amount", ordering="amount_cents")
    def amount(self, row: CreditNote) -> str:
        return in_usd(row.amount_cents)

    @display(description="Issued (UTC)", ordering="id")
    def issued(self, row: CreditNote) -> str:
        return moment(row.issued_at)


@admin.register(SellerProfile, site=console_site)
class SellerProfileAdmin(ConsoleAdmin):
    """Who issues the invoices. One row; a change counts for what is issued from now on."""

    list_display = ("name", "country", "tax_number", "invoice_prefix", "credit_note_prefix")
    actions = None
    fieldsets = (
        (None, {"fields": ("name", "address", ("country", "tax_number"), "email")}),
        ("Documents", {"fields": (("invoice_prefix", "credit_note_prefix"), "payment_days", "footer")}),
    )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_add_permission(request, obj) and not SellerProfile.objects.exists()
