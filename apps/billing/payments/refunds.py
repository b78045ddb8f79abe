"""Refunds: unused credit goes back to who paid for it, and refunds made at the provider are written down.

The credit is taken before the provider is asked, so that it cannot be spent meanwhile, and comes back when it refuses.
All lines are new; all refunds of a payment that did not fail are never more than the payment."""

import logging
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, Sum
from django.utils import timezone

from apps.billing.grants import Withdrawal, return_withdrawn, withdraw
from apps.billing.ledger import balance_nanos
from apps.billing.models import (
    Dispute,
    Payment,
    PaymentStatus,
    Refund,
    RefundStatus,
    TransactionKind,
)
from apps.billing.models.payments import new_refund_id
from apps.billing.one_by_one import one_by_one, waiting
from apps.billing.payments.contracts import Outcome, PaymentProvider, ProviderAway, ProviderRefused, RefundSeen
from apps.billing.payments.errors import Mismatch, NotYet
from apps.billing.payments.paid import paid_payment
from apps.billing.payments.providers import provider_named
from apps.core.errors import Conflict, InvalidInput, NotFound
from apps.core.money import NANOS_PER_CENT, format_usd
from apps.usage.models import UnpostedUsage, UsageRecord

ASK_AGAIN_AFTER: Final = timedelta(minutes=1)
POLL_AFTER: Final = timedelta(hours=1)
"""For refunds that the provider accepted and has not paid out: events tell of their end, but can get lost."""
AT_PROVIDER: Final = "payment provider"
"""The actor of refunds that nobody asked for here."""
log = logging.getLogger(__name__)


