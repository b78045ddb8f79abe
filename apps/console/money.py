"""Money: the ledger to look at, and credit that operators grant. Nothing here can be edited."""

from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import ShowFacets
from django.db.models import Model, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget

from apps.billing.grants import Credit, grant_credit
from apps.billing.ledger import MAX_NANOS
from apps.billing.models import REASON_LENGTH, AccountKind, Grant, GrantSource, LedgerLine, LedgerTransaction
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin, ReadOnlyPermissions
from apps.console.figures import exact_usd, moment
from apps.console.site import console_site
from apps.core.amount_fields import AmountField
from apps.core.ids import new_id
from apps.core.money import nanos_from_usd, usd_from_nanos

KINDS = {
    "grant": "success",
    "refund": "success",
    "usage": "default",
    "charge": "default",
    "adjustment": "warning",
    "expiry": "warning",
    "write_off": "danger",
    "payment_refund": "warning",
    "dispute": "danger",
}


class GrantForm(forms.ModelForm):
    """Credit to be given. The hidden key makes a form that is sent twice one grant."""

    amount_usd = AmountField(
        label="Amount in USD",
        min_value=Decimal("0.000000001"),
        max_value=usd_from_nanos(MAX_NANOS),
        decimal_places=9,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="Up to nine places. A debt of the organization is paid from it at once.",
    )
    reason = forms.CharField(
        max_length=REASON_LENGTH, widget=UnfoldAdminTextInputWidget, help_text="The customer sees it."
    )
    idempotency_key = forms.CharField(
        max_length=60, initial=partial(new_id, "form"), widget=forms.HiddenInput, required=False
    )

    class Meta:
        model = Grant
        fields = ("organization", "source", "expires_at")

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("Credit cannot end in the past.")
        return expires_at

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        earlier = Grant.objects.filter(transaction__idempotency_key=form_key(cleaned)).first()
        if earlier is not None and not self._asks_for(earlier):
            self.add_error(None, "This form has granted credit already. Open a new one to grant more.")
        return cleaned

    def _asks_for(self, earlier: Grant) -> bool:
        asked = self.cleaned_data
        return (
            asked.get("organization") == earlier.organization
            and asked.get("amount_usd") == usd_from_nanos(earlier.amount_nanos)
            and asked.get("source") == earlier.source
            and asked.get("expires_at") == earlier.expires_at
            and asked.get("reason") == earlier.transaction.reason
        )


def form_key(cleaned: dict[str, Any]) -> str:
    """The idempotency key of a form."""
    return f"console:{cleaned.get('idempotency_key') or new_id('form')}"


