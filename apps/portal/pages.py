"""Rendering an organization's page: what every template of the shell needs."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_cache_control, patch_vary_headers

from apps.portal.access import Access, memberships_of


def render_page(
    request: HttpRequest,
    access: Access,
    template: str,
    context: dict[str, Any],
    *,
    status: int = 200,
) -> HttpResponse:
    """The page inside the shell of the organization. Browsers ask again each time; shared caches keep nothing."""
    shell = {
        "access": access,
        "organization": access.organization,
        "memberships": memberships_of(access.user),
    }
    response = render(request, template, shell | context, status=status)
    patch_cache_control(response, private=True, no_cache=True)
    patch_vary_headers(response, ["Cookie", "HX-Request"])
    return response
