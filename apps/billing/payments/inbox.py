"""Events of payment providers: kept as they came, before they are answered; then worked on once, in any order.

An event and what it does are one database transaction, so a crash anywhere leaves both or neither; the provider sends
it again, or the task finds it."""

import logging
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from apps.billing.models import EventStatus, Payment, PaymentStatus, WebhookInbox
from apps.billing.one_by_one import tell_operator
from apps.billing.payments import cards
from apps.billing.payments.completing import apply_payment
from apps.billing.payments.contracts import (
    CardChanged,
    CardRemoved,
    DisputeSeen,
    Fact,
    NoticeRefused,
    PaymentProvider,
    PaymentSeen,
    ProviderAway,
    ProviderRefused,
    RefundsChanged,
    RefundSeen,
)
from apps.billing.payments.disputes import apply_dispute
from apps.billing.payments.errors import Mismatch, NotYet
from apps.billing.payments.providers import provider_named
from apps.billing.payments.refunds import apply_refund
from apps.core.crash_points import crash_point
from apps.core.errors import NotFound

GIVE_UP_AFTER: Final = timedelta(days=3)
"""As long as Stripe tries to deliver an event: what it waits for would have come by then."""
FIRST_WAIT: Final = timedelta(minutes=1)
LONGEST_WAIT: Final = timedelta(hours=1)
MAX_TRIES: Final = 10
"""After so many errors that nobody expected, some eight hours, an event is given up."""
SETTLED: Final = (EventStatus.DONE, EventStatus.IGNORED)
UNEXPECTED: Final = "an error that nobody expected, see the log: "
log = logging.getLogger(__name__)


def receive(provider_name: str, body: bytes, signature: str) -> EventStatus:
    """Prove, keep and work on an event. When this returns, the event is committed and may be answered with 200.

    Raises NoticeRefused for what is not proven or makes no sense, Mismatch for what contradicts our payment: nothing is
    credited. ProviderDisabled and ConfigurationError as `provider_named`; django.db.Error without PostgreSQL."""
    notice = provider_named(provider_name).read_notice(body, signature)
    row, is_new = WebhookInbox.objects.get_or_create(
        provider=provider_name, event_id=notice.event_id, defaults={"type": notice.type, "payload": notice.payload}
    )
    if not is_new:
        WebhookInbox.objects.filter(pk=row.pk).update(deliveries=F("deliveries") + 1)
    status = work_on(row.pk)
    crash_point("P16")
    if status is EventStatus.REFUSED:
        row.refresh_from_db()
        raise Mismatch(row.error)
    return status


def work_on(row_id: int) -> EventStatus:
    """Do what an event says, unless that was done; returns what became of it."""
    row = WebhookInbox.objects.get(pk=row_id)
    if row.status in SETTLED:
        return EventStatus(row.status)
    provider = provider_named(row.provider)
    try:
        facts = _looked_up(provider.facts(row.payload), provider)
        status, paid = _apply(row_id, facts)
    except (NotYet, ProviderAway) as error:
        return _note(row_id, EventStatus.PARKED, error.message, reference=_reference(row.payload, provider))
    except (Mismatch, NoticeRefused, ProviderRefused) as error:
        log.error("an event of a payment provider was refused", extra={"event_id": row.event_id, "why": error.message})
        return _note(row_id, EventStatus.REFUSED, error.message)
    for payment in paid:
        _after(payment)
    return status


def work_on_due() -> int:
    """Work on events that were parked, or whose process died; returns how many were tried."""
    now = timezone.now()
    lost = Q(status=EventStatus.RECEIVED, next_attempt_at=None, received_at__lt=now - FIRST_WAIT)
    due = Q(status__in=[EventStatus.RECEIVED, EventStatus.PARKED], next_attempt_at__lte=now)
    rows = list(WebhookInbox.objects.filter(lost | due).order_by("id").values_list("pk", flat=True)[:200])
    for row_id in rows:
        # Another time first: an event that breaks its process must not stop all others for ever.
        WebhookInbox.objects.filter(pk=row_id).update(next_attempt_at=now + FIRST_WAIT)
        _work_in_turn(row_id)
    return len(rows)


def _work_in_turn(row_id: int) -> None:
    """As `work_on`, for one event of many: an error that nobody expected is noted, and the next one has its turn."""
    try:
        work_on(row_id)
    except Exception as error:
        log.exception("an event of a payment provider failed", extra={"row": row_id})
        _note(row_id, EventStatus.PARKED, f"{UNEXPECTED}{type(error).__name__}")


