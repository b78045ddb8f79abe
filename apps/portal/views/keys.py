"""API keys: the list, a new key whose secret is shown this once, and revocation."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.cache import patch_cache_control

from apps.accounts.limits import effective_priority
from apps.accounts.roles import Capability
from apps.core.limits import spoken_limits
from apps.core.priorities import Priority, priority_of_key
from apps.keys.issuing import IssuedKey, create_key, revoke_key
from apps.keys.models import ApiKey
from apps.keys.pausing import spoken_brake
from apps.portal.access import Access, organization_page
from apps.portal.forms import KeyForm
from apps.portal.pages import render_page
from apps.usage.reports import Sums, last_days, last_used_hours, sums_by

SPEND_DAYS = 30
LAST_USED_DAYS = 90


@organization_page(get=Capability.VIEW_USAGE, post=Capability.MANAGE_KEYS)
def keys(request: HttpRequest, access: Access) -> HttpResponse:
    """The keys of the organization; a POST makes one and is answered with its secret, this only time."""
    if request.method != "POST":
        return _page(request, access, KeyForm(access.organization))
    form = KeyForm(access.organization, request.POST)
    if not form.is_valid():
        return _page(request, access, form, status=422)
    issued = create_key(
        form.cleaned_data["project"],
        name=form.cleaned_data["name"],
        created_by=access.user,
        expires_at=form.expires_at(),
        limits=form.limits(),
        sandbox=form.cleaned_data["sandbox"],
    )
    return _page(request, access, KeyForm(access.organization), issued=issued)


@organization_page(get=Capability.MANAGE_KEYS, post=Capability.MANAGE_KEYS)
def revoke(request: HttpRequest, access: Access, key_id: str) -> HttpResponse:
    """Asks, then revokes."""
    key = ApiKey.objects.for_organization(access.organization.id).select_related("project").filter(pk=key_id).first()
    if key is None:
        raise Http404
    if request.method == "POST":
        revoke_key(key)
        messages.success(request, f"The key “{key.name}” is revoked. Requests with it are refused from now on.")
        return redirect("portal:keys", slug=access.organization.slug)
    return render_page(request, access, "portal/revoke_key.html", {"key": key, "section": "keys"})


def _page(
    request: HttpRequest, access: Access, form: KeyForm, *, issued: IssuedKey | None = None, status: int = 200
) -> HttpResponse:
    now = timezone.now()
    organization_id = access.organization.id
    spent = sums_by(organization_id, last_days(SPEND_DAYS, now), "key_id")  # live: sandbox keys spend nothing
    used = last_used_hours(organization_id, last_days(LAST_USED_DAYS, now))
    rows = [
        {
            "key": key,
            "state": _state(key),
            "limits": [*spoken_limits(key.limits), *filter(None, [_brake(key, access), _priority(key, access)])],
            "spent": spent.get(key.id, Sums()),
            "last_used": used.get(key.id),
        }
        for key in ApiKey.objects.for_organization(organization_id).select_related("project").order_by("-created_at")
    ]
    context = {
        "form": form,
        "issued": issued,
        "active": [row for row in rows if row["state"] == "active"],
        "ended": [row for row in rows if row["state"] != "active"],
        "spend_days": SPEND_DAYS,
        "last_used_days": LAST_USED_DAYS,
    }
    response = render_page(request, access, "portal/keys.html", context, status=status)
    if issued is not None:
        patch_cache_control(response, no_store=True)
    return response


def _brake(key: ApiKey, access: Access) -> str:
    """The key's own brake in words, or its plan's."""
    plan = access.organization.plan
    if key.brake_nanos is None and plan is not None:
        return spoken_brake(plan.brake_nanos, plan.brake_minutes)
    return spoken_brake(key.brake_nanos, key.brake_minutes)


def _priority(key: ApiKey, access: Access) -> str:
    """In words, where it is another one than most keys have."""
    priority = priority_of_key(key.priority, effective_priority(access.organization))
    return "" if priority is Priority.NORMAL else f"{priority.spoken} priority"


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= timezone.now() else "active"
