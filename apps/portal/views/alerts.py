"""Alerts of an organization: the list, taking note of them, and who is told of what."""

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from apps.accounts.roles import Capability
from apps.billing.alerts.raising import recipients
from apps.billing.models import Alert, AlertKind, AlertSettings
from apps.portal.access import Access, organization_page
from apps.portal.alert_forms import KIND_WORDS, AlertSettingsForm
from apps.portal.pages import render_page

SHOWN = 50
MONEY_KINDS = (AlertKind.CREDIT_LOW, AlertKind.GRANT_EXPIRING, AlertKind.AUTO_TOP_UP_FAILED, AlertKind.INVOICE_ISSUED)
"""Shown to those only who may see the balance."""


@organization_page(get=Capability.VIEW_USAGE)
def alerts(request: HttpRequest, access: Access) -> HttpResponse:
    """What was raised, newest first. `before` in the address pages the list."""
    return _page(request, access, AlertSettingsForm(instance=_settings(access)))


@organization_page(post=Capability.MANAGE_BILLING)
def acknowledge(request: HttpRequest, access: Access, alert_id: str) -> HttpResponse:
    """Take note of one alert."""
    found = _visible(access).filter(pk=alert_id)
    if not found.exists():
        raise Http404
    _note(found, access)
    return redirect("portal:alerts", slug=access.organization.slug)


@organization_page(post=Capability.MANAGE_BILLING)
def acknowledge_all(request: HttpRequest, access: Access) -> HttpResponse:
    """Take note of all alerts up to the newest one that the page showed."""
    newest = request.POST.get("newest", "")
    _note(_visible(access).filter(pk__lte=newest), access)
    return redirect("portal:alerts", slug=access.organization.slug)


@organization_page(post=Capability.MANAGE_BILLING)
def alert_settings(request: HttpRequest, access: Access) -> HttpResponse:
    """When and by e-mail to whom the organization is alerted."""
    form = AlertSettingsForm(request.POST, instance=_settings(access))
    if not form.is_valid():
        return _page(request, access, form, status=422)
    try:
        form.save()
    except ValidationError as error:
        form.add_error(None, error)
        return _page(request, access, form, status=422)
    messages.success(request, "The settings of alerts are saved.")
    return redirect("portal:alerts", slug=access.organization.slug)


def _page(request: HttpRequest, access: Access, form: AlertSettingsForm, *, status: int = 200) -> HttpResponse:
    before = request.GET.get("before", "")
    rows = _visible(access).filter(pk__lt=before) if before else _visible(access)
    found = list(rows.order_by("-id")[: SHOWN + 1])
    shown = found[:SHOWN]
    context = {
        "alerts": [(alert, KIND_WORDS[AlertKind(alert.kind)]) for alert in shown],
        "newest": shown[0].pk if shown else "",
        "open_count": _visible(access).filter(acknowledged_at=None).count(),
        "older": shown[-1].pk if len(found) > SHOWN else "",
        "is_first_page": not before,
        "form": form,
        "usual_recipients": recipients(access.organization.id, ""),
        "section": "alerts",
    }
    return render_page(request, access, "portal/alerts.html", context, status=status)


def _visible(access: Access) -> QuerySet[Alert]:
    rows: QuerySet[Alert] = Alert.objects.for_organization(access.organization.id)
    return rows if Capability.MANAGE_BILLING in access.capabilities else rows.exclude(kind__in=MONEY_KINDS)


def _note(rows: QuerySet[Alert], access: Access) -> None:
    """Who noted it first stays."""
    rows.filter(acknowledged_at=None).update(acknowledged_at=timezone.now(), acknowledged_by=access.user.email)


def _settings(access: Access) -> AlertSettings:
    found: AlertSettings | None = AlertSettings.objects.for_organization(access.organization.id).first()
    return found or AlertSettings(organization=access.organization)
