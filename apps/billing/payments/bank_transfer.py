"""Bank transfers: an operator saw the money arrive and writes it down. There is nobody to call."""

from django.db import connection

from apps.billing.models import Payment
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
    ProviderRefused,
    RefundSeen,
)
from apps.core.errors import Conflict

NAME = "bank_transfer"
_NO_PAGE = "Bank transfers are recorded by the operator."


def is_recorded(reference: str) -> bool:
    """Whether a transfer with this reference is known, in capitals or not. White space is collapsed already."""
    return Payment.objects.filter(provider=NAME, provider_reference__iexact=reference).exists()


def claim_reference(reference: str) -> None:
    """Nobody else records this reference until the end of the database transaction.

    Raises Conflict when it is known."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(upper(%s), 0))", [f"{NAME}:{reference}"])
    if is_recorded(reference):
        raise Conflict(f"the bank transfer {reference!r} was recorded before")


class BankTransfers:
    """The provider of what people do by hand."""

    name = NAME

    def create_customer(self, customer: Customer) -> str:
        return customer.organization_id

    def start_checkout(self, order: Order, customer_reference: str, *, pages: Pages, save_card: bool) -> Checkout:
        raise ProviderRefused(_NO_PAGE)

    def charge_card(self, order: Order, card: Card) -> PaymentSeen:
        raise ProviderRefused(_NO_PAGE)

    def find_payment(self, order: Order, customer_reference: str) -> PaymentSeen | None:
        return None

    def payment(self, reference: str) -> PaymentSeen:
        raise ProviderRefused(_NO_PAGE)

    def cancel_payment(self, reference: str) -> PaymentSeen:
        raise ProviderRefused(_NO_PAGE)

    def checkout(self, reference: str) -> PaymentSeen:
        raise ProviderRefused(_NO_PAGE)

    def card(self, reference: str) -> Card:
        raise ProviderRefused(_NO_PAGE)

    def remove_card(self, reference: str) -> None:
        raise ProviderRefused(_NO_PAGE)

    def refund(self, refund_id: str, payment_reference: str, *, amount_cents: int) -> RefundSeen:
        """Done when it is written down: the operator sends the money back at the bank."""
        return RefundSeen(Outcome.SUCCEEDED, refund_id, payment_reference, amount_cents, "usd", refund_id)

    def refunds_of(self, payment_reference: str) -> list[RefundSeen]:
        return []

    def read_notice(self, body: bytes, signature: str) -> Notice:
        raise NoticeRefused("banks send no events")

    def facts(self, payload: str) -> list[Fact]:
        return []
