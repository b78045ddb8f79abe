"""The console as an admin site of its own: who may enter, how they log in, what they see first."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from allauth.account.adapter import get_adapter
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.db.models import Model
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite

from apps.accounts.models import Project
from apps.console.access import is_operator
from apps.console.overview import read_overview

CONTENT_SECURITY_POLICY = (
    # The theme's scripts stand in its pages and evaluate expressions; all else is as strict as on the portal.
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "font-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)


class OperatorLoginForm(AuthenticationForm):
    """E-mail and password of an operator. Attempts are limited as on the portal, per address and account."""

    def clean(self) -> dict[str, Any]:
        email = self.cleaned_data.get("username")
        password = self.cleaned_data.get("password")
        if email and password:
            adapter = get_adapter(self.request)
            self.user_cache = adapter.authenticate(self.request, email=email, password=password)
            if self.user_cache is None:
                raise self.get_invalid_login_error()
            self.confirm_login_allowed(self.user_cache)
        return self.cleaned_data


class LabelledAutocomplete(AutocompleteJsonView):
    """Suggestions in select fields. Every organization has a project called Default: projects name theirs."""

    def serialize_result(self, obj: Model, to_field_name: str) -> dict[str, str]:
        return {**super().serialize_result(obj, to_field_name), "text": label(obj)}

    def get_queryset(self) -> Any:
        found = super().get_queryset()
        return found.select_related("organization") if found.model is Project else found


def label(row: Model) -> str:
    """What a row is called in a select field."""
    return f"{row.organization} / {row.name}" if isinstance(row, Project) else str(row)


def with_policy(response: HttpResponseBase) -> HttpResponseBase:
    """The response with the console's content security policy."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    return response


class ConsoleSite(UnfoldAdminSite):
    """Operators only. Bulk deletion does not exist here."""

    login_form = OperatorLoginForm
    index_title = "Overview"
    index_template = "console/overview.html"
    empty_value_display = "-"

    def __init__(self) -> None:
        super().__init__(name="console")
        self.disable_action("delete_selected")

    def has_permission(self, request: HttpRequest) -> bool:
        return is_operator(request.user)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:
        guarded = super().admin_view(view, cacheable)

        def page(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return with_policy(guarded(request, *args, **kwargs))

        return update_wrapper(page, guarded)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        return with_policy(super().login(request, extra_context))

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        overview = {"overview": read_overview(timezone.now())}
        return super().index(request, {**overview, **(extra_context or {})})

    def autocomplete_view(self, request: HttpRequest) -> HttpResponseBase:
        return LabelledAutocomplete.as_view(admin_site=self)(request)


console_site = ConsoleSite()
