"""Price versions: announced, in force, past. New ones can be added; none is ever changed or deleted."""

from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db.models import Case, CharField, Exists, Model, OuterRef, QuerySet, Value, When
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RadioFilter
from unfold.decorators import action, display

from apps.catalog.models import PriceVersion
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin
from apps.console.figures import moment, price
from apps.console.site import console_site
from apps.core.changes import announce_on_commit

START_TOLERANCE = timedelta(minutes=5)
"""How long ago a start may lie that is meant as "now": the time it takes to fill in the form."""

PRICE_NOTE = "USD per million tokens, up to nine places."

INHERITED = {"cache_read": "as input", "cache_write": "as input", "reasoning": "as output"}

STATES = {"Announced": "info", "In force": "success", "Past": "default"}


def with_state(versions: QuerySet[Any], now: datetime) -> QuerySet[Any]:
    """The versions with `state_name` as of `now`."""
    successor = PriceVersion.objects.filter(
        model=OuterRef("model"), starts_at__gt=OuterRef("starts_at"), starts_at__lte=now
    )
    state = Case(
        When(starts_at__gt=now, then=Value("Announced")),
        When(Exists(successor), then=Value("Past")),
        default=Value("In force"),
        output_field=CharField(),
    )
    return versions.annotate(state_name=state)


def in_force(now: datetime) -> QuerySet[PriceVersion]:
    """For every model the one version that applies at `now`."""
    started = PriceVersion.objects.filter(starts_at__lte=now)
    return started.order_by("model_id", "-starts_at").distinct("model_id")


def bucket_price(version: PriceVersion, bucket: str) -> str:
    """The price of one bucket of tokens, as it is shown."""
    return price(getattr(version, bucket)) or INHERITED[bucket]


class PriceVersionForm(forms.ModelForm):
    """A new version. It never starts in the past: requests rated until now keep the price they had."""

    class Meta:
        model = PriceVersion
        fields = ("model", "starts_at", *PriceVersion.BUCKETS, "note")
        help_texts: ClassVar = {
            "input": "Input that no prompt cache served.",
            "output": "Output of the model.",
            "cache_read": "Input read from the prompt cache. Empty: as input.",
            "cache_write": "Input written to the prompt cache. Empty: as input.",
            "reasoning": "Output spent on reasoning. Empty: as output.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        starts_at = self.fields.get("starts_at")
        if starts_at is not None:
            starts_at.required = False
            starts_at.initial = None
            starts_at.help_text = "UTC. Empty: in force from the moment you save. Past moments are refused."

    def clean_starts_at(self) -> datetime:
        now = timezone.now()
        chosen: datetime | None = self.cleaned_data["starts_at"]
        if chosen is None:
            return now
        if chosen < now - START_TOLERANCE:
            raise forms.ValidationError(
                "A version cannot start in the past: requests since then were rated at the old price, and"
                " stay so. Leave the field empty to start now."
            )
        return max(chosen, now)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        model, starts_at = cleaned.get("model"), cleaned.get("starts_at")
        if model and starts_at and PriceVersion.objects.filter(model=model, starts_at=starts_at).exists():
            self.add_error(
                "starts_at",
                f"{model} has a version that starts at {moment(starts_at)} UTC already. Versions are never"
                " replaced: let this one start a second later.",
            )
        return cleaned


class StateFilter(RadioFilter):
    """Versions that apply, will apply, no longer apply."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state_name=self.value()) if self.value() in STATES else queryset


@admin.register(PriceVersion, site=console_site)
class PriceVersionAdmin(AppendOnlyPermissions, ConsoleAdmin):
    """All prices of all models, latest first."""

    form = PriceVersionForm
    list_display = (
        "model_name",
        "state",
        "starts",
        "input_price",
        "output_price",
        "cache_read_price",
        "cache_write_price",
        "reasoning_price",
        "created_by",
    )
    list_filter = (StateFilter, ("model", AutocompleteSelectFilter))
    search_fields = ("model__id", "model__name", "note", "created_by")
    autocomplete_fields = ("model",)
    ordering = ("model", "-starts_at")
    actions = None
    actions_detail = ("new_version",)
    list_fullwidth = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return with_state(super().get_queryset(request), timezone.now())

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = (("input", "output"), ("cache_read", "cache_write"), "reasoning")
        if obj is None:
            head = (None, {"fields": ("model", "starts_at", "note")})
            return [head, ("Prices", {"description": PRICE_NOTE, "fields": fields})]
        cached = ("cache_read_price", "cache_write_price")
        shown = (("input_price", "output_price"), cached, "reasoning_price")
        return [
            (None, {"fields": (("model", "state"), ("starts", "note"), ("created_by", "created"))}),
            ("Prices", {"description": PRICE_NOTE, "fields": shown}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        prices = tuple(f"{bucket}_price" for bucket in PriceVersion.BUCKETS)
        return ("state", "starts", "created", "created_by", *prices)

    def save_model(self, request: HttpRequest, obj: PriceVersion, form: Any, change: bool) -> None:
        obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)
        announce_on_commit("catalog")

    def response_add(self, request: HttpRequest, obj: PriceVersion, post_url_continue: Any = None) -> Any:
        is_announced = obj.starts_at > timezone.now()
        when = f"starts at {moment(obj.starts_at)} UTC" if is_announced else "is in force now"
        page = reverse("console:catalog_priceversion_change", args=[obj.pk])
        link = format_html('<a href="{}" class="underline">{}</a>', page, obj.model_id)
        self.message_user(request, format_html("The new price of {} {}.", link, when), messages.SUCCESS)
        return redirect("console:catalog_priceversion_changelist")

    @action(description="New version from this one", icon="content_copy")
    def new_version(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """To the form of a new version, filled in with this one's numbers."""
        version = self.get_object(request, object_id)
        if version is None:
            raise Http404
        amounts = {bucket: price(getattr(version, bucket)) for bucket in PriceVersion.BUCKETS}
        filled = {bucket: amount.lstrip("$") for bucket, amount in amounts.items() if amount}
        query = urlencode({"model": version.model_id, **filled})
        return redirect(f"{reverse('console:catalog_priceversion_add')}?{query}")

    @display(description="Model", ordering="model")
    def model_name(self, row: PriceVersion) -> str:
        return row.model_id

    @display(description="State", label=STATES)
    def state(self, row: Any) -> str:
        return str(row.state_name)

    @display(description="Starts (UTC)", ordering="starts_at")
    def starts(self, row: PriceVersion) -> str:
        return moment(row.starts_at)

    @display(description="Input", ordering="input")
    def input_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "input")

    @display(description="Output", ordering="output")
    def output_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "output")

    @display(description="Cache read", ordering="cache_read")
    def cache_read_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "cache_read")

    @display(description="Cache write", ordering="cache_write")
    def cache_write_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "cache_write")

    @display(description="Reasoning", ordering="reasoning")
    def reasoning_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "reasoning")

    @display(description="Entered (UTC)")
    def created(self, row: PriceVersion) -> str:
        return moment(row.created_at)
