"""Saved cards: kept after a payment whose payer agreed, forgotten on request. Only what may be shown is stored."""

from django.db import transaction
from django.utils import timezone

from apps.billing.models import AutoTopUp, Payment, PaymentCustomer, PaymentMethod, PaymentStatus
from apps.billing.one_by_one import one_by_one, waiting
from apps.billing.payments.contracts import Card, ProviderAway, ProviderRefused
from apps.billing.payments.errors import Mismatch
from apps.billing.payments.pausing import pause
from apps.billing.payments.providers import provider_named
from apps.core.errors import NotFound


def cards_of(organization_id: str) -> list[PaymentMethod]:
    """The saved cards of an organization, the newest first."""
    return list(PaymentMethod.objects.for_organization(organization_id).filter(removed_at=None))


def save_card_of(payment: Payment) -> PaymentMethod | None:
    """Keep the card with which this payment was made, if its payer asked for that; None otherwise.

    Asks the provider: raises ProviderAway when it has to be asked again."""
    if not payment.saves_card or payment.card_id or payment.status != PaymentStatus.PAID:
        return None
    provider = provider_named(payment.provider)
    try:
        reference = provider.payment(payment.provider_reference).card_reference
        card = provider.card(reference) if reference else None
    except ProviderRefused:
        card = None
    if card is None:  # not a card, or gone by now: asking again would not help
        Payment.objects.filter(pk=payment.pk).update(saves_card=False)
        return None
    return _keep(payment, card)


def save_missing_cards() -> None:
    """Keep the cards of paid payments whose provider was away when they were to be saved."""
    work = "saving a card"
    paid = Payment.objects.filter(status=PaymentStatus.PAID, saves_card=True, card=None).exclude(pk__in=waiting(work))
    ids = list(paid.order_by("paid_at").values_list("pk", flat=True)[:100])
    one_by_one(work, ids, lambda payment_id: save_card_of(Payment.objects.get(pk=payment_id)), away=ProviderAway)


def remove_card(organization_id: str, card_id: str) -> PaymentMethod:
    """Forget a card, here and at the provider; automatic top-up with it stops.

    Raises NotFound, and ProviderAway when the provider must be asked again."""
    card: PaymentMethod | None = (
        PaymentMethod.objects.for_organization(organization_id).filter(pk=card_id, removed_at=None).first()
    )
    if card is None:
        raise NotFound(f"there is no saved card with the id {card_id!r}")
    provider_named(card.provider).remove_card(card.reference)
    note_removed(card.reference, card.provider)
    return card


@transaction.atomic
def note_removed(reference: str, provider: str) -> bool:
    """The provider no longer has a card. Returns whether it was one of ours."""
    card = PaymentMethod.objects.filter(provider=provider, reference=reference).first()
    if card is None:
        return False
    PaymentMethod.objects.filter(pk=card.pk, removed_at=None).update(removed_at=timezone.now())
    if AutoTopUp.objects.for_organization(card.organization_id).filter(card=card).exists():
        pause(card.organization_id, f"{card} was removed.")
    return True


def note_changed(card: Card, provider: str) -> bool:
    """The bank sent a new card with the same reference. Returns whether it is one of ours."""
    rows = PaymentMethod.objects.filter(
        provider=provider, reference=card.reference, customer_reference=card.customer_reference
    )
    shown = {"brand": card.brand, "last4": card.last4, "exp_month": card.exp_month, "exp_year": card.exp_year}
    return bool(rows.update(**shown))


@transaction.atomic
def _keep(payment: Payment, card: Card) -> PaymentMethod:
    owner = payment.organization_id
    customers = PaymentCustomer.objects.for_organization(owner)
    if not customers.filter(provider=payment.provider, reference=card.customer_reference).exists():
        raise Mismatch("the card belongs to another customer")
    shown = {"brand": card.brand, "last4": card.last4, "exp_month": card.exp_month, "exp_year": card.exp_year}
    method: PaymentMethod
    method, _ = PaymentMethod.objects.update_or_create(
        provider=payment.provider,
        reference=card.reference,
        organization_id=owner,
        defaults={"customer_reference": card.customer_reference, "removed_at": None, **shown},
    )
    Payment.objects.filter(pk=payment.pk).update(card=method)
    return method
