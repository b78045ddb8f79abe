"""Stripe's objects as far as we read them, strictly typed, and what each event says. Pure.

Shapes of the API version that `stripe.py` pins; fields that we do not name are ignored."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import msgspec

from apps.billing.payments.contracts import (
    Card,
    CardChanged,
    CardRemoved,
    DisputeSeen,
    Fact,
    NoticeRefused,
    Outcome,
    Payer,
    PaymentSeen,
    RefundsChanged,
    RefundSeen,
    Subject,
)

PAYMENT_KEY = "crun_payment"
ORGANIZATION_KEY = "crun_organization"
REFUND_KEY = "crun_refund"

Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]
Cents = Annotated[int, msgspec.Meta(ge=0, le=10**14)]
Shape = TypeVar("Shape")


class Failure(msgspec.Struct):
    """Why a card was not charged."""

    message: str | None = None
    code: str | None = None
    decline_code: str | None = None


class PaymentIntent(msgspec.Struct):
    """https://docs.stripe.com/api/payment_intents/object"""

    id: Reference
    amount: Cents
    currency: str
    status: str
    amount_received: Cents = 0
    customer: str | None = None
    payment_method: str | None = None
    metadata: dict[str, str] = {}
    last_payment_error: Failure | None = None


class TaxId(msgspec.Struct):
    """A tax id as the payer wrote it."""

    type: str
    value: str | None = None


class Address(msgspec.Struct):
    """Of an address we keep the country."""

    country: str | None = None


class CustomerDetails(msgspec.Struct):
    """What the payer entered."""

    name: str | None = None
    email: str | None = None
    address: Address | None = None
    tax_ids: list[TaxId] | None = None


class CheckoutSession(msgspec.Struct):
    """https://docs.stripe.com/api/checkout/sessions/object"""

    id: Reference
    mode: str
    status: str | None
    payment_status: str
    amount_total: Cents | None = None
    currency: str | None = None
    customer: str | None = None
    payment_intent: str | None = None
    url: str | None = None
    metadata: dict[str, str] | None = None
    customer_details: CustomerDetails | None = None


class Refund(msgspec.Struct):
    """https://docs.stripe.com/api/refunds/object"""

    id: Reference
    amount: Cents
    currency: str
    status: str | None = None
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None
    failure_reason: str | None = None


class Charge(msgspec.Struct):
    """https://docs.stripe.com/api/charges/object"""

    payment_intent: str | None = None


class Dispute(msgspec.Struct):
    """https://docs.stripe.com/api/disputes/object"""

    id: Reference
    amount: Cents
    currency: str
    status: str
    reason: str = ""
    payment_intent: str | None = None


class CardDetails(msgspec.Struct):
    """The part of a card that may be shown."""

    brand: Annotated[str, msgspec.Meta(max_length=40)]
    last4: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}$")]
    exp_month: Annotated[int, msgspec.Meta(ge=1, le=12)]
    exp_year: Annotated[int, msgspec.Meta(ge=2000, le=9999)]


class PaymentMethod(msgspec.Struct):
    """https://docs.stripe.com/api/payment_methods/object"""

    id: Reference
    type: str
    customer: str | None = None
    card: CardDetails | None = None


class EventEnvelope(msgspec.Struct):
    """https://docs.stripe.com/api/events/object, without what happened."""

    id: Reference
    object: str
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[a-z0-9_.]+$")]
    livemode: bool


def decode(text: str | bytes, shape: type[Shape]) -> Shape:
    """Typed content of a JSON text. Raises NoticeRefused, naming the place and never the value."""
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.MsgspecError as error:
        raise NoticeRefused(f"not a {shape.__name__} of Stripe: {error}") from error


def intent_seen(intent: PaymentIntent) -> PaymentSeen:
    """A PaymentIntent as a payment. Raises NoticeRefused for one that succeeded without all of its money."""
    has_all = intent.status == "succeeded"
    if has_all and intent.amount_received != intent.amount:
        raise NoticeRefused("it succeeded with another amount than was asked for")
    failed = intent.status in ("requires_payment_method", "requires_action", "requires_confirmation", "canceled")
    failure = intent.last_payment_error
    words = "the bank asks for a confirmation by its customer" if intent.status == "requires_action" else ""
    return PaymentSeen(
        outcome=Outcome.SUCCEEDED if has_all else Outcome.FAILED if failed else Outcome.OPEN,
        subject=_subject(intent.metadata),
        amount_cents=intent.amount,
        currency=intent.currency,
        customer_reference=intent.customer or "",
        reference=intent.id,
        card_reference=intent.payment_method or "",
        failure=((failure.message if failure else None) or words)[:300] if failed else "",
        is_final=intent.status == "canceled",
    )


def session_seen(session: CheckoutSession) -> PaymentSeen:
    """A Checkout Session as a payment. "No payment required" is none."""
    outcome = Outcome.OPEN
    if session.payment_status == "paid":
        outcome = Outcome.SUCCEEDED
    elif session.status == "expired":
        outcome = Outcome.EXPIRED
    return PaymentSeen(
        outcome=outcome,
        subject=_subject(session.metadata or {}),
        amount_cents=session.amount_total or 0,
        currency=session.currency or "",
        customer_reference=session.customer or "",
        reference=session.payment_intent or "",
        checkout_reference=session.id,
        is_final=outcome is Outcome.EXPIRED,
        payer=_payer(session.customer_details) if session.customer_details else None,
    )


