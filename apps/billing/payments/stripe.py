"""Stripe, by its official library: the only file that imports it. No state of the library is shared or global.

Every call has a deadline and, where it changes something, an idempotency key made of our own id, so that a call whose
answer got lost can be made again. Errors are translated here, once; nothing of Stripe's messages is logged."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
import stripe

from apps.billing.payments.contracts import (
    Card,
    Checkout,
    Customer,
    Fact,
    Notice,
    NoticeRefused,
    Order,
    Outcome,
    Pages,
    PaymentSeen,
    ProviderAway,
    ProviderRefused,
    RefundSeen,
    Subject,
)
from apps.billing.payments.stripe_shapes import (
    ORGANIZATION_KEY,
    PAYMENT_KEY,
    REFUND_KEY,
    CheckoutSession,
    EventEnvelope,
    PaymentIntent,
    PaymentMethod,
    Refund,
    Shape,
    card_seen,
    decode,
    facts_of,
    intent_seen,
    refund_seen,
    session_seen,
)

API_VERSION: Final = "2026-10-28.endive"
"""What the shapes were written for; a new version of the library does not change it."""
MAX_NOTICE_AGE_S: Final = 300
_RETRIES: Final = 1
_CONNECT_TIMEOUT_S: Final = 5.0
_LISTED: Final = 100
_Answer = TypeVar("_Answer", bound=stripe.StripeObject)


@dataclass(frozen=True)
class StripeSettings:
    """The account, and how to reach it. `webhook_secrets` has more than one while they are rotated."""

    secret_key: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    api_url: str
    timeout_s: float


class _Intents(msgspec.Struct):
    data: list[PaymentIntent]


class _Refunds(msgspec.Struct):
    data: list[Refund]


def is_live_key(secret_key: str) -> bool:
    """Whether a key moves real money."""
    return secret_key.startswith(("sk_live_", "rk_live_"))


class StripeProvider:
    """Payments by card, and whatever else the account's Checkout page offers."""

    name = "stripe"

    def __init__(self, settings: StripeSettings) -> None:
        self._settings = settings
        self._client = stripe.StripeClient(
            settings.secret_key,
            stripe_version=API_VERSION,
            base_addresses={"api": settings.api_url},
            max_network_retries=_RETRIES,
            http_client=stripe.RequestsClient(timeout=(_CONNECT_TIMEOUT_S, settings.timeout_s)),
        )

    def create_customer(self, customer: Customer) -> str:
        made = _call(
            lambda: self._client.v1.customers.create(
                {
                    "name": customer.name,
                    "email": customer.email,
                    "metadata": {ORGANIZATION_KEY: customer.organization_id},
                },
                {"idempotency_key": f"customer:{customer.organization_id}:{customer.email}:{customer.name}"[:255]},
            )
        )
        return made.id

    def start_checkout(self, order: Order, customer_reference: str, *, pages: Pages, save_card: bool) -> Checkout:
        payment: dict[str, Any] = {"metadata": _metadata(order), "description": order.description}
        if save_card:
            payment["setup_future_usage"] = "off_session"
        item = {"currency": order.currency, "unit_amount": order.amount_cents}
        params: Any = {
            "mode": "payment",
            "customer": customer_reference,
            "client_reference_id": order.payment_id,
            "metadata": _metadata(order),
            "line_items": [{"quantity": 1, "price_data": {**item, "product_data": {"name": order.description}}}],
            "payment_intent_data": payment,
            "adaptive_pricing": {"enabled": False},  # the amount stays in our currency
            "tax_id_collection": {"enabled": True},
            "customer_update": {"name": "auto", "address": "auto"},
            "success_url": pages.paid_url,
            "cancel_url": pages.left_url,
        }
        key = f"checkout:{order.payment_id}"
        session = _read(_call(lambda: self._client.v1.checkout.sessions.create(params, _once(key))), CheckoutSession)
        if not session.url:
            raise ProviderAway("Stripe returned no page to pay on")
        return Checkout(session.id, session.url)

    def charge_card(self, order: Order, card: Card) -> PaymentSeen:
        params: Any = {
            "amount": order.amount_cents,
            "currency": order.currency,
            "customer": card.customer_reference,
            "payment_method": card.reference,
            "payment_method_types": ["card"],
            "confirm": True,
            "off_session": True,
            "description": order.description,
            "metadata": _metadata(order),
        }
        try:
            made = _call(lambda: self._client.v1.payment_intents.create(params, _once(f"charge:{order.payment_id}")))
        except _Declined as declined:
            return PaymentSeen(
                outcome=Outcome.FAILED,
                subject=_subject(order),
                amount_cents=order.amount_cents,
                currency=order.currency,
                customer_reference=card.customer_reference,
                reference=declined.reference,
                failure=declined.message,
                is_final=not declined.reference,  # its PaymentIntent stays open until it is cancelled
            )
        return intent_seen(_read(made, PaymentIntent))

    def find_payment(self, order: Order, customer_reference: str) -> PaymentSeen | None:
        listed = _call(lambda: self._client.v1.payment_intents.list({"customer": customer_reference, "limit": _LISTED}))
        intents = _read(listed, _Intents).data
        return next((intent_seen(one) for one in intents if one.metadata.get(PAYMENT_KEY) == order.payment_id), None)

    def payment(self, reference: str) -> PaymentSeen:
        return intent_seen(_read(_call(lambda: self._client.v1.payment_intents.retrieve(reference)), PaymentIntent))

    def cancel_payment(self, reference: str) -> PaymentSeen:
        key = f"cancel:{reference}"
        cancelled = _call(lambda: self._client.v1.payment_intents.cancel(reference, {}, _once(key)))
        return intent_seen(_read(cancelled, PaymentIntent))

    def checkout(self, reference: str) -> PaymentSeen:
        found = _call(lambda: self._client.v1.checkout.sessions.retrieve(reference))
        return session_seen(_read(found, CheckoutSession))

    def card(self, reference: str) -> Card:
        found = _call(lambda: self._client.v1.payment_methods.retrieve(reference))
        card = card_seen(_read(found, PaymentMethod))
        if card is None:
            raise ProviderRefused("This way to pay cannot be saved.")
        return card

    def remove_card(self, reference: str) -> None:
        try:
            _call(lambda: self._client.v1.payment_methods.detach(reference))
        except ProviderRefused:
            return  # it is not attached any more: what was wanted

    def refund(self, refund_id: str, payment_reference: str, *, amount_cents: int) -> RefundSeen:
        params: Any = {
            "payment_intent": payment_reference,
            "amount": amount_cents,
            "reason": "requested_by_customer",
            "metadata": {REFUND_KEY: refund_id},
        }
        made = _call(lambda: self._client.v1.refunds.create(params, _once(f"refund:{refund_id}")))
        return refund_seen(_read(made, Refund))

    def refunds_of(self, payment_reference: str) -> list[RefundSeen]:
        listed = _call(lambda: self._client.v1.refunds.list({"payment_intent": payment_reference, "limit": _LISTED}))
        return [refund_seen(refund) for refund in _read(listed, _Refunds).data]

    def read_notice(self, body: bytes, signature: str) -> Notice:
        """Signature, age and mode of an event, in this order; then its envelope."""
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise NoticeRefused("the event is not UTF-8") from error
        secrets = self._settings.webhook_secrets
        if not signature.isascii() or not any(_is_signed(text, signature, secret) for secret in secrets):
            raise NoticeRefused("the signature is not one of ours, or older than 300 s")
        signed_at = next(part for part in signature.split(",") if part.startswith("t="))
        if int(signed_at[2:]) > time.time() + MAX_NOTICE_AGE_S:
            raise NoticeRefused("the signature is from the future: check the clocks")
        event = decode(text, EventEnvelope)
        if event.object != "event":
            raise NoticeRefused("not an event")
        if event.livemode != is_live_key(self._settings.secret_key):
            raise NoticeRefused("an event of the other mode: live and test do not mix")
        return Notice(event.id, event.type, text)

    def facts(self, payload: str) -> list[Fact]:
        return facts_of(payload)