@admin.register(Grant, site=console_site)
class GrantAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """Credit of all organizations: what was given, what is left, when it ends."""

    form = GrantForm
    list_display = ("heading", "source_name", "left", "amount", "expires", "reason", "created")
    list_filter = (("organization", AutocompleteSelectFilter), ("source", ChoicesDropdownFilter))
    list_select_related = ("organization", "transaction")
    search_fields = ("id", "organization__name", "organization__slug", "transaction__reason")
    autocomplete_fields = ("organization",)
    ordering = ("-id",)
    actions = None

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            fields = ("organization", ("amount_usd", "source"), "reason", "expires_at", "idempotency_key")
            return [(None, {"fields": fields})]
        return [
            (None, {"fields": (("organization", "source_name"), ("amount", "left"), ("expires", "priority"))}),
            ("History", {"fields": (("reason", "actor"), ("created", "transaction"), "id")}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("source_name", "amount", "left", "expires", "reason", "actor", "created", "id") if obj else ()

    def save_model(self, request: HttpRequest, obj: Grant, form: Any, change: bool) -> None:
        chosen = form.cleaned_data
        credit = Credit(nanos_from_usd(chosen["amount_usd"]), GrantSource(chosen["source"]), chosen["expires_at"])
        made = grant_credit(
            chosen["organization"].pk,
            credit,
            idempotency_key=form_key(chosen),
            reason=chosen["reason"],
            actor=request.user.get_username(),
        )
        obj.pk = made.pk
        obj.refresh_from_db()

    def response_add(self, request: HttpRequest, obj: Grant, post_url_continue: Any = None) -> HttpResponse:
        self.message_user(request, f"{obj.organization.name} has {exact_usd(obj.amount_nanos)} more.", messages.SUCCESS)
        return redirect(reverse("console:billing_grant_changelist"))

    @display(header=True, description="Organization", ordering="organization__name")
    def heading(self, row: Grant) -> tuple[str, str]:
        return row.organization.name, row.id

    @display(description="Source", ordering="source")
    def source_name(self, row: Grant) -> str:
        return GrantSource(row.source).name.capitalize()

    @display(description="Left", ordering="remaining_nanos")
    def left(self, row: Grant) -> str:
        return exact_usd(row.remaining_nanos)

    @display(description="Granted", ordering="amount_nanos")
    def amount(self, row: Grant) -> str:
        return exact_usd(row.amount_nanos)

    @display(description="Expires (UTC)", ordering="expires_at")
    def expires(self, row: Grant) -> str:
        return moment(row.expires_at) or "never"

    @display(description="Reason")
    def reason(self, row: Grant) -> str:
        return row.transaction.reason

    @display(description="Granted by")
    def actor(self, row: Grant) -> str:
        return row.transaction.actor

    @display(description="Created (UTC)", ordering="id")
    def created(self, row: Grant) -> str:
        return moment(row.created_at)


class LineInline(ReadOnlyPermissions, TabularInline):
    """The lines of a transaction; they sum to zero."""

    model = LedgerLine
    fields = readonly_fields = ("account", "amount", "grant")
    ordering = ("id",)
    extra = 0
    hide_title = True
    verbose_name_plural = "Lines"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("account", "grant")

    @display(description="Amount")
    def amount(self, row: LedgerLine) -> str:
        return exact_usd(row.amount_nanos)


@admin.register(LedgerTransaction, site=console_site)
class LedgerTransactionAdmin(ReadOnlyPermissions, ConsoleAdmin):
    """All movements of money, newest first."""

    list_display = ("heading", "organization", "kind_name", "moved", "reason", "actor")
    list_filter = (("organization", AutocompleteSelectFilter), ("kind", ChoicesDropdownFilter))
    list_select_related = ("organization",)
    search_fields = ("=id", "=idempotency_key")
    search_help_text = "A whole transaction id or idempotency key"
    ordering = ("-id",)
    sortable_by = ()
    show_facets = ShowFacets.NEVER
    show_full_result_count = False
    paginator = InfinitePaginator
    actions = None
    inlines = (LineInline,)
    fieldsets = (
        (None, {"fields": (("organization", "kind_name"), ("moved", "created"), ("reason", "actor"))}),
        ("Identity", {"fields": ("id", "idempotency_key", "reverses")}),
    )
    readonly_fields = ("kind_name", "moved", "created", "id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        lines = LedgerLine.objects.filter(transaction=OuterRef("pk"), account__kind=AccountKind.WALLET)
        total = lines.order_by().values("transaction").annotate(total=Sum("amount_nanos")).values("total")
        return super().get_queryset(request).annotate(moved_nanos=Coalesce(Subquery(total), 0))

    @display(header=True, description="Transaction (UTC)")
    def heading(self, row: LedgerTransaction) -> tuple[str, str]:
        return moment(row.created_at), row.id

    @display(description="Kind", label=KINDS)
    def kind_name(self, row: LedgerTransaction) -> str:
        return row.kind

    @display(description="On the wallet")
    def moved(self, row: Any) -> str:
        return exact_usd(int(row.moved_nanos))

    @display(description="Created (UTC)")
    def created(self, row: LedgerTransaction) -> str:
        return moment(row.created_at)
