"""The payment that a refund or a dispute is about: found by what its provider calls it, and locked."""

from apps.billing.models import Payment, PaymentStatus
from apps.billing.payments.errors import NotYet


def paid_payment(provider: str, reference: str, *, what: str) -> Payment:
    """Our payment under the provider's reference, locked until COMMIT.

    Raises NotYet when it is not known here or not paid yet; `what` names it there: the "refunded" payment."""
    payment: Payment | None = (
        Payment.objects.filter(provider=provider, provider_reference=reference)
        .exclude(provider_reference="")
        .select_for_update(no_key=True)
        .first()
    )
    if payment is None or payment.status != PaymentStatus.PAID:
        raise NotYet(f"the {what} payment has not arrived")
    return payment