class _Declined(ProviderRefused):
    """A card that was declined. `reference` names the PaymentIntent, when there is one."""

    def __init__(self, message: str, reference: str) -> None:
        super().__init__(message)
        self.reference = reference


def _call(request: Callable[[], _Answer]) -> _Answer:
    """Stripe's answer. Its errors become ours: refused for good, or unknown what happened."""
    try:
        return request()
    except stripe.CardError as error:
        intent = getattr(error.error, "payment_intent", None)
        raise _Declined(error.user_message or "The card was declined.", getattr(intent, "id", "") or "") from error
    except stripe.IdempotencyError as error:
        raise ProviderAway("Stripe is still busy with the same request") from error
    except stripe.InvalidRequestError as error:
        raise ProviderRefused(f"Stripe refuses this request ({error.code or error.http_status}).") from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise ProviderAway("Stripe does not accept our key: check CRUN_STRIPE_SECRET_KEY") from error
    except stripe.StripeError as error:
        raise ProviderAway("Stripe cannot be reached, or does not say what happened") from error


def _read(answer: stripe.StripeObject, shape: type[Shape]) -> Shape:
    """The answer's own text in our shape."""
    response = answer.last_response
    if response is None:
        raise ProviderAway("Stripe's answer has no content")
    try:
        return decode(response.body, shape)
    except NoticeRefused as error:
        raise ProviderAway(f"Stripe's answer cannot be read: {error.message}") from error


def _metadata(order: Order) -> dict[str, str]:
    return {PAYMENT_KEY: order.payment_id, ORGANIZATION_KEY: order.organization_id}


def _subject(order: Order) -> Subject:
    return Subject(order.payment_id, order.organization_id)


def _once(key: str) -> Any:
    return {"idempotency_key": key}


def _is_signed(text: str, signature: str, secret: str) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(text, signature, secret, MAX_NOTICE_AGE_S))
    except stripe.SignatureVerificationError:
        return False
