"""What a provider says of a payment becomes its state: money is credited once, to whom our own row names, or never."""

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.billing.grants import Credit, grant_credit
from apps.billing.models import (
    AutoTopUp,
    GrantSource,
    Payment,
    PaymentCustomer,
    PaymentKind,
    PaymentStatus,
)
from apps.billing.payments.contracts import Outcome, Payer, PaymentSeen
from apps.billing.payments.errors import Mismatch
from apps.billing.payments.pausing import note_failure
from apps.core.money import NANOS_PER_CENT

REASONS = {
    PaymentKind.TOP_UP: "Payment by card",
    PaymentKind.AUTO_TOP_UP: "Automatic top-up",
    PaymentKind.BANK_TRANSFER: "Bank transfer",
}
"""What the customer reads beside the credit."""


@transaction.atomic
def apply_payment(seen: PaymentSeen, provider: str) -> Payment | None:
    """Bring our payment to the state that its provider saw; safe in any order and any number of times.

    Returns the payment, None when it is none of ours. Raises Mismatch when anything that was agreed differs: payment,
    organization, customer, references, amount or currency."""
    payment = _find(seen, provider)
    if payment is None:
        return None
    _check_agreed(payment, seen)
    _check_references(payment, seen)
    _adopt(payment, seen)
    if seen.outcome is Outcome.SUCCEEDED and seen.payer is not None:
        _remember_payer(payment, seen.payer)
    if payment.status == PaymentStatus.PAID:
        return payment
    if seen.outcome is Outcome.SUCCEEDED:
        credit(payment)
    elif seen.outcome is Outcome.EXPIRED and payment.status == PaymentStatus.PENDING:
        payment.status = PaymentStatus.EXPIRED
        payment.save(update_fields=["status"])
    elif seen.outcome is Outcome.FAILED:
        fail(payment, seen.failure or "The payment failed.", is_final=seen.is_final)
        if seen.is_final:
            Payment.objects.filter(pk=payment.pk).update(is_open_at_provider=False)
        payment.refresh_from_db()
    return payment


def credit(payment: Payment) -> None:
    """Turn a payment that arrived into credit. The caller holds the lock of its row, or has just made it."""
    kind = PaymentKind(payment.kind)
    payment.grant = grant_credit(
        payment.organization_id,
        Credit(payment.amount_nanos, GrantSource.PURCHASED),
        idempotency_key=f"payment:{payment.id}",
        reason=REASONS[kind],
        actor=payment.actor,
    )
    payment.status = PaymentStatus.PAID
    payment.paid_at = timezone.now()
    payment.failure = ""
    payment.is_open_at_provider = False
    payment.save(update_fields=["grant", "status", "paid_at", "failure", "is_open_at_provider"])
    if kind is PaymentKind.AUTO_TOP_UP:
        terms = AutoTopUp.objects.for_organization(payment.organization_id)
        terms.update(failures=0, next_attempt_at=None)


@transaction.atomic
def fail(payment: Payment, failure: str, *, is_final: bool) -> None:
    """Note that a payment failed. On a page another card may be tried; a saved card is not charged again for it.

    Unless that is final, its provider could still charge the saved card: `cancel_open` ends it there."""
    payment = Payment.objects.select_for_update(no_key=True).get(pk=payment.pk)
    if payment.status != PaymentStatus.PENDING:
        return
    payment.failure = failure[:300]
    if is_final or payment.kind == PaymentKind.AUTO_TOP_UP:
        payment.status = PaymentStatus.FAILED
        payment.is_open_at_provider = not is_final and bool(payment.provider_reference)
    payment.save(update_fields=["failure", "status", "is_open_at_provider"])
    if payment.kind == PaymentKind.AUTO_TOP_UP:
        note_failure(payment)


def _find(seen: PaymentSeen, provider: str) -> Payment | None:
    """Our row, locked. What names one of our payments without knowing it, or the other way round, is a mismatch."""
    rows = Payment.objects.filter(provider=provider)
    if seen.subject.payment_id:
        payment: Payment | None = rows.filter(pk=seen.subject.payment_id).select_for_update(no_key=True).first()
        if payment is None:
            raise Mismatch("it names a payment that we do not have")
        return payment
    if rows.filter(_same_references(seen)).exists():
        raise Mismatch("it does not say which of our payments it is")
    return None


def _check_agreed(payment: Payment, seen: PaymentSeen) -> None:
    if seen.subject.organization_id != payment.organization_id:
        raise Mismatch("it names another organization than our payment")
    if seen.currency != payment.currency:
        raise Mismatch("its currency is not that of our payment")
    if seen.amount_cents * NANOS_PER_CENT != payment.amount_nanos:
        raise Mismatch("its amount is not that of our payment")
    customers = PaymentCustomer.objects.for_organization(payment.organization_id)
    if not customers.filter(provider=payment.provider, reference=seen.customer_reference).exists():
        raise Mismatch("its customer is not that of our payment")


def _check_references(payment: Payment, seen: PaymentSeen) -> None:
    for ours, theirs in (
        (payment.provider_reference, seen.reference),
        (payment.checkout_reference, seen.checkout_reference),
    ):
        if ours and theirs and ours != theirs:
            raise Mismatch("it is not the try that our payment knows")
    others = Payment.objects.filter(_same_references(seen), provider=payment.provider)
    if others.exclude(pk=payment.pk).exists():
        raise Mismatch("another of our payments has its reference")


def _same_references(seen: PaymentSeen) -> Q:
    same = Q(pk__in=[])
    if seen.reference:
        same |= Q(provider_reference=seen.reference)
    if seen.checkout_reference:
        same |= Q(checkout_reference=seen.checkout_reference)
    return same


def _adopt(payment: Payment, seen: PaymentSeen) -> None:
    payment.provider_reference = payment.provider_reference or seen.reference
    payment.checkout_reference = payment.checkout_reference or seen.checkout_reference
    payment.save(update_fields=["provider_reference", "checkout_reference"])


def _remember_payer(payment: Payment, payer: Payer) -> None:
    """Name, country and tax id for invoices. What was left empty this time does not erase what is known."""
    said = {
        "billing_name": payer.name,
        "billing_email": payer.email,
        "country": payer.country,
        **({"tax_id_type": payer.tax_id_type, "tax_id": payer.tax_id} if payer.tax_id else {}),
    }
    customers = PaymentCustomer.objects.for_organization(payment.organization_id).filter(provider=payment.provider)
    if known := {name: value for name, value in said.items() if value}:
        customers.update(**known)