def replay(event_id: str, *, provider: str = "stripe") -> EventStatus:
    """Work on an event again that was refused, parked or given up. One that is done stays done. Raises NotFound."""
    row = WebhookInbox.objects.filter(provider=provider, event_id=event_id).first()
    if row is None:
        raise NotFound(f"there is no event with the id {event_id!r}")
    return work_on(row.pk)


@transaction.atomic
def _apply(row_id: int, facts: list[Fact]) -> tuple[EventStatus, list[Payment]]:
    """The event's own transaction: what it does, and that it is done."""
    row = WebhookInbox.objects.select_for_update(no_key=True).get(pk=row_id)
    if row.status in SETTLED:
        return EventStatus(row.status), []
    touched = [_apply_one(fact, row.provider) for fact in facts]
    paid = [each for each in touched if isinstance(each, Payment) and each.status == PaymentStatus.PAID]
    row.status = EventStatus.DONE if any(touched) else EventStatus.IGNORED
    row.attempts += 1
    row.error = ""
    row.reference = paid[0].provider_reference if paid else ""
    row.next_attempt_at = None
    row.processed_at = timezone.now()
    row.save()
    return EventStatus(row.status), paid


def _apply_one(fact: Fact, provider: str) -> Payment | bool | None:
    """Whether it concerned us, or the payment that it was about."""
    match fact:
        case PaymentSeen():
            return apply_payment(fact, provider)
        case RefundSeen():
            apply_refund(fact, provider)
        case DisputeSeen():
            apply_dispute(fact, provider)
        case CardRemoved():
            return cards.note_removed(fact.reference, provider)
        case CardChanged():
            return cards.note_changed(fact.card, provider)
        case RefundsChanged():  # looked up before
            return False
    return True


def _looked_up(facts: list[Fact], provider: PaymentProvider) -> list[Fact]:
    """The facts, with "something was refunded" replaced by what: asked before any row is locked."""
    found: list[Fact] = []
    for fact in facts:
        if not isinstance(fact, RefundsChanged):
            found.append(fact)
        elif _is_paid(fact.payment_reference, provider.name):
            found += provider.refunds_of(fact.payment_reference)
        else:
            raise NotYet("the refunded payment has not arrived")
    return found


def _is_paid(reference: str, provider: str) -> bool:
    return Payment.objects.filter(provider=provider, provider_reference=reference, status=PaymentStatus.PAID).exists()


def _after(payment: Payment) -> None:
    """What can go on now that this payment is there: events that waited for it, and its card."""
    waiting = WebhookInbox.objects.filter(
        provider=payment.provider, status=EventStatus.PARKED, reference=payment.provider_reference
    )
    for row_id in list(waiting.order_by("id").values_list("pk", flat=True)):
        _work_in_turn(row_id)
    try:
        cards.save_card_of(payment)
    except Exception:  # the event is done; a task saves the card later
        log.warning("a card was not saved yet", exc_info=True, extra={"payment": payment.id})


def _reference(payload: str, provider: PaymentProvider) -> str:
    """The payment that a parked event waits for."""
    for fact in provider.facts(payload):
        if isinstance(fact, RefundSeen | RefundsChanged | DisputeSeen):
            return fact.payment_reference
    return ""


@transaction.atomic
def _note(row_id: int, status: EventStatus, error: str, *, reference: str = "") -> EventStatus:
    """Write down why an event was not done, and when it is tried again."""
    row = WebhookInbox.objects.select_for_update(no_key=True).get(pk=row_id)
    if row.status in SETTLED:
        return EventStatus(row.status)
    now = timezone.now()
    row.attempts += 1
    row.error = error[:500]
    row.reference = reference or row.reference
    row.next_attempt_at = None
    row.status = status
    too_often = error.startswith(UNEXPECTED) and row.attempts >= MAX_TRIES
    if status is EventStatus.PARKED and (too_often or row.received_at < now - GIVE_UP_AFTER):
        row.status = EventStatus.GIVEN_UP
    elif status is EventStatus.PARKED:
        row.next_attempt_at = now + min(FIRST_WAIT * 2 ** min(row.attempts - 1, 10), LONGEST_WAIT)
    row.save()
    if row.status in (EventStatus.REFUSED, EventStatus.GIVEN_UP):
        _tell(row)
    return EventStatus(row.status)


def _tell(row: WebhookInbox) -> None:
    """Money may have moved at the provider that our books do not show: a person has to look."""
    became = "was refused" if row.status == EventStatus.REFUSED else "is given up"
    tell_operator(
        f"event:{row.provider}:{row.pk}:{row.status}",
        f"An event of {row.provider} {became}: {row.type}",
        f"{row.event_id}: {row.error}. Compare the payment at {row.provider} with ours, then try the event again in "
        "the console (Incoming events).",
        {"event": row.event_id, "type": row.type, "status": str(row.status)},
    )
