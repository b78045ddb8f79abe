"""The start page and the making of organizations: what a person sees outside any organization."""

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from apps.accounts.models import User
from apps.accounts.organizations import create_organization
from apps.portal.access import memberships_of
from apps.portal.forms import OrganizationForm

LAST_ORGANIZATION = "last_organization"


@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """Visitors see what this is; members go on to the organization that they worked in last."""
    if not isinstance(request.user, User):
        return render(request, "portal/start.html", {"public_url": settings.PUBLIC_URL})
    slugs = [membership.organization.slug for membership in memberships_of(request.user)]
    if not slugs:
        return redirect("portal:create_organization")
    last = request.session.get(LAST_ORGANIZATION)
    return redirect("portal:overview", slug=last if last in slugs else slugs[0])


@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    """A new organization, owned by whoever asks."""
    if not isinstance(request.user, User):
        return redirect_to_login(request.get_full_path())
    form = OrganizationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        organization = create_organization(form.cleaned_data["name"], owner=request.user)
        return redirect("portal:overview", slug=organization.slug)
    has_organization = bool(memberships_of(request.user))
    status = 422 if form.is_bound else 200
    return render(
        request,
        "portal/create_organization.html",
        {"form": form, "has_organization": has_organization},
        status=status,
    )
