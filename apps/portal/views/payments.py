"""Adding credit: start a payment, see how it stands, saved cards, automatic top-up."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from apps.accounts.roles import Capability
from apps.billing.ledger import balance_nanos
from apps.billing.models import Payment
from apps.billing.payments.auto_top_ups import switch_off, switch_on
from apps.billing.payments.cards import remove_card
from apps.billing.payments.contracts import Pages, ProviderAway, ProviderDisabled, ProviderRefused
from apps.billing.payments.top_ups import start_top_up
from apps.core.errors import Conflict, DomainError, InvalidInput, NotFound
from apps.portal.access import Access, organization_page
from apps.portal.pages import render_page
from apps.portal.payments import AutoTopUpForm, TopUpForm, card_of, payment_row
from apps.portal.views.billing import billing_page

AWAY = "The payment provider does not answer. Nothing was charged; please try again in a few minutes."


@organization_page(post=Capability.MANAGE_BILLING)
def add_credit(request: HttpRequest, access: Access) -> HttpResponse:
    """Start a payment; its own page leads on to the provider."""
    form = TopUpForm(request.POST, prefix="top_up")
    if form.is_valid():
        try:
            payment = start_top_up(
                access.organization,
                form.wanted(actor=access.user.email),
                pages=lambda payment: _pages(access, payment),
            )
        except ProviderAway:
            form.add_error(None, AWAY)
        except (InvalidInput, Conflict, ProviderDisabled, ProviderRefused) as error:
            form.add_error(None, _sentence(error))
        else:
            return redirect(f"{_address(access, payment)}?go=1")
    return billing_page(request, access, extra={"top_up_form": form}, status=422)


@organization_page(get=Capability.MANAGE_BILLING)
def payment(request: HttpRequest, access: Access, payment_id: str) -> HttpResponse:
    """How a payment stands, by our own books: being back from the provider's page proves nothing."""
    found = Payment.objects.for_organization(access.organization.id).filter(pk=payment_id).first()
    if found is None:
        raise Http404
    context: dict[str, Any] = {
        "row": payment_row(found),
        "payment": found,
        "balance_nanos": balance_nanos(access.organization.id),
        "leads_on": "go" in request.GET and found.status == "pending",
        "came_back": request.GET.get("back", ""),
        "section": "billing",
    }
    return render_page(request, access, "portal/billing/payment.html", context)


@organization_page(post=Capability.MANAGE_BILLING)
def auto_top_up(request: HttpRequest, access: Access) -> HttpResponse:
    """Save the terms of automatic top-up, or switch it off."""
    organization = access.organization
    if request.POST.get("action") == "off":
        switch_off(organization.id, actor=access.user.email)
        messages.success(request, "Automatic top-up is off. The card is not charged any more without you.")
        return redirect("portal:billing", slug=organization.slug)
    form = AutoTopUpForm(organization, request.POST, prefix="auto")
    if form.is_valid():
        try:
            switch_on(organization.id, form.terms(), actor=access.user.email)
        except InvalidInput as error:
            form.add_error(None, _sentence(error))
        else:
            messages.success(request, "Automatic top-up is on. Credit is looked at every minute.")
            return redirect("portal:billing", slug=organization.slug)
    return billing_page(request, access, extra={"auto_form": form}, status=422)


@organization_page(get=Capability.MANAGE_BILLING, post=Capability.MANAGE_BILLING)
def remove_saved_card(request: HttpRequest, access: Access, card_id: str) -> HttpResponse:
    """Asks, then forgets a card."""
    card = card_of(access.organization, card_id)
    if card is None:
        raise Http404
    if request.method != "POST":
        return render_page(request, access, "portal/billing/remove_card.html", {"card": card, "section": "billing"})
    try:
        remove_card(access.organization.id, card_id)
    except (ProviderAway, ProviderDisabled):
        messages.error(request, "The payment provider does not answer, so the card is still saved. Please try again.")
    except NotFound as error:
        raise Http404 from error
    else:
        messages.success(request, f"{card} is removed.")
    return redirect("portal:billing", slug=access.organization.slug)


def _address(access: Access, payment: Payment) -> str:
    return reverse("portal:payment", args=[access.organization.slug, payment.id])


def _pages(access: Access, payment: Payment) -> Pages:
    page = f"{settings.PUBLIC_URL}{_address(access, payment)}"
    return Pages(f"{page}?back=paid", f"{page}?back=left")


def _sentence(error: DomainError) -> str:
    return f"{error.message[:1].upper()}{error.message[1:].rstrip('.')}."
