"""Disputes: the bank takes a payment back, and perhaps returns it. The wallet follows the money, once each way."""

from django.db import transaction

from apps.billing.grants import Withdrawal, return_withdrawn, withdraw
from apps.billing.models import Dispute, Payment, TransactionKind
from apps.billing.one_by_one import tell_operator
from apps.billing.payments.contracts import DisputeSeen
from apps.billing.payments.errors import Mismatch, NotYet
from apps.billing.payments.paid import paid_payment
from apps.billing.payments.pausing import pause
from apps.core.money import NANOS_PER_CENT, format_usd

ENDED = ("won", "lost", "warning_closed")


@transaction.atomic
def apply_dispute(seen: DisputeSeen, provider: str) -> None:
    """Write down what a dispute does. What is missing of the payment's credit is taken from other credit, then owed.

    Never more than the payment is taken; where the bank took more, the operator is told.
    Raises NotYet when what it speaks of has not happened here, and Mismatch when it contradicts the payment."""
    payment = paid_payment(provider, seen.payment_reference, what="disputed")
    amount_nanos = min(seen.amount_cents * NANOS_PER_CENT, payment.amount_nanos)
    if seen.currency != payment.currency or amount_nanos <= 0:
        raise Mismatch("the dispute is about nothing, or another currency than its payment")
    dispute = _row(payment, seen, amount_nanos)
    if seen.withdrawn and dispute.withdrawal is None:
        _withdraw(payment, dispute)
        if seen.amount_cents * NANOS_PER_CENT > payment.amount_nanos:
            _tell_of_more(payment, seen)
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


def _tell_of_more(payment: Payment, seen: DisputeSeen) -> None:
    taken = format_usd(seen.amount_cents * NANOS_PER_CENT)
    paid = format_usd(payment.amount_nanos)
    tell_operator(
        f"dispute:{payment.provider}:{seen.reference}",
        "A dispute took more than its payment",
        f"The bank took {taken} USD for {payment.id} over {paid} USD. The wallet pays {paid} USD; the rest is yours.",
        {"payment": payment.id, "dispute": seen.reference},
    )


def _reinstate(dispute: Dispute) -> None:
    if dispute.withdrawal is None:
        raise NotYet("the disputed money was not taken yet")
    if dispute.reinstatement is None:
        dispute.reinstatement = return_withdrawn(
            dispute.withdrawal.pk,
            idempotency_key=f"dispute-won:{dispute.payment.provider}:{dispute.provider_reference}",
            reason="The dispute was won",
        )
