"""Organizations and projects: the customers and what they are divided into."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.db.models import Count, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import StackedInline, TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminEmailInputWidget

from apps.accounts.limits import effective_limits
from apps.accounts.models import Membership, Organization, Project, User
from apps.accounts.organizations import create_organization
from apps.console.access import OperatorPermissions, ReadOnlyPermissions
from apps.console.figures import exact_usd, moment
from apps.console.limits import LIMITS_FIELDSET, PRIORITY_FIELDSET, LimitsAdmin, in_words
from apps.console.site import console_site
from apps.console.spending import month_start, spent_since
from apps.keys.models import ApiKey
from apps.policies.changing import announce_policy
from apps.policies.models import DataPolicy

OWN_LIMITS_FIELDSET = (
    LIMITS_FIELDSET[0],
    {**LIMITS_FIELDSET[1], "description": "They hold for all keys together. An empty one is the plan's."},
)


class OrganizationAddForm(forms.ModelForm):
    """A new organization, with an owner when one is known already."""

    owner = forms.EmailField(
        label="Owner's e-mail",
        required=False,
        widget=UnfoldAdminEmailInputWidget,
        help_text="Of somebody who has an account. Members can be added later, too.",
    )

    class Meta:
        model = Organization
        fields = ("name", "slug", "owner")

    def clean_owner(self) -> User | None:
        email = self.cleaned_data["owner"]
        owner = User.objects.filter(email__iexact=email).first() if email else None
        if email and owner is None:
            raise forms.ValidationError("Nobody has an account with this address.")
        return owner


class MembershipInline(OperatorPermissions, TabularInline):
    """Who belongs to the organization, and as what."""

    model = Membership
    fields = ("user", "role")
    autocomplete_fields = ("user",)
    extra = 0
    hide_title = True
    verbose_name_plural = "Members"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)


class DataPolicyInline(OperatorPermissions, StackedInline):
    """Where the organization lets its prompts go."""

    model = DataPolicy
    fields = (
        "regions",
        ("denies_collection", "requires_zero_retention", "forbids_copies", "forbids_storage"),
        "denied_providers",
    )
    extra = 0
    can_delete = False
    verbose_name_plural = "Where prompts may go"


class ProjectInline(ReadOnlyPermissions, TabularInline):
    """The organization's projects, to look at."""

    model = Project
    fields = readonly_fields = ("page", "slug", "created")
    extra = 0
    hide_title = True
    verbose_name_plural = "Projects"

    @display(description="Name")
    def page(self, row: Project) -> str:
        return link(reverse("console:accounts_project_change", args=[quote(row.pk)]), row.name)

    @display(description="Created (UTC)")
    def created(self, row: Project) -> str:
        return moment(row.created_at)


def count_of_keys(owner: str) -> Coalesce:
    """How many keys of each row of the outer query are not revoked."""
    active = ApiKey.objects.filter(Q(revoked_at=None), **{owner: OuterRef("pk")}).order_by()
    return Coalesce(Subquery(active.values(owner).annotate(number=Count("pk")).values("number")), 0)


def keys_link(count: int, **filters: str) -> SafeString:
    """The number of keys, leading to their list."""
    return link(f"{reverse('console:keys_apikey_changelist')}?{urlencode(filters)}", str(count))


def link(url: str, text: str) -> SafeString:
    """A link in the theme's colours."""
    return format_html('<a href="{}" class="text-link">{}</a>', url, text)


