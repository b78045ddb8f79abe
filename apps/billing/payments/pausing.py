"""When automatic top-ups stop: after failures in a row, without a card, after a dispute; and whom that is told."""

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone

from apps.billing.alerts.raising import raise_alert
from apps.billing.models import AlertKind, AutoTopUp, Payment
from apps.core.money import format_usd

RETRY_AFTER: Final = timedelta(hours=1)
"""After a failure the card is left alone for so long, twice as long after the second one, and so on."""


def note_failure(payment: Payment) -> None:
    """Count a failed automatic top-up, tell its organization, pause after too many; in the payment's transaction."""
    terms = AutoTopUp.objects.select_for_update(no_key=True).filter(organization_id=payment.organization_id).first()
    if terms is None:
        return
    terms.failures += 1
    terms.next_attempt_at = timezone.now() + RETRY_AFTER * 2 ** min(terms.failures - 1, 5)
    terms.save(update_fields=["failures", "next_attempt_at", "updated_at"])
    if terms.failures >= settings.AUTO_TOP_UP_MAX_FAILURES:
        pause(payment.organization_id, f"{terms.failures} payments in a row failed. The last one: {payment.failure}")
        rest = "Automatic top-up is paused until somebody saves its settings again."
    else:
        rest = f"It is tried again after {terms.next_attempt_at:%Y-%m-%d %H:%M} UTC."
    raise_alert(
        payment.organization_id,
        AlertKind.AUTO_TOP_UP_FAILED,
        key=f"auto_top_up.failed:{payment.id}",
        subject="An automatic top-up failed",
        text=f"{format_usd(payment.amount_nanos)} USD could not be charged: {payment.failure} {rest}",
        details={"payment": payment.id, "amount_nanos": payment.amount_nanos, "reason": payment.failure},
    )


def pause(organization_id: str, reason: str) -> bool:
    """Charge the card no more by itself until somebody saves the settings again. Returns whether it was running."""
    running = AutoTopUp.objects.for_organization(organization_id).filter(enabled=True, paused_at=None)
    return bool(running.update(paused_at=timezone.now(), paused_reason=reason[:500]))
