"""Price versions: announced, in force, past. New ones can be added; none is ever changed or deleted."""

from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Case, CharField, Exists, Model, OuterRef, QuerySet, Value, When
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_POST
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RadioFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.billing.pricing.preview import preview_price, yesterday
from apps.billing.pricing.versions import whole_second
from apps.catalog.contracts import CONTAINING
from apps.catalog.models import PriceVersion
from apps.catalog.price_document import parse_variants, render_variants
from apps.catalog.price_entries import variants_as_json, variants_from_json
from apps.catalog.snapshot import price_from_version
from apps.console.access import AppendOnlyPermissions, ConsoleAdmin
from apps.console.figures import moment, price
from apps.console.pricing import shown_changes
from apps.console.site import console_site
from apps.core.changes import announce_on_commit

START_TOLERANCE = timedelta(minutes=5)
"""How long ago a start may lie that is meant as "now": the time it takes to fill in the form."""

PRICE_NOTE = "USD per million tokens, up to nine places."
RARE_NOTE = "For models that have them, USD per million tokens. Empty: as the bucket named."
FLAT_NOTE = "USD, on top of the tokens."
VARIANTS_NOTE = (
    "Other prices for some requests: context tiers, service tiers, hours of the day. The first that fits a request"
    " counts, for all of its tokens; what it does not name costs what stands above."
)
VARIANTS_HELP = (
    'A YAML list, one variant a line: - {min_input_tokens: 200001, input: "4.00", output: "18.00"}.'
    " Conditions: min_input_tokens, service_tier (batch, flex, priority), utc_from with utc_until"
    ' ("22:00"). Prices: by the names of the document that crun catalog export writes.'
)

INHERITED = {bucket: f"as {CONTAINING[bucket].replace('_', ' ')}" for bucket in CONTAINING}

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
    """The price of one bucket of tokens, or a flat one, as it is shown."""
    return price(getattr(version, bucket)) or INHERITED.get(bucket, "none")


def variant_lines(version: PriceVersion) -> list[str]:
    """The variants of a version in words, in their order."""
    return [
        f"{variant.conditions()}: "
        + ", ".join(f"{name.replace('_', ' ')} {price(amount)}" for name, amount in variant.given().items())
        for variant in variants_from_json(version.variants)
    ]


class VariantsField(forms.CharField):
    """Variants as the catalog document writes them; errors name the line."""

    def __init__(self) -> None:
        widget = UnfoldAdminTextareaWidget({"rows": 4, "spellcheck": "false", "class": "font-mono"})
        super().__init__(required=False, widget=widget, help_text=VARIANTS_HELP)

    def clean(self, value: Any) -> list[dict[str, Any]]:
        variants, problems = parse_variants(super().clean(value))
        if problems:
            raise forms.ValidationError([f"Line {problem}" for problem in problems])
        return variants_as_json(variants)


class PriceVersionForm(forms.ModelForm):
    """A new version. It never starts in the past: requests rated until now keep the price they had."""

    variants = VariantsField()

    class Meta:
        model = PriceVersion
        fields = ("model", "starts_at", *PriceVersion.AMOUNTS, "variants", "note")
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
            return whole_second(now)
        if chosen < now - START_TOLERANCE:
            raise forms.ValidationError(
                "A version cannot start in the past: requests since then were rated at the old price, and"
                " stay so. Leave the field empty to start now."
            )
        return max(chosen, whole_second(now))

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


_Fields = tuple[tuple[str, ...], ...]
_Fieldset = tuple[str | None, dict[str, Any]]


def _shown(rows: _Fields) -> _Fields:
    """Rows of amounts as the columns that show them."""
    return tuple(tuple(f"{name}_price" for name in row) for row in rows)


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
        "variant_count",
        "created_by",
    )
    list_filter = (StateFilter, ("model", AutocompleteSelectFilter))
    search_fields = ("model__id", "model__name", "note", "created_by")
    autocomplete_fields = ("model",)
    ordering = ("model", "-starts_at")
    actions = None
    actions_detail = ("new_version",)
    list_fullwidth = True
    change_form_after_template = "console/price_preview_button.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return with_state(super().get_queryset(request), timezone.now())

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        prices: _Fields = (("input", "output"), ("cache_read", "cache_write"), ("reasoning", "cache_write_1h"))
        media: _Fields = (("audio_input", "audio_output"), ("image_input", "image_output"))
        flat: _Fields = (("per_request", "per_image"),)
        if obj is None:
            head: _Fieldset = (None, {"fields": ("model", "starts_at", "note")})
            variants: tuple[str, ...] = ("variants",)
        else:
            head = (None, {"fields": (("model", "state"), ("starts", "note"), ("created_by", "created"))})
            prices, media, flat = (_shown(rows) for rows in (prices, media, flat))
            variants = ("all_variants",)
        return [
            head,
            ("Prices", {"description": PRICE_NOTE, "fields": prices}),
            ("Audio and images", {"description": RARE_NOTE, "fields": media}),
            ("Flat", {"description": FLAT_NOTE, "fields": flat}),
            ("Variants", {"description": VARIANTS_NOTE, "fields": variants}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        prices = tuple(f"{name}_price" for name in PriceVersion.AMOUNTS)
        return ("state", "starts", "created", "created_by", *prices, "all_variants")

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

    def get_urls(self) -> list[URLPattern]:
        view = require_POST(self.admin_site.admin_view(self.preview))
        return [path("preview/", view, name="catalog_priceversion_preview"), *super().get_urls()]

    def preview(self, request: HttpRequest) -> HttpResponse:
        """What yesterday's traffic would have cost at the prices of a form that is not saved."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = self.get_form(request)(request.POST)
        day, changes = yesterday(), None
        if form.is_valid():
            version = form.instance
            version.pk = 0  # it has no number yet
            changes = shown_changes(preview_price(version.model_id, price_from_version(version), day))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Preview: {form.data.get('model', '')}",
            "opts": self.opts,
            "form": form,
            "day": day,
            "changes": changes,
        }
        return TemplateResponse(request, "console/price_preview.html", context)

    @action(description="New version from this one", icon="content_copy")
    def new_version(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """To the form of a new version, filled in with this one's numbers."""
        version = self.get_object(request, object_id)
        if version is None:
            raise Http404
        amounts = {name: price(getattr(version, name)) for name in PriceVersion.AMOUNTS}
        filled = {name: amount.lstrip("$") for name, amount in amounts.items() if amount}
        if version.variants:
            filled["variants"] = render_variants(variants_from_json(version.variants))
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

    @display(description="Cache write, one hour")
    def cache_write_1h_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "cache_write_1h")

    @display(description="Audio input")
    def audio_input_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "audio_input")

    @display(description="Audio output")
    def audio_output_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "audio_output")

    @display(description="Image input")
    def image_input_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "image_input")

    @display(description="Image output")
    def image_output_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "image_output")

    @display(description="Per request")
    def per_request_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "per_request")

    @display(description="Per image")
    def per_image_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "per_image")

    @display(description="Variants")
    def variant_count(self, row: PriceVersion) -> str:
        return str(len(row.variants)) if row.variants else ""

    @display(description="Variants")
    def all_variants(self, row: PriceVersion) -> str:
        return format_html_join(mark_safe("<br>"), "{}", ((line,) for line in variant_lines(row))) or "none"

    @display(description="Entered (UTC)")
    def created(self, row: PriceVersion) -> str:
        return moment(row.created_at)
