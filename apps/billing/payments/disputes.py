"""Disputes: the bank takes a payment back, and perhaps returns it. The wallet follows the money, once each way."""

from django.db import transaction

from apps.billing.grants import Withdrawal, return_withdrawn, withdraw
from apps.billing.models import NANOS_PER_CENT, Dispute, Payment, PaymentStatus, TransactionKind
from apps.billing.payments.contracts import DisputeSeen
from apps.billing.payments.errors import Mismatch, NotYet
from apps.billing.payments.pausing import pause

ENDED = ("won", "lost", "warning_closed")


@transaction.atomic
def apply_dispute(seen: DisputeSeen, provider: str) -> None:
    """Write down what a dispute does. What is missing of the payment's credit is taken from other credit, then owed.

    Raises NotYet when what it speaks of has not happened here, and Mismatch when it contradicts the payment."""
    payment = (
        Payment.objects.filter(provider=provider, provider_reference=seen.payment_reference)
        .exclude(provider_reference="")
        .select_for_update(no_key=True)
        .first()
    )
    if payment is None or payment.status != PaymentStatus.PAID:
        raise NotYet("the disputed payment has not arrived")
    amount_nanos = seen.amount_cents * NANOS_PER_CENT
    if seen.currency != payment.currency or not 0 < amount_nanos <= payment.amount_nanos:
        raise Mismatch("the dispute is about more than the payment, or another currency")
    dispute = _row(payment, seen, amount_nanos)
    if seen.withdrawn and dispute.withdrawal is None:
        _withdraw(payment, dispute)
    if seen.reinstated:
        _reinstate(dispute)
    if dispute.status not in ENDED:
        dispute.status = seen.status
    dispute.save()


def _row(payment: Payment, seen: DisputeSeen, amount_nanos: int) -> Dispute:
    """Our row of the dispute. Its amount can change until the money has moved."""
    dispute: Dispute
    dispute, _ = Dispute.objects.get_or_create(
        payment=payment,
        provider_reference=seen.reference,
        defaults={
            "organization_id": payment.organization_id,
            "amount_nanos": amount_nanos,
            "status": seen.status,
            "reason": seen.reason,
        },
    )
    if dispute.withdrawal is None:
        dispute.amount_nanos = amount_nanos
    elif dispute.amount_nanos != amount_nanos:
        raise Mismatch("the dispute was about another amount when its money was taken")
    return dispute


def _withdraw(payment: Payment, dispute: Dispute) -> None:
    dispute.withdrawal = withdraw(
        Withdrawal(str(payment.grant_id), dispute.amount_nanos, TransactionKind.DISPUTE, unused_only=False),
        idempotency_key=f"dispute:{payment.provider}:{dispute.provider_reference}",
        reason="The payer disputes a payment",
    )
    pause(payment.organization_id, "A payment is disputed.")


def _reinstate(dispute: Dispute) -> None:
    if dispute.withdrawal is None:
        raise NotYet("the disputed money was not taken yet")
    if dispute.reinstatement is None:
        dispute.reinstatement = return_withdrawn(
            dispute.withdrawal.pk,
            idempotency_key=f"dispute-won:{dispute.payment.provider}:{dispute.provider_reference}",
            reason="The dispute was won",
        )
