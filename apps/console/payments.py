"""Payments: what came in, refunds of it, bank transfers to write down, and the events that providers sent."""

from decimal import Decimal
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget

from apps.billing.models import REASON_LENGTH, Dispute, Payment, PaymentStatus, Refund, WebhookInbox
from apps.billing.models.payments import REFERENCE_LENGTH, new_refund_id
from apps.billing.payments.bank_transfer import is_recorded
from apps.billing.payments.contracts import ProviderDisabled
from apps.billing.payments.inbox import SETTLED, replay
from apps.billing.payments.refunds import refund_payment, refundable_nanos, refunded_nanos
from apps.billing.payments.top_ups import Transfer, record_bank_transfer
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin, ReadOnlyPermissions
from apps.console.figures import exact_usd, moment
from apps.console.site import console_site
from apps.core.amount_fields import AmountField
from apps.core.errors import ConfigurationError, Conflict, DomainError
from apps.core.money import nanos_from_usd, usd_from_nanos

STATES = {"pending": "warning", "paid": "success", "failed": "danger", "expired": "default"}
EVENT_STATES = {
    "received": "warning",
    "done": "success",
    "ignored": "default",
    "parked": "warning",
    "refused": "danger",
    "given_up": "danger",
}
MAX_TRANSFER_USD = Decimal(10_000_000)


def _amount(**options: Any) -> AmountField:
    return AmountField(
        label="Amount in USD",
        min_value=Decimal("0.01"),
        decimal_places=2,
        widget=UnfoldAdminDecimalFieldWidget,
        **options,
    )


class BankTransferForm(forms.ModelForm):
    """Money that is on the bank account. The bank's reference makes it one payment, however often it is typed in."""

    amount_usd = _amount(max_value=MAX_TRANSFER_USD, help_text="It becomes credit at once; a debt is paid from it.")
    reference = forms.CharField(
        label="The bank's reference",
        max_length=REFERENCE_LENGTH,
        widget=UnfoldAdminTextInputWidget,
        help_text="Of this transfer alone. The same reference, in capitals or not, cannot be recorded again.",
    )
    note = forms.CharField(max_length=REASON_LENGTH, required=False, widget=UnfoldAdminTextInputWidget)

    class Meta:
        model = Payment
        fields = ("organization",)

    def clean_reference(self) -> str:
        reference = " ".join(self.cleaned_data["reference"].split())
        if is_recorded(reference):
            raise forms.ValidationError("This transfer was recorded before.")
        return reference


class RefundForm(forms.Form):
    """How much goes back, and why. The hidden id makes a form that is sent twice one refund."""

    amount_usd = _amount(max_value=MAX_TRANSFER_USD)
    reason = forms.CharField(
        max_length=REASON_LENGTH, widget=UnfoldAdminTextInputWidget, help_text="The customer sees it."
    )
    refund_id = forms.RegexField(r"^rfd_[0-9a-f]{32}$", initial=partial(new_refund_id), widget=forms.HiddenInput)


class RefundInline(ReadOnlyPermissions, TabularInline):
    """What went back."""

    model = Refund
    fields = readonly_fields = ("id", "amount", "status", "reason", "actor", "failure", "created")
    ordering = ("id",)
    extra = 0
    hide_title = True
    verbose_name_plural = "Refunds"

    @display(description="Amount")
    def amount(self, row: Refund) -> str:
        return exact_usd(row.amount_nanos)

    @display(description="Created (UTC)")
    def created(self, row: Refund) -> str:
        return moment(row.created_at)


class DisputeInline(ReadOnlyPermissions, TabularInline):
    """What the payer's bank took."""

    model = Dispute
    fields = readonly_fields = ("provider_reference", "amount", "status", "reason", "withdrawal", "reinstatement")
    ordering = ("id",)
    extra = 0
    hide_title = True
    verbose_name_plural = "Disputes"

    @display(description="Amount")
    def amount(self, row: Dispute) -> str:
        return exact_usd(row.amount_nanos)