@admin.register(Organization, site=console_site)
class OrganizationAdmin(LimitsAdmin):
    """Customers with their members, projects, keys and what they spent this month."""

    list_display = ("heading", "plan", "project_count", "member_count", "keys", "spent", "created")
    list_filter = (("plan", AutocompleteSelectFilter),)
    list_select_related = ("plan",)
    search_fields = ("name", "slug", "id")
    autocomplete_fields = ("plan",)
    ordering = ("name",)
    actions_detail = ("add_project", "add_key")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        projects = Project.objects.filter(organization=OuterRef("pk")).order_by().values("organization")
        members = Membership.objects.filter(organization=OuterRef("pk")).order_by().values("organization")
        return (
            super()
            .get_queryset(request)
            .annotate(
                projects_number=Coalesce(Subquery(projects.annotate(number=Count("pk")).values("number")), 0),
                members_number=Coalesce(Subquery(members.annotate(number=Count("pk")).values("number")), 0),
                keys_number=count_of_keys("organization"),
                spent_nanos=spent_since(month_start(), owner="organization"),
            )
        )

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = {} if change else {"form": OrganizationAddForm}
        return super().get_form(request, obj, change, **{**form, **kwargs})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("name", "slug", "owner")})]
        return [
            (None, {"fields": (("name", "slug"), ("plan", "limits_in_force"), "id", "created")}),
            ("At a glance", {"fields": (("spent", "keys"),)}),
            OWN_LIMITS_FIELDSET,
            PRIORITY_FIELDSET,
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # The slug stands in customers' scripts, so it stays.
        return ("slug", "limits_in_force", "id", "created", "spent", "keys") if obj else ()

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return {} if obj else {"slug": ("name",)}

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return (MembershipInline, ProjectInline, DataPolicyInline) if obj else ()

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        obj.pk = create_organization(obj.name, slug=obj.slug, owner=form.cleaned_data["owner"]).pk
        obj.refresh_from_db()

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        if formset.model is DataPolicy and formset.has_changed():
            announce_policy(form.instance.pk)

    @display(description="Limits in force")
    def limits_in_force(self, row: Organization) -> str:
        return in_words(effective_limits(row))

    @display(header=True, description="Organization", ordering="name")
    def heading(self, row: Organization) -> tuple[str, str]:
        return row.name, row.slug

    @display(description="Projects", ordering="projects_number")
    def project_count(self, row: Any) -> int:
        return int(row.projects_number)

    @display(description="Members", ordering="members_number")
    def member_count(self, row: Any) -> int:
        return int(row.members_number)

    @display(description="Active keys", ordering="keys_number")
    def keys(self, row: Any) -> str:
        return keys_link(row.keys_number, organization__id__exact=row.pk)

    @display(description="Spent this month", ordering="spent_nanos")
    def spent(self, row: Any) -> str:
        return exact_usd(row.spent_nanos)

    @display(description="Created (UTC)", ordering="created_at")
    def created(self, row: Organization) -> str:
        return moment(row.created_at)

    @action(description="Add project", icon="create_new_folder")
    def add_project(self, request: HttpRequest, object_id: str) -> HttpResponse:
        query = urlencode({"organization": unquote(object_id)})
        return redirect(f"{reverse('console:accounts_project_add')}?{query}")

    @action(description="Create API key", icon="key")
    def add_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        project = Project.objects.for_organization(unquote(object_id)).order_by("created_at").first()
        query = urlencode({"project": project.pk}) if project else ""
        return redirect(f"{reverse('console:keys_apikey_add')}?{query}")


@admin.register(Project, site=console_site)
class ProjectAdmin(LimitsAdmin):
    """Projects of all organizations. Organization and slug stay: scripts and keys name them."""

    list_display = ("name", "organization", "slug", "keys", "spent", "created")
    list_filter = (("organization", AutocompleteSelectFilter),)
    list_select_related = ("organization",)
    search_fields = ("name", "slug", "organization__name", "organization__slug")
    autocomplete_fields = ("organization",)
    ordering = ("organization__name", "name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        spent = spent_since(month_start(), owner="project_id")
        return super().get_queryset(request).annotate(keys_number=count_of_keys("project"), spent_nanos=spent)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ("organization", "name", "slug")})]
        return [
            (None, {"fields": ("organization", ("name", "slug"), "id", "created")}),
            ("At a glance", {"fields": (("spent", "keys"),)}),
            LIMITS_FIELDSET,
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("organization", "slug", "id", "created", "spent", "keys") if obj else ()

    def get_prepopulated_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return {} if obj else {"slug": ("name",)}

    @display(description="Active keys", ordering="keys_number")
    def keys(self, row: Any) -> str:
        return keys_link(row.keys_number, project__id__exact=row.pk)

    @display(description="Spent this month", ordering="spent_nanos")
    def spent(self, row: Any) -> str:
        return exact_usd(row.spent_nanos)

    @display(description="Created (UTC)", ordering="created_at")
    def created(self, row: Project) -> str:
        return moment(row.created_at)
