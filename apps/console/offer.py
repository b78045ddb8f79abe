"""Models on offer, the routes that serve them and the prices they have had."""

from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db.models import Count, F, FloatField, OuterRef, Prefetch, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Cast, NullIf
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, BooleanRadioFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextareaWidget

from apps.catalog.models import MODALITIES, OUTPUT_MODALITIES, Model, PriceVersion, Route
from apps.console.access import ConsoleAdmin, OperatorPermissions, ReadOnlyPermissions
from apps.console.figures import moment
from apps.console.maintenance import RouteForm
from apps.console.prices import STATES, bucket_price, in_force, variant_lines, with_state
from apps.console.site import console_site
from apps.core.changes import announce_on_commit
from apps.usage.models import INPUT_COLUMNS, UsageRollup

HOURS_OF_CACHE = 24


def _modalities(names: list[str]) -> forms.MultipleChoiceField:
    return forms.MultipleChoiceField(
        choices=[(name, name.title()) for name in names], widget=UnfoldAdminCheckboxSelectMultipleWidget
    )


class LanguageModelForm(forms.ModelForm):
    """A model as customers see it."""

    input_modalities = _modalities(MODALITIES)
    output_modalities = _modalities(OUTPUT_MODALITIES)

    class Meta:
        model = Model
        fields = (
            "id",
            "name",
            "vendor",
            "description",
            "context_length",
            "max_output_tokens",
            "input_modalities",
            "output_modalities",
            "tokenizer",
            "image_tokens",
            "unsupported_parameters",
            "first_byte_timeout_s",
            "requests_per_minute",
            "tokens_per_minute",
            "cache_default",
            "cache_ttl_s",
            "cache_share_ppm",
            "enabled",
        )
        widgets: ClassVar = {"description": UnfoldAdminTextareaWidget({"rows": 3})}


class RouteInline(OperatorPermissions, TabularInline):
    """Who serves the model, and under which name."""

    model = Route
    form = RouteForm
    fields = (*RouteForm.Meta.fields, "cached_input")
    readonly_fields = ("cached_input",)
    extra = 0
    hide_title = True
    verbose_name_plural = "Routes"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        since = timezone.now() - timedelta(hours=HOURS_OF_CACHE)
        rollups = UsageRollup.objects.filter(
            hour__gte=since, model=OuterRef("model_id"), provider=OuterRef("provider_id")
        )
        every = sum((F(column) for column in INPUT_COLUMNS[1:]), start=F(INPUT_COLUMNS[0]))
        share = 100 * Cast(Sum("cache_read_tokens"), FloatField()) / NullIf(Sum(every), 0)
        shares = rollups.order_by().values("model").annotate(share=share).values("share")
        return super().get_queryset(request).annotate(cached_percent=Subquery(shares))

    @display(description="Cached input, 24 h")
    def cached_input(self, row: Any) -> str:
        """The share of the input of its model and provider that the vendor's prompt cache had."""
        percent = getattr(row, "cached_percent", None)
        return "no input" if percent is None else f"{percent:.0f} %"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)


class PriceInline(ReadOnlyPermissions, TabularInline):
    """What the model costs, has cost and will cost."""

    model = PriceVersion
    fields = ("state", "starts", "input_price", "output_price", "cached_price", "conditions", "note", "created_by")
    readonly_fields = fields
    extra = 0
    hide_title = True
    verbose_name_plural = "Prices, USD per million tokens"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return with_state(super().get_queryset(request), timezone.now()).order_by("-starts_at")

    @display(description="State", label=STATES)
    def state(self, row: Any) -> str:
        return str(row.state_name)

    @display(description="Starts (UTC)")
    def starts(self, row: PriceVersion) -> str:
        return moment(row.starts_at)

    @display(description="Input")
    def input_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "input")

    @display(description="Output")
    def output_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "output")

    @display(description="Cache read")
    def cached_price(self, row: PriceVersion) -> str:
        return bucket_price(row, "cache_read")

    @display(description="Variants")
    def conditions(self, row: PriceVersion) -> str:
        return "; ".join(variant_lines(row))


@admin.register(Model, site=console_site)
class LanguageModelAdmin(ConsoleAdmin):
    """The models customers may call."""

    form = LanguageModelForm
    list_display = ("heading", "vendor", "limits", "current_price", "route_count", "enabled")
    list_display_links = ("heading",)
    list_editable = ("enabled",)
    list_filter = (
        ("enabled", BooleanRadioFilter),
        ("vendor", AllValuesCheckboxFilter),
    )
    search_fields = ("id", "name", "vendor")
    ordering = ("vendor", "id")
    inlines = (RouteInline,)
    actions_detail = ("new_price",)
    fieldsets = (
        (None, {"fields": (("id", "enabled"), ("name", "vendor"), "description")}),
        (
            "Abilities",
            {
                "fields": (
                    ("context_length", "max_output_tokens"),
                    ("input_modalities", "output_modalities"),
                    ("tokenizer", "image_tokens"),
                    ("unsupported_parameters", "first_byte_timeout_s"),
                )
            },
        ),
        ("Limits of each organization on it", {"fields": (("requests_per_minute", "tokens_per_minute"),)}),
        ("Response cache", {"fields": ("cache_default", ("cache_ttl_s", "cache_share_ppm"))}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        prices = Prefetch("prices", in_force(timezone.now()), to_attr="prices_in_force")
        used = Count("routes", filter=Q(routes__enabled=True, routes__provider__enabled=True))
        return super().get_queryset(request).annotate(routes_number=used).prefetch_related(prices)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("id",) if obj else ()  # customers' requests and usage records name it

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return (RouteInline, PriceInline) if obj else (RouteInline,)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A model that never had a price was never sold, so it may go. Others are switched off."""
        return self.has_change_permission(request, obj) and obj is not None and not obj.prices.exists()

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        announce_on_commit("catalog")

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        super().delete_model(request, obj)
        announce_on_commit("catalog")

    @action(description="New price version", icon="sell")
    def new_price(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """To the form of a new version, with the current numbers filled in."""
        model_id = unquote(object_id)
        current = in_force(timezone.now()).filter(model=model_id).first()
        if current is not None:
            return redirect(reverse("console:catalog_priceversion_new_version", args=[current.pk]))
        return redirect(f"{reverse('console:catalog_priceversion_add')}?{urlencode({'model': model_id})}")

    @display(header=True, description="Model", ordering="id")
    def heading(self, row: Model) -> tuple[str, str]:
        return row.name, row.pk

    @display(description="Context / output", ordering="context_length")
    def limits(self, row: Model) -> str:
        return f"{row.context_length:,} / {row.max_output_tokens:,}"

    @display(description="Input / output, per million")
    def current_price(self, row: Any) -> str:
        if not row.prices_in_force:
            return "no price"
        current = row.prices_in_force[0]
        return f"{bucket_price(current, 'input')} / {bucket_price(current, 'output')}"

    @display(description="Routes", ordering="routes_number")
    def route_count(self, row: Any) -> int:
        return int(row.routes_number)
