"""The models that can be called now, with their prices."""

from django.http import HttpRequest, HttpResponse

from apps.accounts.roles import Capability
from apps.portal.access import Access, organization_page
from apps.portal.offers import Wanted, current_offers
from apps.portal.pages import render_page


@organization_page(get=Capability.VIEW_USAGE)
def models(request: HttpRequest, access: Access) -> HttpResponse:
    """All callable models, filtered by what the query says."""
    offers = current_offers(access.organization.id)
    query = request.GET
    wanted = Wanted(query.get("q", ""), query.get("vendor", ""), query.get("modality", ""))
    context = {
        "wanted": wanted,
        "offers": [offer for offer in offers if wanted.admits(offer)],
        "total": len(offers),
        "vendors": sorted({offer.vendor for offer in offers}, key=str.casefold),
        "modalities": sorted({modality for offer in offers for modality in offer.input_modalities}),
    }
    return render_page(request, access, "portal/models.html", context)
