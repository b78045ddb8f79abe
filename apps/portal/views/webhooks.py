"""Webhook endpoints of an organization: where they go, their secrets, and what was sent to them."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.cache import patch_cache_control

from apps.accounts.roles import Capability
from apps.billing.alerts import endpoints
from apps.billing.models import WebhookDelivery, WebhookEndpoint
from apps.core.errors import Conflict
from apps.portal.access import Access, organization_page
from apps.portal.alert_forms import EndpointForm
from apps.portal.pages import render_page

DELIVERIES_SHOWN = 50
SCHEME_URL = "https://www.standardwebhooks.com/"
"""Where the way of signing is described."""
MANAGE = Capability.MANAGE_ORGANIZATION


@organization_page(get=MANAGE, post=MANAGE)
def webhooks(request: HttpRequest, access: Access) -> HttpResponse:
    """The endpoints; a POST makes one and is answered with its secret, this only time."""
    if request.method != "POST":
        return _list(request, access, EndpointForm())
    form = EndpointForm(request.POST)
    if not form.is_valid():
        return _list(request, access, form, status=422)
    chosen = form.cleaned_data
    try:
        endpoint, secret = endpoints.create_endpoint(
            access.organization, chosen["url"], kinds=chosen["kinds"], description=chosen["description"]
        )
    except Conflict as error:
        form.add_error(None, f"{error.message[:1].upper()}{error.message[1:]}.")
        return _list(request, access, form, status=422)
    return _one(request, access, endpoint, secret=secret)


@organization_page(get=MANAGE, post=MANAGE)
def webhook(request: HttpRequest, access: Access, endpoint_id: str) -> HttpResponse:
    """One endpoint with its deliveries; a POST changes it. `before` in the address pages the deliveries."""
    endpoint = _endpoint(access, endpoint_id)
    if request.method != "POST":
        return _one(request, access, endpoint)
    form = EndpointForm(request.POST)
    if not form.is_valid():
        return _one(request, access, endpoint, form=form, status=422)
    chosen = form.cleaned_data
    endpoints.change_endpoint(endpoint, url=chosen["url"], kinds=chosen["kinds"], description=chosen["description"])
    messages.success(request, "The endpoint is changed.")
    return _back(access, endpoint)


@organization_page(post=MANAGE)
def rotate_webhook(request: HttpRequest, access: Access, endpoint_id: str) -> HttpResponse:
    """A new secret beside the old one, shown this only time; or the end of the old one."""
    endpoint = _endpoint(access, endpoint_id)
    if "end" in request.POST:
        endpoints.drop_previous_secret(endpoint)
        messages.success(request, "The old secret no longer signs.")
        return _back(access, endpoint)
    try:
        secret = endpoints.rotate_secret(endpoint)
    except Conflict as error:
        return _refused(request, access, endpoint, error)
    endpoint.refresh_from_db()
    return _one(request, access, endpoint, secret=secret)


@organization_page(post=MANAGE)
def switch_webhook(request: HttpRequest, access: Access, endpoint_id: str) -> HttpResponse:
    """Switch the endpoint on or off."""
    endpoint = _endpoint(access, endpoint_id)
    is_on = request.POST.get("on") == "yes"
    endpoints.switch(endpoint, on=is_on, reason="" if is_on else f"Switched off by {access.user.email}.")
    messages.success(request, f"The endpoint is {'on' if is_on else 'off'}.")
    return _back(access, endpoint)


@organization_page(post=MANAGE)
def send_test_event(request: HttpRequest, access: Access, endpoint_id: str) -> HttpResponse:
    """Send a test event."""
    endpoint = _endpoint(access, endpoint_id)
    try:
        endpoints.send_test(endpoint)
    except Conflict as error:
        return _refused(request, access, endpoint, error)
    messages.success(request, "A test event is on its way. Reload in a few seconds to see how it ended.")
    return _back(access, endpoint)


@organization_page(get=MANAGE, post=MANAGE)
def delete_webhook(request: HttpRequest, access: Access, endpoint_id: str) -> HttpResponse:
    """Asks, then forgets the endpoint and what was sent to it."""
    endpoint = _endpoint(access, endpoint_id)
    if request.method == "POST":
        endpoint.delete()
        messages.success(request, "The endpoint is deleted.")
        return redirect("portal:webhooks", slug=access.organization.slug)
    return render_page(request, access, "portal/delete_webhook.html", {"endpoint": endpoint, "section": "webhooks"})


@organization_page(post=MANAGE)
def replay_webhook(request: HttpRequest, access: Access, message_id: str) -> HttpResponse:
    """Send a message again."""
    rows = WebhookDelivery.objects.for_organization(access.organization.id).select_related("endpoint")
    delivery: WebhookDelivery | None = rows.filter(pk=message_id).first()
    if delivery is None:
        raise Http404
    try:
        endpoints.replay(delivery)
    except Conflict as error:
        return _refused(request, access, delivery.endpoint, error)
    messages.success(request, "The message is on its way again, with the same id.")
    return _back(access, delivery.endpoint)


def _list(request: HttpRequest, access: Access, form: EndpointForm, *, status: int = 200) -> HttpResponse:
    rows = WebhookEndpoint.objects.for_organization(access.organization.id)
    return render_page(
        request,
        access,
        "portal/webhooks.html",
        {"endpoints": rows, "form": form, "scheme_url": SCHEME_URL, "section": "webhooks"},
        status=status,
    )


def _one(
    request: HttpRequest,
    access: Access,
    endpoint: WebhookEndpoint,
    *,
    form: EndpointForm | None = None,
    secret: str = "",
    status: int = 200,
) -> HttpResponse:
    before = request.GET.get("before", "")
    rows = WebhookDelivery.objects.for_organization(access.organization.id).filter(endpoint=endpoint)
    found = list((rows.filter(pk__lt=before) if before else rows).order_by("-id")[: DELIVERIES_SHOWN + 1])
    shown = found[:DELIVERIES_SHOWN]
    initial = {"url": endpoint.url, "description": endpoint.description, "kinds": endpoint.event_kinds}
    now = timezone.now()
    context = {
        "endpoint": endpoint,
        "form": form or EndpointForm(initial=initial),
        "secret": secret,
        "is_rotating": endpoint.previous_until is not None and endpoint.previous_until > now,
        "deliveries": shown,
        "older": shown[-1].pk if len(found) > DELIVERIES_SHOWN else "",
        "is_first_page": not before,
        "section": "webhooks",
    }
    response = render_page(request, access, "portal/webhook.html", context, status=status)
    if secret:
        patch_cache_control(response, no_store=True)
    return response


def _endpoint(access: Access, endpoint_id: str) -> WebhookEndpoint:
    rows = WebhookEndpoint.objects.for_organization(access.organization.id)
    endpoint: WebhookEndpoint | None = rows.filter(pk=endpoint_id).first()
    if endpoint is None:
        raise Http404
    return endpoint


def _refused(request: HttpRequest, access: Access, endpoint: WebhookEndpoint, error: Conflict) -> HttpResponse:
    messages.error(request, f"{error.message[:1].upper()}{error.message[1:]}.")
    return _back(access, endpoint)


def _back(access: Access, endpoint: WebhookEndpoint) -> HttpResponse:
    return redirect("portal:webhook", slug=access.organization.slug, endpoint_id=endpoint.pk)
