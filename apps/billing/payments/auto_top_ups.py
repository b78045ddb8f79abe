"""Automatic top-ups: the saved card is charged when credit runs low, one at a time, never above the month's ceiling.

The decision is made under the lock of the organization's settings and written down as a pending payment before the
provider is asked; so however many processes decide at once, there is one payment and the ceiling holds."""

import logging
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q, Sum
from django.db.models.functions import Now, TruncMonth
from django.utils import timezone

from apps.billing.alerts.raising import raise_alert
from apps.billing.ledger import balance_nanos
from apps.billing.models import AlertKind, AutoTopUp, Payment, PaymentKind, PaymentMethod, PaymentStatus
from apps.billing.one_by_one import one_by_one, waiting
from apps.billing.payments.completing import apply_payment, fail
from apps.billing.payments.contracts import Card, Outcome, ProviderAway, ProviderRefused
from apps.billing.payments.errors import NotYet
from apps.billing.payments.providers import provider_named
from apps.billing.payments.top_ups import check_amount, order_of
from apps.core.errors import InvalidInput
from apps.core.money import format_usd

ASK_AGAIN_AFTER: Final = timedelta(minutes=1)
SAME_KEY_FOR: Final = timedelta(hours=23)
"""Providers remember idempotency keys for a day: after that an order that they never heard of is given up."""
COUNTED: Final = Q(status__in=[PaymentStatus.PENDING, PaymentStatus.PAID]) | Q(is_open_at_provider=True)
"""What failed counts, too, as long as its provider could still charge it."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """When to charge which card, and how much at most in a month (UTC). Amounts in nano-USD."""

    threshold_nanos: int
    amount_nanos: int
    monthly_ceiling_nanos: int
    card_id: str


@transaction.atomic
def switch_on(organization_id: str, terms: Terms, *, actor: str) -> AutoTopUp:
    """Save the terms and begin anew: no failures, not paused.

    Raises InvalidInput when amount, threshold, ceiling or card make no sense."""
    check_amount(terms.amount_nanos)
    if terms.threshold_nanos < 0:
        raise InvalidInput("the threshold is not below zero")
    if terms.monthly_ceiling_nanos < terms.amount_nanos:
        raise InvalidInput("the monthly ceiling allows at least one top-up")
    cards = PaymentMethod.objects.for_organization(organization_id).filter(removed_at=None)
    if not cards.filter(pk=terms.card_id).exists():
        raise InvalidInput("a saved card is needed")
    row: AutoTopUp
    row, _ = AutoTopUp.objects.update_or_create(
        organization_id=organization_id,
        defaults={
            "enabled": True,
            "threshold_nanos": terms.threshold_nanos,
            "amount_nanos": terms.amount_nanos,
            "monthly_ceiling_nanos": terms.monthly_ceiling_nanos,
            "card_id": terms.card_id,
            "failures": 0,
            "next_attempt_at": None,
            "paused_at": None,
            "paused_reason": "",
            "actor": actor,
        },
    )
    return row


def switch_off(organization_id: str, *, actor: str) -> None:
    """Charge the card no more by itself. What is under way comes to its end."""
    AutoTopUp.objects.for_organization(organization_id).update(enabled=False, actor=actor)


def top_up_all() -> int:
    """Top up every organization that needs it, and ask again about payments without an answer; returns how many began.

    What goes wrong for one does not stop the others. Raises ProviderAway when the provider answers nobody: the rest
    waits for the next run."""
    _resume()
    cancel_open()
    ready = Q(next_attempt_at=None) | Q(next_attempt_at__lte=timezone.now())
    running = AutoTopUp.objects.filter(ready, enabled=True, paused_at=None).order_by("organization_id")
    owners = list(running.values_list("organization_id", flat=True))
    return one_by_one("automatic top-up", owners, top_up, away=ProviderAway)


def top_up(organization_id: str) -> Payment | None:
    """Charge the card now if credit is below the threshold; None when nothing is to be done.

    Raises ProviderAway when it is unknown what happened: the payment stays pending, and is asked about later."""
    payment = begin(organization_id)
    if payment is not None:
        submit(payment)
        payment.refresh_from_db()
        if payment.is_open_at_provider:
            cancel_open(payment.id)
            payment.refresh_from_db()
    return payment


@transaction.atomic
def begin(organization_id: str) -> Payment | None:
    """Decide, and write the payment down. None when nothing is to be done now."""
    terms = (
        AutoTopUp.objects.select_for_update(no_key=True)
        .filter(organization_id=organization_id, enabled=True, paused_at=None, card__removed_at=None)
        .exclude(card=None)
        .select_related("card")
        .first()
    )
    if terms is None or terms.card is None or balance_nanos(organization_id) >= terms.threshold_nanos:
        return None
    if terms.next_attempt_at and terms.next_attempt_at > timezone.now():
        return None
    automatic = Payment.objects.for_organization(organization_id).filter(kind=PaymentKind.AUTO_TOP_UP)
    if automatic.filter(status=PaymentStatus.PENDING).exists():
        return None
    if spent_this_month(organization_id) + terms.amount_nanos > terms.monthly_ceiling_nanos:
        _tell_of_ceiling(terms)
        return None
    payment: Payment = Payment.objects.create(
        organization_id=organization_id,
        kind=PaymentKind.AUTO_TOP_UP,
        amount_nanos=terms.amount_nanos,
        provider=terms.card.provider,
        card=terms.card,
        actor=terms.actor,
    )
    return payment


def submit(payment: Payment) -> None:
    """Ask the provider to charge the card; once, however often this is called. Raises ProviderAway."""
    method = payment.card
    if method is None:
        fail(payment, "The card is gone.", is_final=True)
        return
    card = Card(
        method.reference,
        method.customer_reference,
        method.brand,
        method.last4,
        method.exp_month,
        method.exp_year,
    )
    Payment.objects.filter(pk=payment.pk).update(checked_at=timezone.now())
    try:
        seen = provider_named(payment.provider).charge_card(order_of(payment), card)
    except ProviderRefused as error:
        fail(payment, error.message, is_final=True)
    else:
        apply_payment(seen, payment.provider)


def spent_this_month(organization_id: str) -> int:
    """What automatic top-ups of this month (UTC, by the database's clock) have charged, or could yet, in nano-USD."""
    counted = Payment.objects.for_organization(organization_id).filter(
        COUNTED, kind=PaymentKind.AUTO_TOP_UP, created_at__gte=TruncMonth(Now(), tzinfo=UTC)
    )
    return counted.aggregate(total=Sum("amount_nanos"))["total"] or 0


def cancel_open(*payment_ids: str) -> int:
    """End failed payments at their provider, all or the named ones, so that the bank cannot charge them later.

    Returns how many were ended. What had succeeded meanwhile is credited. Raises ProviderAway as `one_by_one`."""
    work = "cancelling a failed top-up"
    still_open = Payment.objects.filter(kind=PaymentKind.AUTO_TOP_UP, is_open_at_provider=True)
    if payment_ids:
        still_open = still_open.filter(pk__in=payment_ids)
    ids = still_open.exclude(pk__in=waiting(work)).order_by("created_at").values_list("pk", flat=True)
    return one_by_one(work, list(ids[:100]), _cancel, away=ProviderAway)


def _cancel(payment_id: str) -> bool:
    payment = Payment.objects.get(pk=payment_id)
    provider = provider_named(payment.provider)
    try:
        seen = provider.cancel_payment(payment.provider_reference)
    except ProviderRefused:  # too late: paid or cancelled before
        seen = provider.payment(payment.provider_reference)
    apply_payment(seen, payment.provider)
    if seen.outcome is not Outcome.SUCCEEDED and not seen.is_final:
        raise NotYet("the provider has not ended the payment")
    return True


def _resume() -> None:
    """Payments whose outcome is unknown: look for them at the provider, then ask again with the same key."""
    work = "following an automatic top-up"
    now = timezone.now()
    unknown = Payment.objects.filter(kind=PaymentKind.AUTO_TOP_UP, status=PaymentStatus.PENDING)
    due = unknown.filter(Q(checked_at=None) | Q(checked_at__lt=now - ASK_AGAIN_AFTER)).exclude(pk__in=waiting(work))
    ids = due.filter(created_at__lt=now - ASK_AGAIN_AFTER).order_by("created_at").values_list("pk", flat=True)
    one_by_one(work, list(ids[:100]), _follow, away=ProviderAway)


def _follow(payment_id: str) -> bool:
    payment = Payment.objects.select_related("card").get(pk=payment_id)
    Payment.objects.filter(pk=payment.pk).update(checked_at=timezone.now())
    provider = provider_named(payment.provider)
    customer = payment.card.customer_reference if payment.card else ""
    is_young = payment.created_at > timezone.now() - SAME_KEY_FOR
    try:
        seen = (
            provider.payment(payment.provider_reference)
            if payment.provider_reference
            else provider.find_payment(order_of(payment), customer)
        )
    except ProviderRefused:  # the payment or the whole customer is gone at the provider
        seen = None
    if seen is not None:
        apply_payment(seen, payment.provider)
    elif is_young and not payment.provider_reference:
        submit(payment)
    elif is_young:
        raise NotYet("the provider does not know the payment any more")
    else:
        fail(payment, "The payment provider does not know this payment.", is_final=True)
    return True


def _tell_of_ceiling(terms: AutoTopUp) -> None:
    """Once a month. In the transaction of the decision."""
    month = f"{timezone.now().astimezone(UTC):%Y-%m}"
    raise_alert(
        terms.organization_id,
        AlertKind.AUTO_TOP_UP_FAILED,
        key=f"auto_top_up.ceiling:{terms.organization_id}:{month}",
        subject="Automatic top-up has reached its monthly ceiling",
        text=f"Another {format_usd(terms.amount_nanos)} USD would exceed the ceiling of "
        f"{format_usd(terms.monthly_ceiling_nanos)} USD. It goes on next month, or with a higher ceiling.",
        details={"reason": "monthly_ceiling", "monthly_ceiling_nanos": terms.monthly_ceiling_nanos},
    )


def top_up_when_wanted(organization_id: str) -> None:
    """As `top_up`, for who does not wait for the outcome: an absent provider is a line in the log."""
    try:
        top_up(organization_id)
    except ProviderAway as error:
        log.warning("an automatic top-up waits for its provider: %s", error.message)