def refund_seen(refund: Refund) -> RefundSeen:
    """A Refund; one that waits for its receiver is still under way."""
    outcomes = {"succeeded": Outcome.SUCCEEDED, "failed": Outcome.FAILED, "canceled": Outcome.FAILED}
    return RefundSeen(
        outcome=outcomes.get(refund.status or "", Outcome.OPEN),
        reference=refund.id,
        payment_reference=refund.payment_intent or "",
        amount_cents=refund.amount,
        currency=refund.currency,
        refund_id=(refund.metadata or {}).get(REFUND_KEY, ""),
        failure=(refund.failure_reason or "").replace("_", " ")[:300],
    )


def card_seen(method: PaymentMethod) -> Card | None:
    """A saved card; None for any other way to pay, and for a card of nobody."""
    if method.card is None or not method.customer:
        return None
    card = method.card
    return Card(method.id, method.customer, card.brand, card.last4, card.exp_month, card.exp_year)


def facts_of(payload: str) -> list[Fact]:
    """What an event says, empty for types that we do not know. Raises NoticeRefused for a shape that is wrong."""
    kind = decode(payload, EventEnvelope).type
    read = _READERS.get(kind)
    return read(payload, kind) if read else []


class _Inside(msgspec.Struct):
    object: msgspec.Raw


class _Event(msgspec.Struct):
    data: _Inside


def _inside(payload: str, shape: type[Shape]) -> Shape:
    return decode(bytes(decode(payload, _Event).data.object), shape)


def _session_facts(payload: str, kind: str) -> list[Fact]:
    session = _inside(payload, CheckoutSession)
    if session.mode != "payment":
        return []
    seen = session_seen(session)
    if kind == "checkout.session.async_payment_failed":
        seen = replace(seen, outcome=Outcome.FAILED, failure="The bank did not pay.", is_final=True)
    return [seen]


def _intent_facts(payload: str, kind: str) -> list[Fact]:
    return [intent_seen(_inside(payload, PaymentIntent))]


def _refund_facts(payload: str, kind: str) -> list[Fact]:
    return [refund_seen(_inside(payload, Refund))]


def _charge_facts(payload: str, kind: str) -> list[Fact]:
    reference = _inside(payload, Charge).payment_intent
    return [RefundsChanged(reference)] if reference else []


def _dispute_facts(payload: str, kind: str) -> list[Fact]:
    dispute = _inside(payload, Dispute)
    return [
        DisputeSeen(
            reference=dispute.id,
            payment_reference=dispute.payment_intent or "",
            amount_cents=dispute.amount,
            currency=dispute.currency,
            status=dispute.status[:60],
            reason=dispute.reason[:100],
            withdrawn=kind == "charge.dispute.funds_withdrawn",
            reinstated=kind == "charge.dispute.funds_reinstated",
        )
    ]


def _method_facts(payload: str, kind: str) -> list[Fact]:
    method = _inside(payload, PaymentMethod)
    if kind == "payment_method.detached":
        return [CardRemoved(method.id)]
    card = card_seen(method)
    return [CardChanged(card)] if card else []


_READERS: dict[str, Callable[[str, str], list[Fact]]] = {
    "checkout.session.completed": _session_facts,
    "checkout.session.async_payment_succeeded": _session_facts,
    "checkout.session.async_payment_failed": _session_facts,
    "checkout.session.expired": _session_facts,
    "payment_intent.succeeded": _intent_facts,
    "payment_intent.payment_failed": _intent_facts,
    "payment_intent.canceled": _intent_facts,
    "refund.created": _refund_facts,
    "refund.updated": _refund_facts,
    "refund.failed": _refund_facts,
    "charge.refund.updated": _refund_facts,
    "charge.refunded": _charge_facts,
    "charge.dispute.created": _dispute_facts,
    "charge.dispute.updated": _dispute_facts,
    "charge.dispute.closed": _dispute_facts,
    "charge.dispute.funds_withdrawn": _dispute_facts,
    "charge.dispute.funds_reinstated": _dispute_facts,
    "payment_method.detached": _method_facts,
    "payment_method.updated": _method_facts,
    "payment_method.automatically_updated": _method_facts,
}

KNOWN_EVENTS = tuple(_READERS)
"""The types to subscribe to at Stripe."""


def _subject(metadata: Mapping[str, Any]) -> Subject:
    return Subject(metadata.get(PAYMENT_KEY, ""), metadata.get(ORGANIZATION_KEY, ""))


def _payer(details: CustomerDetails) -> Payer:
    tax = next((each for each in details.tax_ids or [] if each.value), None)
    return Payer(
        name=(details.name or "")[:300],
        email=(details.email or "")[:320],
        country=((details.address.country if details.address else None) or "")[:2],
        tax_id_type=tax.type[:40] if tax else "",
        tax_id=(tax.value or "")[:100] if tax else "",
    )
