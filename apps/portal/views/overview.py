"""An organization's first page: where it stands, and how to send a first request."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from apps.accounts.roles import Capability
from apps.portal.access import Access, organization_page
from apps.portal.charts import chart_of
from apps.portal.offers import Offer, current_offers
from apps.portal.pages import render_page
from apps.portal.views.organizations import LAST_ORGANIZATION
from apps.usage.reports import last_days, series, sums, sums_by, this_month

TOP_MODELS = 5


@organization_page(get=Capability.VIEW_USAGE)
def overview(request: HttpRequest, access: Access) -> HttpResponse:
    """Sums of today and this month, 30 days as a chart, the month's models, and snippets to paste."""
    if request.session.get(LAST_ORGANIZATION) != access.organization.slug:
        request.session[LAST_ORGANIZATION] = access.organization.slug
    now = timezone.now()
    organization_id = access.organization.id
    offers = current_offers(organization_id)
    points = series(organization_id, last_days(30, now))
    context = {
        "today": sums(organization_id, last_days(1, now)),
        "month": sums(organization_id, this_month(now)),
        "month_start": this_month(now).since,
        "chart": chart_of(points, last_days(30, now).step),
        "has_usage": any(point.sums.requests for point in points),
        "top_models": list(sums_by(organization_id, this_month(now), "model").items())[:TOP_MODELS],
        "base_url": f"{settings.PUBLIC_URL}/api/v1",
        "example_model": min(offers, key=_price_of_both).id if offers else "",
        "model_count": len(offers),
    }
    return render_page(request, access, "portal/overview.html", context)


def _price_of_both(offer: Offer) -> int:
    """A first try should not cost more than it must."""
    return offer.price.input + offer.price.output