@admin.register(Payment, site=console_site)
class PaymentAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """All payments. Adding one records a bank transfer."""

    form = BankTransferForm
    list_display = ("heading", "kind_name", "state", "amount", "refunded", "created", "actor")
    list_filter = (
        ("organization", AutocompleteSelectFilter),
        ("kind", ChoicesDropdownFilter),
        ("status", ChoicesDropdownFilter),
    )
    list_select_related = ("organization", "grant")
    search_fields = ("=id", "=provider_reference", "=checkout_reference", "organization__name", "organization__slug")
    autocomplete_fields = ("organization",)
    ordering = ("-id",)
    actions = None
    actions_detail = ("refund",)
    inlines = (RefundInline, DisputeInline)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            return [("Bank transfer", {"fields": ("organization", ("amount_usd", "reference"), "note")})]
        return [
            (None, {"fields": (("organization", "kind_name"), ("amount", "state"), ("refunded", "refundable"))}),
            ("At the provider", {"fields": (("provider", "provider_reference"), ("checkout_reference", "card"))}),
            ("History", {"fields": (("created", "paid"), ("actor", "failure"), ("grant", "note"), "id")}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        shown = ("kind_name", "amount", "state", "refunded", "refundable", "created", "paid", "id")
        return shown if obj else ()

    def get_inlines(self, request: HttpRequest, obj: Model | None) -> Any:
        return self.inlines if obj else ()

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        """A form that was sent twice at the same moment finds the other's transfer when it looks again, and says so."""
        try:
            return super().add_view(request, form_url, extra_context)
        except Conflict:
            return super().add_view(request, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: Payment, form: Any, change: bool) -> None:
        chosen = form.cleaned_data
        transfer = Transfer(nanos_from_usd(chosen["amount_usd"]), chosen["reference"], chosen["note"])
        made = record_bank_transfer(chosen["organization"].pk, transfer, actor=request.user.get_username())
        obj.pk = made.pk
        obj.refresh_from_db()

    def response_add(self, request: HttpRequest, obj: Payment, post_url_continue: Any = None) -> HttpResponse:
        self.message_user(request, f"{obj.organization.name} has {exact_usd(obj.amount_nanos)} more.", messages.SUCCESS)
        return redirect(reverse("console:billing_payment_changelist"))

    def has_refund_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Operators may refund what was paid."""
        if object_id is None:
            return self.has_add_permission(request)
        paid = Payment.objects.filter(pk=unquote(object_id), status=PaymentStatus.PAID)
        return self.has_add_permission(request) and paid.exists()

    @action(description="Refund", icon="undo", variant=ActionVariant.DANGER, permissions=["refund"])
    def refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how much, and on POST send it back."""
        payment = Payment.objects.filter(pk=unquote(object_id)).select_related("organization", "grant").first()
        if payment is None:
            raise Http404
        possible = refundable_nanos(payment)
        form = RefundForm(request.POST or None, initial={"amount_usd": f"{usd_from_nanos(possible):.2f}"})
        if request.method == "POST" and form.is_valid() and self._refund(request, payment, form):
            return HttpResponseRedirect(reverse("console:billing_payment_change", args=[quote(payment.pk)]))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Refund {payment.organization.name}",
            "opts": self.opts,
            "payment": payment,
            "form": form,
            "possible": exact_usd(possible),
            "can_refund": possible > 0,
            "is_by_hand": payment.provider == "bank_transfer",
        }
        return TemplateResponse(request, "console/refund.html", context)

    def _refund(self, request: HttpRequest, payment: Payment, form: RefundForm) -> bool:
        chosen = form.cleaned_data
        try:
            made = refund_payment(
                payment.id,
                nanos_from_usd(chosen["amount_usd"]),
                reason=chosen["reason"],
                actor=request.user.get_username(),
                refund_id=chosen["refund_id"],
            )
        except DomainError as error:
            form.add_error(None, f"{error.message[:1].upper()}{error.message[1:].rstrip('.')}.")
            return False
        self.log_change(request, payment, f"Refunded {exact_usd(made.amount_nanos)}: {made.status}.")
        words = {
            "succeeded": (messages.SUCCESS, f"{exact_usd(made.amount_nanos)} went back."),
            "pending": (
                messages.WARNING,
                "The credit is taken; the provider is asked again until it answers.",
            ),
            "failed": (messages.ERROR, f"The provider refused, the credit is back: {made.failure}"),
        }
        level, text = words[made.status]
        self.message_user(request, text, level)
        return True

    @display(header=True, description="Organization", ordering="organization__name")
    def heading(self, row: Payment) -> tuple[str, str]:
        return row.organization.name, row.id

    @display(description="Kind", ordering="kind")
    def kind_name(self, row: Payment) -> str:
        return row.get_kind_display()

    @display(description="Status", label=STATES, ordering="status")
    def state(self, row: Payment) -> str:
        return row.status

    @display(description="Amount", ordering="amount_nanos")
    def amount(self, row: Payment) -> str:
        return exact_usd(row.amount_nanos)

    @display(description="Refunded")
    def refunded(self, row: Payment) -> str:
        return exact_usd(refunded_nanos(row)) if row.status == PaymentStatus.PAID else ""

    @display(description="Can be refunded")
    def refundable(self, row: Payment) -> str:
        return exact_usd(refundable_nanos(row))

    @display(description="Created (UTC)", ordering="id")
    def created(self, row: Payment) -> str:
        return moment(row.created_at)

    @display(description="Paid (UTC)")
    def paid(self, row: Payment) -> str:
        return moment(row.paid_at)


@admin.register(WebhookInbox, site=console_site)
class WebhookInboxAdmin(ReadOnlyPermissions, ConsoleAdmin):
    """Events of payment providers as they came, and what became of them."""

    list_display = ("heading", "state", "error", "deliveries", "attempts", "received")
    list_filter = (("status", ChoicesDropdownFilter),)
    search_fields = ("=event_id", "=reference", "=type")
    ordering = ("-id",)
    actions = None
    actions_detail = ("replay",)
    fieldsets = (
        (None, {"fields": (("event_id", "type"), ("state", "error"), ("deliveries", "attempts"))}),
        ("History", {"fields": (("received", "processed"), ("next_attempt", "reference"), "payload")}),
    )
    readonly_fields = ("state", "received", "processed", "next_attempt")

    def has_replay_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Operators may have an event worked on again that is not done."""
        if object_id is None:
            return self.has_view_permission(request)
        return (
            self.has_view_permission(request)
            and WebhookInbox.objects.filter(pk=unquote(object_id)).exclude(status__in=SETTLED).exists()
        )

    @action(description="Try again", icon="replay", permissions=["replay"])
    def replay(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """On POST work on the event again; a GET only asks."""
        row = WebhookInbox.objects.filter(pk=unquote(object_id)).first()
        if row is None:
            raise Http404
        if request.method == "POST":
            try:
                status = replay(row.event_id, provider=row.provider)
            except (ProviderDisabled, ConfigurationError) as error:
                self.message_user(request, error.message, messages.ERROR)
            else:
                self.log_change(request, row, f"Tried again: {status}.")
                level = messages.SUCCESS if status in SETTLED else messages.WARNING
                self.message_user(request, f"The event is {status.replace('_', ' ')}.", level)
            return redirect(reverse("console:billing_webhookinbox_change", args=[row.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Try {row.event_id} again",
            "opts": self.opts,
            "event": row,
        }
        return TemplateResponse(request, "console/replay_event.html", context)

    @display(header=True, description="Event")
    def heading(self, row: WebhookInbox) -> tuple[str, str]:
        return row.type, row.event_id

    @display(description="Status", label=EVENT_STATES, ordering="status")
    def state(self, row: WebhookInbox) -> str:
        return row.status

    @display(description="Received (UTC)", ordering="id")
    def received(self, row: WebhookInbox) -> str:
        return moment(row.received_at)

    @display(description="Worked on (UTC)")
    def processed(self, row: WebhookInbox) -> str:
        return moment(row.processed_at)

    @display(description="Tried again (UTC)")
    def next_attempt(self, row: WebhookInbox) -> str:
        return moment(row.next_attempt_at)
