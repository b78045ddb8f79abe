"""API keys: a new one is shown once, an old one can be limited or revoked; nothing else of it can be edited."""

from datetime import datetime
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.db.models import Case, CharField, Model, Q, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RadioFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from apps.accounts.models import User
from apps.console.access import ConsoleAdmin
from apps.console.figures import moment
from apps.console.limits import LIMITS_FIELDSET, PRIORITY_FIELDSET, in_words
from apps.console.site import console_site, label
from apps.core.brake_fields import BRAKE_FIELDS
from apps.core.limit_fields import LIMIT_FIELDS
from apps.keys.issuing import IssuedKey, create_key, revoke_key, set_limits, set_priority
from apps.keys.models import ApiKey
from apps.keys.pausing import resume_key, set_brake

STATES = {"Active": "success", "Paused": "danger", "Expired": "warning", "Revoked": "danger"}


FIXED = (
    "name",
    "redacted",
    "organization",
    "project",
    "id",
    "kind",
    "state",
    "limits_in_words",
    "created",
    "created_by",
    "expires",
    "revoked",
)
"""What never changes by hand."""
BRAKE_FIELDSET = ("Brake", {"fields": (BRAKE_FIELDS,)})
SETTABLE = [LIMITS_FIELDSET, BRAKE_FIELDSET, PRIORITY_FIELDSET]
"""What may change of a key while it works."""
LIMITS_IN_WORDS_FIELDSET = ("Limits", {"fields": ("limits_in_words",)})


class IssuingRequest(HttpRequest):
    """The request that made a key carries it to its own answer; nothing else ever holds the secret."""

    issued: IssuedKey


class LabelledChoiceField(forms.ModelChoiceField):
    """A select field that calls projects by their organization, too."""

    def label_from_instance(self, obj: Model) -> str:
        return label(obj)


class KeyForm(forms.ModelForm):
    """What one may decide about a new key."""

    class Meta:
        model = ApiKey
        fields = ("project", "name", "expires_at", "sandbox", *LIMIT_FIELDS, *BRAKE_FIELDS, "priority")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        is_sandbox = cleaned["sandbox"] if "sandbox" in self.fields else self.instance.sandbox
        if is_sandbox and cleaned.get("budget_nanos") is not None:
            self.add_error("budget_nanos", "A sandbox key spends no money, so it has no budget.")
        return cleaned

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("A key cannot expire in the past.")
        return expires_at


