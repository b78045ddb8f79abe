"""Who may open which page: the one place that resolves an organization and a capability."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Concatenate

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase

from apps.accounts.models import Membership, Organization, User
from apps.accounts.roles import CAPABILITIES, Capability, Role, may


@dataclass(frozen=True)
class Access:
    """A signed-in member at work in one organization."""

    user: User
    organization: Organization
    role: str

    @property
    def capabilities(self) -> frozenset[Capability]:
        """For templates: `{% if "manage_keys" in access.capabilities %}`."""
        return CAPABILITIES.get(Role(self.role), frozenset()) if self.role in set(Role) else frozenset()

    @property
    def role_name(self) -> str:
        return self.role.title()


PageView = Callable[Concatenate[HttpRequest, Access, ...], HttpResponseBase]


class OrganizationPage:
    """A view below `/o/<slug>/`, called with the member's Access; it states what each method requires.

    Nobody signed in: to the login page. Not a member, or no such organization: 404, the same for both.
    A member without the capability: 403."""

    def __init__(self, view: PageView, requires: dict[str, Capability]) -> None:
        self.requires = requires
        self._view = view
        update_wrapper(self, view)

    def __call__(self, request: HttpRequest, slug: str, **parameters: Any) -> HttpResponseBase:
        user = request.user
        if not isinstance(user, User):
            return _to_login(request)
        access = _resolve(user, slug)
        capability = self.requires.get("GET" if request.method == "HEAD" else str(request.method))
        if capability is None:
            return HttpResponseNotAllowed(self.requires)
        if not may(access.role, capability):
            raise PermissionDenied
        return self._view(request, access, **parameters)


def organization_page(**requires: Capability) -> Callable[[PageView], OrganizationPage]:
    """Decorator of every organization's page: `@organization_page(get=..., post=...)`."""
    methods = {method.upper(): capability for method, capability in requires.items()}
    return lambda view: OrganizationPage(view, methods)


def memberships_of(user: User) -> list[Membership]:
    """The user's memberships with their organizations, by the organization's name."""
    return list(Membership.objects.filter(user=user).select_related("organization").order_by("organization__name"))


def _resolve(user: User, slug: str) -> Access:
    membership = Membership.objects.filter(user=user, organization__slug=slug).select_related("organization").first()
    if membership is None:
        raise Http404
    return Access(user=user, organization=membership.organization, role=membership.role)


def _to_login(request: HttpRequest) -> HttpResponse:
    """To the login page and back. What a script asked for as a part of a page moves the whole window."""
    redirect = redirect_to_login(request.get_full_path())
    if request.headers.get("HX-Request") != "true":
        return redirect
    return HttpResponse(status=204, headers={"HX-Redirect": redirect.url})
