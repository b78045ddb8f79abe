"""Providers: where requests go. Their API keys can be entered here, but never seen."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST
from unfold.decorators import display
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldBooleanSwitchWidget

from apps.catalog.base_urls import base_url_problem
from apps.catalog.credentials import is_bound_to, store_credential
from apps.catalog.dialects import option_problems
from apps.catalog.document import OWN_SECRET
from apps.catalog.models import Provider
from apps.console.access import ConsoleAdmin
from apps.console.connection import SENDABLE_KEY, asked_address, check_connection, untested
from apps.console.credentials import credential_state
from apps.console.maintenance import MAINTENANCE_FIELDS, maintenance_words
from apps.console.provider_options import OptionsField
from apps.console.site import console_site
from apps.core.changes import announce_on_commit

KEY_COLORS = {"default": "default", "success": "success", "warning": "warning", "danger": "danger"}


class ProviderForm(forms.ModelForm):
    """A provider and, written but never read, its API key."""

    api_key = forms.CharField(
        label="New API key",
        required=False,
        max_length=1000,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Stored encrypted and never shown again. Leave empty to keep what is stored.",
    )
    remove_api_key = forms.BooleanField(
        label="Remove the stored API key", required=False, widget=UnfoldBooleanSwitchWidget
    )

    options = OptionsField(required=False)

    class Meta:
        model = Provider
        fields = (
            "id",
            "name",
            "dialect",
            "base_url",
            "options",
            "api_key_env",
            "enabled",
            "sandbox",
            "output_limit_field",
            "region",
            "collects_data",
            "zero_retention",
            *MAINTENANCE_FIELDS,
        )

    def clean_base_url(self) -> str:
        base_url = str(self.cleaned_data["base_url"]).rstrip("/")
        if problem := base_url_problem(base_url, settings.PRIVATE_UPSTREAMS):
            raise forms.ValidationError(f"The address {problem}.")
        return base_url

    def clean_api_key(self) -> str:
        api_key = str(self.cleaned_data["api_key"])
        if not SENDABLE_KEY.fullmatch(api_key):
            raise forms.ValidationError("An API key has no spaces and only printable ASCII characters.")
        return api_key

    def clean_api_key_env(self) -> str:
        name = str(self.cleaned_data["api_key_env"])
        if OWN_SECRET.fullmatch(name):
            raise forms.ValidationError("This variable holds a secret of CRUN itself.")
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("api_key") and cleaned.get("remove_api_key"):
            self.add_error("remove_api_key", "Either enter a new API key or remove the stored one.")
        if "dialect" in cleaned and "options" in cleaned:
            for name, problem in option_problems(cleaned["dialect"], cleaned["options"]):
                self.add_error("options", f"{name} {problem}.")
        return cleaned


@admin.register(Provider, site=console_site)
class ProviderAdmin(ConsoleAdmin):
    """Upstream accounts."""

    form = ProviderForm
    list_display = ("heading", "dialect", "base_url", "key_label", "route_count", "enabled")
    list_editable = ("enabled",)
    search_fields = ("id", "name", "base_url")
    ordering = ("id",)
    # Django's form field for addresses accepts more than can work and less than is needed: see ProviderForm.
    change_form_outer_before_template = "console/provider_connection.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        used = Count("routes", filter=Q(routes__enabled=True))
        return super().get_queryset(request).annotate(routes_number=used)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        removal = ("remove_api_key",) if obj is not None and obj.credential else ()
        return [
            (
                None,
                {
                    "fields": (
                        ("id", "name"),
                        ("dialect", "enabled"),
                        "base_url",
                        "options",
                        "output_limit_field",
                        "sandbox",
                    )
                },
            ),
            (
                "Maintenance",
                {
                    "description": "No new request goes to the provider in this window; running ones go on.",
                    "fields": MAINTENANCE_FIELDS,
                },
            ),
            (
                "What becomes of prompts there",
                {
                    "description": "Customers may forbid their prompts to go there by what is said here.",
                    "fields": ("region", ("collects_data", "zero_retention")),
                },
            ),
            (
                "API key",
                {
                    "description": "A stored key is bound to the host above: changing the host removes it.",
                    "fields": (*(("key_state",) if obj else ()), ("api_key", "api_key_env"), *removal),
                },
            ),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("id", "key_state") if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A provider may go that no route uses, and for which no organization has a key of its own."""
        if obj is None or not self.has_change_permission(request, obj):
            return False
        return not obj.routes.exists() and not obj.own_credentials.exists()

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        api_key = form.cleaned_data.get("api_key", "")
        stored = Provider.objects.select_for_update().get(pk=obj.pk) if change else None
        moved = stored is not None and bool(stored.credential) and not is_bound_to(stored, obj.base_url)
        if api_key:
            store_credential(obj, api_key)
        elif moved or form.cleaned_data.get("remove_api_key"):
            store_credential(obj, "")
        super().save_model(request, obj, form, change)
        announce_on_commit("catalog")
        if moved and not api_key:
            messages.warning(
                request,
                "The stored API key was removed: it was bound to another host. Enter the one for this host.",
            )

    def delete_model(self, request: HttpRequest, obj: Provider) -> None:
        super().delete_model(request, obj)
        announce_on_commit("catalog")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Beside the button stands what the connection test asks, as saved: the form may hold something else."""
        provider = self.get_object(request, unquote(object_id))
        connection = {"asked": asked_address(provider), "untested": untested(provider)} if provider else {}
        return super().change_view(request, object_id, form_url, {**connection, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        view = require_POST(self.admin_site.admin_view(self.test_connection))
        return [path("<path:object_id>/test/", view, name="catalog_provider_test"), *super().get_urls()]

    def test_connection(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Runs the test on what is saved; answers with a fragment for htmx, with a message otherwise."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        provider = self.get_object(request, unquote(object_id))
        if provider is None:
            raise Http404
        report = check_connection(provider)
        if request.headers.get("HX-Request"):
            return render(request, "console/connection_report.html", {"report": report})
        sentence = f"{report.headline} {report.detail}".strip()
        messages.add_message(request, _MESSAGE_LEVELS[report.level], sentence)
        return HttpResponseRedirect(reverse("console:catalog_provider_change", args=[object_id]))

    @display(header=True, description="Provider", ordering="id")
    def heading(self, row: Provider) -> tuple[str, str]:
        return row.name or row.pk, ", ".join(filter(None, (row.pk, maintenance_words(row, timezone.now()))))

    @display(description="API key", label=KEY_COLORS)
    def key_label(self, row: Provider) -> tuple[str, str]:
        state = credential_state(row)
        return state.variant, state.label

    @display(description="API key in use")
    def key_state(self, row: Provider) -> str:
        return credential_state(row).label

    @display(description="Routes", ordering="routes_number")
    def route_count(self, row: Any) -> int:
        return int(row.routes_number)


_MESSAGE_LEVELS = {"success": messages.SUCCESS, "warning": messages.WARNING, "error": messages.ERROR}
