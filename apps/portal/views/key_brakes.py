"""The brake and the priority of a key: setting them, and letting a paused key work again."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from apps.accounts.limits import effective_priority
from apps.accounts.roles import Capability
from apps.core.errors import Conflict, InvalidInput
from apps.core.limit_fields import sentence
from apps.keys.issuing import set_priority
from apps.keys.models import ApiKey
from apps.keys.pausing import resume_key, set_brake
from apps.portal.access import Access, organization_page
from apps.portal.alert_forms import BrakeForm
from apps.portal.pages import render_page


@organization_page(post=Capability.MANAGE_KEYS)
def resume(request: HttpRequest, access: Access, key_id: str) -> HttpResponse:
    """One click: the key works again."""
    key = _key(access, key_id)
    try:
        resume_key(key)
        messages.success(request, f"The key “{key.name}” works again. Its brake counts from now on.")
    except Conflict:
        messages.error(request, f"The key “{key.name}” is revoked; it cannot be resumed.")
    return redirect("portal:keys", slug=access.organization.slug)


@organization_page(get=Capability.MANAGE_KEYS, post=Capability.MANAGE_KEYS)
def key_brake(request: HttpRequest, access: Access, key_id: str) -> HttpResponse:
    """How fast the key may spend, and how long it is served under load."""
    key = _key(access, key_id)
    most = effective_priority(access.organization)
    initial = {
        "brake_usd": key.brake_nanos,
        "brake_minutes": key.brake_minutes,
        "priority": key.priority if key.priority is not None and key.priority < most else "",
    }
    form = BrakeForm(request.POST or None, initial=initial, most=most)
    if request.method == "POST" and form.is_valid():
        try:
            set_brake(key, form.cleaned_data["brake_usd"], minutes=form.cleaned_data["brake_minutes"])
            set_priority(key, form.cleaned_data["priority"])
        except InvalidInput as error:
            form.add_error(None, sentence(error))
        else:
            messages.success(request, f"Brake and priority of the key “{key.name}” are set.")
            return redirect("portal:keys", slug=access.organization.slug)
    context = {"key": key, "form": form, "plan": access.organization.plan, "section": "keys"}
    return render_page(request, access, "portal/key_brake.html", context, status=422 if form.is_bound else 200)


def _key(access: Access, key_id: str) -> ApiKey:
    rows = ApiKey.objects.for_organization(access.organization.id).select_related("project")
    key: ApiKey | None = rows.filter(pk=key_id).first()
    if key is None:
        raise Http404
    return key
