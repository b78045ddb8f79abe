"""An organization's name, members and projects."""

from django.conf import settings as installation
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from apps.accounts.models import Membership, Project
from apps.accounts.roles import CAPABILITIES, Capability
from apps.policies.changing import save_data_policy
from apps.policies.reading import read_data_rules
from apps.portal.access import Access, organization_page
from apps.portal.data_forms import DataPolicyForm
from apps.portal.forms import OrganizationForm, ProjectForm
from apps.portal.pages import render_page
from apps.responses.forgetting import erase, kept_by

ROLE_WORDS = {
    Capability.VIEW_USAGE: "see usage and models",
    Capability.MANAGE_KEYS: "create and revoke keys",
    Capability.MANAGE_MEMBERS: "manage members",
    Capability.MANAGE_BILLING: "manage billing",
    Capability.MANAGE_ORGANIZATION: "change the organization and its projects",
}


@organization_page(get=Capability.VIEW_USAGE, post=Capability.MANAGE_ORGANIZATION)
def settings(request: HttpRequest, access: Access) -> HttpResponse:
    """The settings; a POST renames the organization. Its slug, and so its address, stays."""
    if request.method != "POST":
        return _page(request, access)
    form = OrganizationForm(request.POST, prefix="organization")
    if not form.is_valid():
        return _page(request, access, rename=form, status=422)
    access.organization.name = form.cleaned_data["name"]
    access.organization.save(update_fields=["name"])
    messages.success(request, "The organization has a new name.")
    return redirect("portal:settings", slug=access.organization.slug)


@organization_page(post=Capability.MANAGE_ORGANIZATION)
def create_project(request: HttpRequest, access: Access) -> HttpResponse:
    """A new project, for keys and usage to belong to."""
    form = ProjectForm(access.organization, request.POST, prefix="project")
    if not form.is_valid():
        return _page(request, access, project=form, status=422)
    project = form.save()
    messages.success(request, f"The project “{project.name}” is there. Choose it when you create a key.")
    return redirect("portal:settings", slug=access.organization.slug)


@organization_page(post=Capability.MANAGE_ORGANIZATION)
def data_policy(request: HttpRequest, access: Access) -> HttpResponse:
    """Where the organization's prompts may go, from now on."""
    form = DataPolicyForm(access.organization.id, request.POST, prefix="data")
    if not form.is_valid():
        return _page(request, access, data=form, status=422)
    save_data_policy(form.decided(), user=access.user)
    messages.success(request, "Saved. It holds for every request from now on.")
    return redirect("portal:settings", slug=access.organization.slug)


@organization_page(get=Capability.MANAGE_ORGANIZATION, post=Capability.MANAGE_ORGANIZATION)
def erase_responses(request: HttpRequest, access: Access) -> HttpResponse:
    """Asks, then deletes all responses and conversations that the organization has stored."""
    if request.method == "POST":
        erased = erase(access.organization.id)
        messages.success(request, f"Deleted: {_counted(*erased)}. Nothing is left.")
        return redirect("portal:settings", slug=access.organization.slug)
    kept = kept_by(access.organization.id)
    return render_page(request, access, "portal/erase_responses.html", {"kept": kept, "section": "settings"})


def _counted(responses: int, conversations: int) -> str:
    said = f"{responses} stored response{'' if responses == 1 else 's'}"
    return f"{said} and {conversations} conversation{'' if conversations == 1 else 's'}" if conversations else said


def _page(
    request: HttpRequest,
    access: Access,
    *,
    rename: OrganizationForm | None = None,
    project: ProjectForm | None = None,
    data: DataPolicyForm | None = None,
    status: int = 200,
) -> HttpResponse:
    organization = access.organization
    members = Membership.objects.for_organization(organization.id).select_related("user").order_by("user__email")
    context = {
        "rename_form": rename or OrganizationForm(initial={"name": organization.name}, prefix="organization"),
        "data_form": data or DataPolicyForm(organization.id, prefix="data"),
        "data_rules": read_data_rules(organization.id),
        "kept": kept_by(organization.id),
        "kept_days": installation.RESPONSES_DAYS,
        "project_form": project or ProjectForm(organization, prefix="project"),
        "members": members,
        "projects": Project.objects.for_organization(organization.id).order_by("created_at"),
        "roles": [
            (role.value.title(), [ROLE_WORDS[capability] for capability in Capability if capability in held])
            for role, held in CAPABILITIES.items()
        ],
    }
    return render_page(request, access, "portal/settings.html", context, status=status)
