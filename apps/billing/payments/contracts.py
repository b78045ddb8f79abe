"""What a payment provider is to the rest of billing: one interface, frozen values, and the ways in which it can fail.

Amounts are integer cents of a named currency, as providers count them. A new provider is one file that implements
`PaymentProvider`, a line in `providers.py`, and its tests."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from apps.core.errors import DomainError


class ProviderRefused(DomainError):
    """The provider said no for good: a declined card, an unknown reference. Its sentence may be shown."""

    code = "payment_refused"


class ProviderAway(DomainError):
    """No answer, or none that says what happened: the same call with the same key must be made again."""

    code = "payment_provider_away"


class ProviderDisabled(DomainError):
    """The installation has no credential for this provider."""

    code = "payments_disabled"


class NoticeRefused(DomainError):
    """An event that is not what it claims to be: wrong signature, age, mode or shape."""

    code = "webhook_refused"


class Outcome(StrEnum):
    """What became of a payment or refund, as far as its provider knows."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    """Nobody paid while the page was open."""


@dataclass(frozen=True)
class Order:
    """What is to be paid. `payment_id` names it everywhere and makes repeated calls one."""

    payment_id: str
    organization_id: str
    amount_cents: int
    currency: str
    description: str


@dataclass(frozen=True)
class Customer:
    """An organization as it introduces itself to a provider."""

    organization_id: str
    name: str
    email: str


@dataclass(frozen=True)
class Pages:
    """Where the payer comes back to."""

    paid_url: str
    left_url: str


@dataclass(frozen=True)
class Checkout:
    """A page of the provider on which a person pays."""

    reference: str
    url: str


@dataclass(frozen=True)
class Card:
    """A saved card, without its number."""

    reference: str
    customer_reference: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True)
class Subject:
    """Which of our payments something is about, as the provider repeats it to us."""

    payment_id: str
    organization_id: str


@dataclass(frozen=True)
class PaymentSeen:
    """A payment as its provider sees it. `reference` is empty until it was tried, `checkout_reference` without a page.

    `is_final` says of a failure that nobody can try again."""

    outcome: Outcome
    subject: Subject
    amount_cents: int
    currency: str
    customer_reference: str = ""
    reference: str = ""
    checkout_reference: str = ""
    card_reference: str = ""
    failure: str = ""
    is_final: bool = False
    payer: "Payer | None" = None


@dataclass(frozen=True)
class Payer:
    """What a payer said about itself on the provider's page."""

    name: str = ""
    email: str = ""
    country: str = ""
    tax_id_type: str = ""
    tax_id: str = ""


@dataclass(frozen=True)
class RefundSeen:
    """A refund as its provider sees it. `refund_id` is ours; empty when somebody refunded at the provider itself."""

    outcome: Outcome
    reference: str
    payment_reference: str
    amount_cents: int
    currency: str
    refund_id: str = ""
    failure: str = ""


@dataclass(frozen=True)
class RefundsChanged:
    """Something was refunded of this payment: ask the provider what."""

    payment_reference: str


@dataclass(frozen=True)
class DisputeSeen:
    """A dispute as its provider sees it. `withdrawn` and `reinstated` say that money moved now."""

    reference: str
    payment_reference: str
    amount_cents: int
    currency: str
    status: str
    reason: str
    withdrawn: bool = False
    reinstated: bool = False


@dataclass(frozen=True)
class CardRemoved:
    """The provider no longer has this card."""

    reference: str


@dataclass(frozen=True)
class CardChanged:
    """The provider learned something new about a card, such as its next expiry."""

    card: Card


Fact = PaymentSeen | RefundSeen | RefundsChanged | DisputeSeen | CardRemoved | CardChanged


@dataclass(frozen=True)
class Notice:
    """An event whose sender was proven. `payload` is its text as it came."""

    event_id: str
    type: str
    payload: str


class PaymentProvider(Protocol):
    """Every call has a deadline. ProviderAway: nobody knows what happened. ProviderRefused: it did not."""

    name: str

    def create_customer(self, customer: Customer) -> str:
        """The provider's reference of the organization; the same for the same organization within a day."""

    def start_checkout(self, order: Order, customer_reference: str, *, pages: Pages, save_card: bool) -> Checkout:
        """A page to pay the order on; the same one when asked again."""

    def charge_card(self, order: Order, card: Card) -> PaymentSeen:
        """Charge a saved card while nobody is there; once, however often it is asked."""

    def find_payment(self, order: Order, customer_reference: str) -> PaymentSeen | None:
        """What became of an order whose answer got lost; None when the provider never heard of it."""

    def payment(self, reference: str) -> PaymentSeen:
        """How a payment stands now."""

    def cancel_payment(self, reference: str) -> PaymentSeen:
        """End a payment that has not succeeded, so that it never can. ProviderRefused when it ended before."""

    def checkout(self, reference: str) -> PaymentSeen:
        """How the payment on a page stands now."""

    def card(self, reference: str) -> Card:
        """A saved card."""

    def remove_card(self, reference: str) -> None:
        """Forget a saved card; one that is gone already is no error."""

    def refund(self, refund_id: str, payment_reference: str, *, amount_cents: int) -> RefundSeen:
        """Send money back to who paid; once, however often it is asked."""

    def refunds_of(self, payment_reference: str) -> list[RefundSeen]:
        """All refunds of a payment, also those that were made at the provider itself."""

    def read_notice(self, body: bytes, signature: str) -> Notice:
        """Prove who sent an event. Raises NoticeRefused."""

    def facts(self, payload: str) -> list[Fact]:
        """What a proven event says; empty when it is nothing for us. Raises NoticeRefused when it makes no sense."""
