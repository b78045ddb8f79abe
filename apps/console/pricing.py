"""Price books, previews of new prices, and re-ratings. Nothing that was said once is ever edited."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model as DatabaseModel
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
)

from apps.billing.models import PriceRule, Rerating, ReratingStatus
from apps.billing.pricing.loading import amounts_of, book_rule
from apps.billing.pricing.records import Window
from apps.billing.pricing.rerating import MAX_REASON, organization_changes, preview_rerating, start_rerating
from apps.billing.pricing.totals import ChangeTable
from apps.billing.pricing.versions import START_TOLERANCE, check_rule, whole_second
from apps.catalog.models import Model
from apps.catalog.price_document import MAX_FLAT, MAX_PRICE
from apps.catalog.price_entries import AMOUNTS, FLAT
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin
from apps.console.figures import exact_usd, moment, price
from apps.console.site import console_site
from apps.core.changes import announce_on_commit
from apps.core.errors import DomainError, InvalidInput

FIXED_NOTE = "Instead of a change in percent, for one model: USD per million tokens. They replace its variants."
ROWS_SHOWN = 200
STATES = {"Applied": "success", "Applying": "info"}


def sentence(error: DomainError) -> str:
    """What went wrong, as it stands beside a form."""
    return f"{error.message[:1].upper()}{error.message[1:].rstrip('.')}."


def shown_changes(table: ChangeTable) -> dict[str, Any]:
    """A table of changes as the template writes it."""
    lines = [
        {
            "name": name,
            "requests": change.requests,
            "changed": change.changed,
            "before": exact_usd(change.before_nanos),
            "after": exact_usd(change.after_nanos),
            "difference": exact_usd(change.difference_nanos),
        }
        for name, change in [*table.rows[:ROWS_SHOWN], ("Total", table.total)]
    ]
    return {
        "rows": lines[:-1],
        "total": lines[-1],
        "more": max(0, len(table.rows) - ROWS_SHOWN),
        "unposted": table.unposted,
        "capped": table.total.capped,
        "uncharged": exact_usd(table.total.uncharged_nanos),
    }


def _amount(name: str) -> forms.DecimalField:
    return forms.DecimalField(
        required=False,
        min_value=Decimal(0),
        max_value=Decimal(MAX_FLAT if name in FLAT else MAX_PRICE),
        decimal_places=9,
        max_digits=20,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="USD." if name in FLAT else "",
    )


class PriceRuleForm(forms.ModelForm):
    """A new rule. It never starts in the past: what was rated until now keeps its price."""

    input = _amount("input")
    output = _amount("output")
    cache_read = _amount("cache_read")
    cache_write = _amount("cache_write")
    cache_write_1h = _amount("cache_write_1h")
    reasoning = _amount("reasoning")
    audio_input = _amount("audio_input")
    image_input = _amount("image_input")
    audio_output = _amount("audio_output")
    image_output = _amount("image_output")
    per_request = _amount("per_request")
    per_image = _amount("per_image")

    class Meta:
        model = PriceRule
        fields = ("organization", "model", "starts_at", "percent", "note")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "starts_at" in self.fields:
            starts_at = self.fields["starts_at"]
            starts_at.required, starts_at.initial = False, None
            starts_at.help_text = "UTC. Empty: in force from the moment you save. Past moments are refused."

    def clean_starts_at(self) -> datetime:
        now = timezone.now()
        chosen: datetime | None = self.cleaned_data["starts_at"]
        if chosen is not None and chosen < now - START_TOLERANCE:
            raise forms.ValidationError("A rule cannot start in the past here: crun price rule set --allow-past can.")
        return whole_second(now) if chosen is None else max(chosen, whole_second(now))

    def clean(self) -> dict[str, Any]:
        """Also makes the amounts; what the database would refuse is said here."""
        cleaned = self.cleaned_data
        given = {name: cleaned[name] for name in AMOUNTS if cleaned.get(name) is not None}
        amounts = {name: f"{amount.normalize():f}" for name, amount in given.items()} or None
        model = cleaned.get("model")
        draft = PriceRule(model=model, percent=cleaned.get("percent"), amounts=amounts, note=cleaned.get("note", ""))
        if not self.errors:
            try:
                check_rule(draft)
            except InvalidInput as error:
                raise forms.ValidationError(sentence(error)) from error
            same = PriceRule.objects.filter(
                organization=cleaned["organization"], model=model, starts_at=cleaned["starts_at"]
            )
            if same.exists():
                self.add_error("starts_at", "A rule with this start exists: let this one start a second later.")
        self.instance.amounts = amounts
        return cleaned


@admin.register(PriceRule, site=console_site)
class PriceRuleAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """What organizations pay instead of the list price, latest rule first."""

    form = PriceRuleForm
    list_display = ("owner", "model_name", "says", "starts", "note", "created_by")
    list_filter = (("organization", AutocompleteSelectFilter), ("model", AutocompleteSelectFilter))
    list_select_related = ("organization",)
    search_fields = ("id", "organization__name", "organization__slug", "model__id", "note")
    autocomplete_fields = ("organization", "model")
    ordering = ("-starts_at", "-id")
    sortable_by = ()
    actions = None
    list_fullwidth = True

    def get_fieldsets(self, request: HttpRequest, obj: DatabaseModel | None = None) -> Any:
        if obj is not None:
            rows = (("owner", "model_name"), ("says", "starts"), ("created_by", "created"), "note", "id")
            return [(None, {"fields": rows})]
        names = iter(AMOUNTS)
        pairs = tuple(zip(names, names, strict=True))
        return [
            (None, {"fields": (("organization", "model"), "percent", "starts_at", "note")}),
            ("Fixed prices", {"description": FIXED_NOTE, "fields": pairs, "classes": ("collapse",)}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: DatabaseModel | None = None) -> tuple[str, ...]:
        return () if obj is None else ("owner", "model_name", "says", "starts", "created", "id")

    def save_model(self, request: HttpRequest, obj: PriceRule, form: Any, change: bool) -> None:
        obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)
        announce_on_commit("catalog")

    @display(description="Organization")
    def owner(self, row: PriceRule) -> str:
        return str(row.organization)

    @display(description="Model")
    def model_name(self, row: PriceRule) -> str:
        return row.model_id or "every model"

    @display(description="Pays")
    def says(self, row: PriceRule) -> str:
        fixed = [f"{name.replace('_', ' ')} {price(amount)}" for name, amount in amounts_of(row).items()]
        return ", ".join(fixed) or book_rule(row).in_words()

    @display(description="Starts (UTC)")
    def starts(self, row: PriceRule) -> str:
        return moment(row.starts_at)

    @display(description="Entered (UTC)")
    def created(self, row: PriceRule) -> str:
        return moment(row.created_at)


def _model_names() -> list[tuple[str, str]]:
    names = Model.objects.order_by("id").values_list("id", flat=True)
    return [("", "Choose a model"), *((name, name) for name in names)]


class ReratingForm(forms.Form):
    """A window of a model, and why it is corrected."""

    model = forms.ChoiceField(choices=_model_names, widget=UnfoldAdminSelectWidget)
    starts_at = forms.SplitDateTimeField(
        label="From", widget=UnfoldAdminSplitDateTimeWidget, help_text="UTC: the first moment of the window."
    )
    ends_at = forms.SplitDateTimeField(
        label="To", widget=UnfoldAdminSplitDateTimeWidget, help_text="UTC: the first moment after it."
    )
    reason = forms.CharField(
        max_length=MAX_REASON, widget=UnfoldAdminTextInputWidget, help_text="Customers see it in their statements."
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        start, end = cleaned.get("starts_at"), cleaned.get("ends_at")
        if start and end and start >= end:
            self.add_error("ends_at", "The window is empty: its end is not after its beginning.")
        return cleaned

    def window(self) -> Window:
        """What was chosen."""
        chosen = self.cleaned_data
        return Window(chosen["model"], chosen["starts_at"], chosen["ends_at"])


@admin.register(Rerating, site=console_site)
class ReratingAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """Corrections of what was billed. A new one is previewed, then begun here and done by the worker."""

    list_display = ("heading", "window", "state", "reason", "created_by")
    search_fields = ("id", "model", "reason")
    ordering = ("-id",)
    sortable_by = ()
    actions = None
    fieldsets = ((None, {"fields": (("model", "window"), ("state", "created"), "reason", "created_by", "done", "id")}),)
    readonly_fields = ("window", "state", "created", "done", "id")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        """Ask for a window, show what would change, and begin only when that was seen."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ReratingForm(request.POST or None, initial={"ends_at": timezone.now().replace(microsecond=0)})
        changes = None
        if request.method == "POST" and form.is_valid():
            try:
                if "_apply" in request.POST and request.POST.get("seen") == str(form.window()):
                    return self._begin(request, form)
                changes = shown_changes(preview_rerating(form.window()))
            except DomainError as error:
                form.add_error(None, sentence(error))
        context = {
            **self.admin_site.each_context(request),
            "title": "New re-rating",
            "opts": self.opts,
            "form": form,
            "changes": changes,
            "seen": str(form.window()) if changes else "",
        }
        return TemplateResponse(request, "console/rerate.html", context)

    def _begin(self, request: HttpRequest, form: ReratingForm) -> HttpResponse:
        reason, actor = form.cleaned_data["reason"], request.user.get_username()
        begun = start_rerating(form.window(), reason=reason, actor=actor)
        if begun is None:
            messages.info(request, "There is nothing to correct any more. Nothing was written.")
            return redirect(reverse("console:billing_rerating_changelist"))
        self.log_addition(request, begun, f"{begun}: {begun.reason}")
        messages.success(request, "The worker corrects it within seconds. Load this page again to see what it did.")
        return redirect(reverse("console:billing_rerating_change", args=[begun.pk]))

    @display(header=True, description="Model and time (UTC)")
    def heading(self, row: Rerating) -> tuple[str, str]:
        return row.model, moment(row.created_at)

    @display(description="Window (UTC)")
    def window(self, row: Rerating) -> str:
        return f"{moment(row.starts_at)} to {moment(row.ends_at)}"

    @display(description="State", label=STATES)
    def state(self, row: Rerating) -> str:
        return "Applied" if row.status == ReratingStatus.APPLIED else "Applying"

    @display(description="Begun (UTC)")
    def created(self, row: Rerating) -> str:
        return moment(row.created_at)

    @display(description="What it changed")
    def done(self, row: Rerating) -> str:
        changes = organization_changes(row)
        total = ("Together", sum(each[1] for each in changes), sum(each[2] for each in changes))
        lines = [f"{name}: {number} requests, {exact_usd(nanos)}" for name, number, nanos in [*changes, total]]
        return "\n".join(lines) if changes else "nothing"