class StateFilter(RadioFilter):
    """Keys that work, or no longer do."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state_name=self.value()) if self.value() in STATES else queryset


@admin.register(ApiKey, site=console_site)
class ApiKeyAdmin(ConsoleAdmin):
    """All keys by their redacted form."""

    form = KeyForm
    list_display = ("heading", "organization", "project_name", "kind", "state", "limits_in_words", "created", "expires")
    list_filter = (
        StateFilter,
        "sandbox",
        ("organization", AutocompleteSelectFilter),
        ("project", AutocompleteSelectFilter),
    )
    list_select_related = ("organization", "project", "created_by")
    search_fields = ("name", "id", "last_four", "organization__name", "organization__slug")
    autocomplete_fields = ("project",)
    ordering = ("-created_at",)
    actions = ("revoke_selected",)
    actions_detail = ("resume", "revoke")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        state = Case(
            When(Q(revoked_at__isnull=False), then=Value("Revoked")),
            When(Q(expires_at__lte=timezone.now()), then=Value("Expired")),
            When(Q(paused_at__isnull=False), then=Value("Paused")),
            default=Value("Active"),
            output_field=CharField(),
        )
        return super().get_queryset(request).annotate(state_name=state)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("project", "name", "expires_at", "sandbox")}), *SETTABLE]
        may_change = self.has_change_permission(request, obj)
        return [
            (None, {"fields": (("name", "redacted"), ("organization", "project"), "id", ("state", "kind"))}),
            *(SETTABLE if may_change else [LIMITS_IN_WORDS_FIELDSET]),
            ("History", {"fields": (("created", "created_by"), ("expires", "revoked"))}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return FIXED if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The limits of a key that still works."""
        return super().has_change_permission(request, obj) and (obj is None or obj.revoked_at is None)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return super().formfield_for_foreignkey(db_field, request, form_class=LabelledChoiceField, **kwargs)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            set_limits(obj, obj.limits)
            set_brake(obj, obj.brake_nanos, minutes=obj.brake_minutes)
            if "priority" in form.changed_data:
                set_priority(obj, obj.priority)
            return
        operator = cast(User, request.user)
        issued = create_key(
            obj.project,
            name=obj.name,
            created_by=operator,
            expires_at=obj.expires_at,
            limits=obj.limits,
            sandbox=obj.sandbox,
        )
        set_brake(issued.key, obj.brake_nanos, minutes=obj.brake_minutes)
        set_priority(issued.key, obj.priority)
        obj.pk = issued.key.pk
        obj.refresh_from_db()
        cast(IssuingRequest, request).issued = issued

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> HttpResponse:
        """The one page that shows the secret. Like all of the console it is not kept by browsers."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Key created",
            "opts": self.opts,
            "key": obj,
            "secret": cast(IssuingRequest, request).issued.secret,
            "base_url": f"{settings.PUBLIC_URL}/api/v1",
        }
        return TemplateResponse(request, "console/key_issued.html", context)

    def has_revoke_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Operators may revoke; a key that is revoked already offers no button."""
        if object_id is None:
            return self.has_add_permission(request)
        working = ApiKey.objects.filter(pk=unquote(object_id), revoked_at=None)
        return self.has_add_permission(request) and working.exists()

    def has_resume_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Only a paused key offers the button."""
        paused = ApiKey.objects.filter(revoked_at=None, paused_at__isnull=False)
        return self.has_add_permission(request) and (object_id is None or paused.filter(pk=unquote(object_id)).exists())

    @action(description="Resume", icon="play_arrow", permissions=["resume"])
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, and on POST let the paused key work again."""
        key = ApiKey.objects.select_related("organization").get(pk=unquote(object_id))
        if request.method == "POST":
            resume_key(key)
            self.log_change(request, key, "Resumed.")
            messages.success(request, f"{key.name} works again; its brake counts from now on.")
            return HttpResponseRedirect(reverse("console:keys_apikey_change", args=[object_id]))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Resume {key.name}",
            "opts": self.opts,
            "key": key,
        }
        return TemplateResponse(request, "console/resume_key.html", context)

    @action(description="Revoke", icon="block", variant=ActionVariant.DANGER, permissions=["revoke"])
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, and on POST do it."""
        return self._revoke(request, ApiKey.objects.filter(pk=unquote(object_id)))

    @admin.action(description="Revoke the selected keys", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        return self._revoke(request, queryset)

    def _revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        keys = list(queryset.filter(revoked_at=None).select_related("organization", "project"))
        if request.method == "POST" and "confirmed" in request.POST:
            for key in keys:
                revoke_key(key)
                self.log_change(request, key, "Revoked.")
            count = f"{len(keys)} key{'' if len(keys) == 1 else 's'}"
            messages.success(request, f"{count} revoked: every gateway refuses them within a second.")
            return HttpResponseRedirect(reverse("console:keys_apikey_changelist"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Revoke keys" if len(keys) != 1 else f"Revoke {keys[0].name}",
            "opts": self.opts,
            "keys": keys,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "console/revoke_keys.html", context)

    @display(header=True, description="Key", ordering="name")
    def heading(self, row: ApiKey) -> tuple[str, str]:
        return row.name, row.redacted

    @display(description="Limits")
    def limits_in_words(self, row: ApiKey) -> str:
        return in_words(row.limits)

    @display(description="Project", ordering="project__name")
    def project_name(self, row: ApiKey) -> str:
        return row.project.name

    @display(description="Kind", label={"Live": "info", "Sandbox": "default"}, ordering="sandbox")
    def kind(self, row: ApiKey) -> str:
        return "Sandbox" if row.sandbox else "Live"

    @display(description="State", label=STATES)
    def state(self, row: Any) -> str:
        return str(row.state_name)

    @display(description="Created (UTC)", ordering="created_at")
    def created(self, row: ApiKey) -> str:
        return moment(row.created_at)

    @display(description="Expires (UTC)", ordering="expires_at")
    def expires(self, row: ApiKey) -> str:
        return moment(row.expires_at) or "never"

    @display(description="Revoked (UTC)", ordering="revoked_at")
    def revoked(self, row: ApiKey) -> str:
        return moment(row.revoked_at) or "no"