def refundable_nanos(payment: Payment) -> int:
    """How much of a payment can be refunded now: what is left of its credit, in whole cents."""
    if payment.grant is None or _is_disputed(payment):
        return 0
    unused = min(
        payment.grant.remaining_nanos,
        payment.amount_nanos - refunded_nanos(payment),
        balance_nanos(payment.organization_id) - _unposted_nanos(payment.organization_id),
    )
    return max(0, unused // NANOS_PER_CENT * NANOS_PER_CENT)


def refunded_nanos(payment: Payment) -> int:
    """What was sent back, or is under way."""
    alive = payment.refunds.exclude(status=RefundStatus.FAILED)
    return alive.aggregate(total=Sum("amount_nanos"))["total"] or 0


def _sent_back_nanos(payment: Payment) -> int:
    done = payment.refunds.filter(status=RefundStatus.SUCCEEDED)
    return done.aggregate(total=Sum("amount_nanos"))["total"] or 0


def refund_payment(
    payment_id: str, amount_nanos: int, *, reason: str, actor: str, refund_id: str | None = None
) -> Refund:
    """Send `amount_nanos` (whole cents) of a payment back, if so much of its credit is unused.

    The same `refund_id` again is the same refund. The returned refund is pending when the provider did not answer:
    a task asks it again. Raises NotFound, InvalidInput, and Conflict when less can be refunded."""
    refund = _open(payment_id, amount_nanos, reason=reason, actor=actor, refund_id=refund_id or new_refund_id())
    if refund.status == RefundStatus.PENDING:
        send(refund)
        refund.refresh_from_db()
    return refund


def send(refund: Refund) -> None:
    """Ask the provider for the refund, as often as it takes. Its credit comes back when it refuses."""
    payment = refund.payment
    provider = provider_named(payment.provider)
    Refund.objects.filter(pk=refund.pk).update(checked_at=timezone.now())
    try:
        seen = _sent_before(refund, provider) or _ask_for(refund, provider)
    except ProviderAway as error:
        log.warning("a refund waits for its provider: %s", error.message, extra={"refund": refund.id})
    else:
        if seen is not None:
            apply_refund(seen, payment.provider)


def _sent_before(refund: Refund, provider: PaymentProvider) -> RefundSeen | None:
    """What became of a refund that was asked for before; None when the provider never heard of it."""
    if not refund.checked_at and not refund.provider_reference:
        return None
    known = provider.refunds_of(refund.payment.provider_reference)
    seen = next((one for one in known if _is_same(one, refund)), None)
    if seen is None and refund.provider_reference:  # asking for it anew would pay it out twice
        raise NotYet("the provider does not list the refund")
    return seen


def _ask_for(refund: Refund, provider: PaymentProvider) -> RefundSeen | None:
    cents = refund.amount_nanos // NANOS_PER_CENT
    try:
        return provider.refund(refund.id, refund.payment.provider_reference, amount_cents=cents)
    except ProviderRefused as error:
        _close(refund.pk, RefundStatus.FAILED, failure=error.message)
        return None


def resume_refunds() -> int:
    """Ask again for the refunds whose provider did not answer, and how those stand that it has not paid out yet.

    Returns how many were asked for. What goes wrong for one does not stop the others."""
    work = "a refund"
    now = timezone.now()
    asked = Q(provider_reference="", checked_at__lt=now - ASK_AGAIN_AFTER)
    never_asked = Q(provider_reference="", checked_at=None, created_at__lt=now - ASK_AGAIN_AFTER)
    accepted = ~Q(provider_reference="") & (
        Q(checked_at__lt=now - POLL_AFTER) | Q(checked_at=None, created_at__lt=now - POLL_AFTER)
    )
    due = Refund.objects.filter(asked | never_asked | accepted, status=RefundStatus.PENDING)
    ids = list(due.exclude(pk__in=waiting(work)).order_by("id").values_list("pk", flat=True)[:100])
    return one_by_one(work, ids, _send_again)


def _send_again(refund_id: str) -> bool:
    send(Refund.objects.select_related("payment").get(pk=refund_id))
    return True


def _is_same(seen: RefundSeen, refund: Refund) -> bool:
    if refund.provider_reference:
        return seen.reference == refund.provider_reference
    return seen.refund_id == refund.id


@transaction.atomic
def apply_refund(seen: RefundSeen, provider: str) -> None:
    """Bring a refund to the state that its provider saw; one that was made at the provider is written down here.

    Raises NotYet when its payment is not known or not paid yet, and Mismatch when it contradicts what we know."""
    payment = paid_payment(provider, seen.payment_reference, what="refunded")
    if seen.currency != payment.currency:
        raise Mismatch("the currency of the refund is not that of its payment")
    refund = _known(payment, seen) or _made_elsewhere(payment, seen)
    if refund.amount_nanos != seen.amount_cents * NANOS_PER_CENT:
        raise Mismatch("the amount of the refund is not that of ours")
    if not refund.provider_reference:
        Refund.objects.filter(pk=refund.pk).update(provider_reference=seen.reference)
    if seen.outcome is Outcome.FAILED:
        _close(refund.pk, RefundStatus.FAILED, failure=seen.failure or "The provider could not pay it out.")
    elif seen.outcome is Outcome.SUCCEEDED:
        _close(refund.pk, RefundStatus.SUCCEEDED)


@transaction.atomic
def _open(payment_id: str, amount_nanos: int, *, reason: str, actor: str, refund_id: str) -> Refund:
    """Take the credit and write the refund down, all under the payment's lock."""
    if amount_nanos <= 0 or amount_nanos % NANOS_PER_CENT:
        raise InvalidInput("a refund is a positive number of whole cents")
    payment = Payment.objects.select_for_update(no_key=True).filter(pk=payment_id).first()
    if payment is None:
        raise NotFound(f"there is no payment with the id {payment_id!r}")
    earlier: Refund | None = Refund.objects.filter(pk=refund_id).first()
    if earlier is not None:
        if (earlier.payment_id, earlier.amount_nanos) != (payment_id, amount_nanos):
            raise Conflict(f"the refund {refund_id} was for something else")
        return earlier
    if payment.status != PaymentStatus.PAID:
        raise Conflict("only a payment that arrived can be refunded")
    if _is_disputed(payment):
        raise Conflict("the payment is disputed: the bank has its money")
    possible = refundable_nanos(payment)
    if amount_nanos > possible:
        raise Conflict(f"{format_usd(possible)} USD of this payment can be refunded: the rest is used or refunded")
    return _write(payment, amount_nanos, refund_id=refund_id, reason=reason, actor=actor, unused_only=True)


def _write(
    payment: Payment, amount_nanos: int, *, refund_id: str, reason: str, actor: str, unused_only: bool
) -> Refund:
    taken = withdraw(
        Withdrawal(str(payment.grant_id), amount_nanos, TransactionKind.PAYMENT_REFUND, unused_only),
        idempotency_key=f"payment-refund:{refund_id}",
        reason=reason,
        actor=actor,
    )
    refund: Refund = Refund.objects.create(
        id=refund_id,
        organization_id=payment.organization_id,
        payment=payment,
        amount_nanos=amount_nanos,
        reason=reason,
        actor=actor,
        transaction=taken,
    )
    return refund


def _known(payment: Payment, seen: RefundSeen) -> Refund | None:
    refund: Refund | None
    if seen.refund_id:
        refund = Refund.objects.filter(pk=seen.refund_id, payment=payment).first()
        if refund is None or refund.provider_reference not in ("", seen.reference):
            raise Mismatch("it names a refund that is not of this payment")
    else:
        refund = Refund.objects.filter(payment=payment, provider_reference=seen.reference).first()
    return refund


def _made_elsewhere(payment: Payment, seen: RefundSeen) -> Refund:
    """The money has left already, so the whole credit is taken: what is used becomes a debt."""
    amount_nanos = seen.amount_cents * NANOS_PER_CENT
    if not 0 < amount_nanos <= payment.amount_nanos - refunded_nanos(payment):
        if 0 < amount_nanos <= payment.amount_nanos - _sent_back_nanos(payment):
            raise NotYet("another refund of the payment is under way, and may yet fail")
        raise Mismatch("more would be refunded than was paid")
    return _write(
        payment,
        amount_nanos,
        refund_id=new_refund_id(),
        reason="Refunded at the payment provider",
        actor=AT_PROVIDER,
        unused_only=False,
    )


@transaction.atomic
def _close(refund_id: str, status: RefundStatus, *, failure: str = "") -> None:
    """A refund that succeeded can fail later, when the bank sends it back; one that failed stays so."""
    refund = Refund.objects.select_for_update(no_key=True).get(pk=refund_id)
    if refund.status in (RefundStatus.FAILED, status):
        return
    refund.status = status
    refund.failure = failure[:300]
    if status is RefundStatus.FAILED:
        refund.reversal = return_withdrawn(
            refund.transaction_id, idempotency_key=f"payment-refund-failed:{refund.id}", reason="The refund failed"
        )
    refund.save(update_fields=["status", "failure", "reversal"])


def _is_disputed(payment: Payment) -> bool:
    open_disputes = Dispute.objects.filter(payment=payment, withdrawal__isnull=False, reinstatement=None)
    return open_disputes.exists()


def _unposted_nanos(organization_id: str) -> int:
    """Usage that is known but not charged yet: its credit is used."""
    waiting = UnpostedUsage.objects.filter(day=OuterRef("day"), request_id=OuterRef("request_id"))
    records = UsageRecord.objects.for_organization(organization_id).filter(Exists(waiting), sandbox=False)
    return records.aggregate(total=Sum("cost_nanos"))["total"] or 0
