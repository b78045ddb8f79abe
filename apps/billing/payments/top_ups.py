"""Top-ups: a payment is written down first, then its provider makes the page on which a person pays; bank transfers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from apps.accounts.models import Organization
from apps.billing.models import Payment, PaymentCustomer, PaymentKind, PaymentStatus
from apps.billing.one_by_one import one_by_one, waiting
from apps.billing.payments.bank_transfer import claim_reference
from apps.billing.payments.completing import apply_payment, credit, fail
from apps.billing.payments.contracts import Customer, Order, Pages, PaymentProvider, ProviderAway, ProviderRefused
from apps.billing.payments.providers import BANK_TRANSFER, STRIPE, provider_named
from apps.core.errors import Conflict, InvalidInput
from apps.core.money import NANOS_PER_CENT, NANOS_PER_USD

FOLLOW_FOR: Final = timedelta(days=3)
"""Stripe closes pages after a day, and banks that pay later take up to some days more; then only an event counts."""
FIRST_LOOK_AFTER: Final = timedelta(minutes=2)
FOLLOW_OFTEN_FOR: Final = timedelta(minutes=20)
"""In the first minutes somebody waits for the answer."""
MAX_OPEN: Final = 20
"""Pages that one organization may have open; nobody needs more, and each is work for the provider."""


@dataclass(frozen=True)
class TopUp:
    """What somebody wants to pay, and who it is."""

    amount_nanos: int
    save_card: bool
    actor: str


def check_amount(amount_nanos: int) -> None:
    """Raises InvalidInput for what cannot be paid: not whole cents, or outside of CRUN_TOP_UP_MIN_USD and _MAX_USD."""
    if amount_nanos % NANOS_PER_CENT:
        raise InvalidInput("an amount is in whole cents")
    low, high = settings.TOP_UP_MIN_USD, settings.TOP_UP_MAX_USD
    if not low * NANOS_PER_USD <= amount_nanos <= high * NANOS_PER_USD:
        raise InvalidInput(f"an amount is {low} to {high} USD")


def order_of(payment: Payment) -> Order:
    """The payment as its provider is told."""
    return Order(
        payment_id=payment.id,
        organization_id=payment.organization_id,
        amount_cents=payment.amount_nanos // NANOS_PER_CENT,
        currency=payment.currency,
        description="Prepaid credit",
    )


def start_top_up(organization: Organization, wanted: TopUp, *, pages: Callable[[Payment], Pages]) -> Payment:
    """A payment with the address of the page to pay it on (`checkout_url`). Nothing is credited before it is paid.

    Raises InvalidInput for the amount, Conflict for too many open pages, ProviderDisabled without a credential,
    ProviderAway and ProviderRefused when there is no page; the payment is marked as failed then."""
    check_amount(wanted.amount_nanos)
    provider = provider_named(STRIPE)
    payments = Payment.objects.for_organization(organization.id)
    recent = timezone.now() - timedelta(hours=1)
    if payments.filter(status=PaymentStatus.PENDING, kind=PaymentKind.TOP_UP, created_at__gt=recent).count() > MAX_OPEN:
        raise Conflict("too many payments are open: pay or leave one of them")
    customer = ensure_customer(provider, organization, email=wanted.actor)
    payment: Payment = Payment.objects.create(
        organization=organization,
        kind=PaymentKind.TOP_UP,
        amount_nanos=wanted.amount_nanos,
        provider=provider.name,
        saves_card=wanted.save_card,
        actor=wanted.actor,
    )
    try:
        page = provider.start_checkout(
            order_of(payment), customer.reference, pages=pages(payment), save_card=wanted.save_card
        )
    except (ProviderAway, ProviderRefused) as error:
        fail(payment, error.message, is_final=True)
        raise
    payment.checkout_reference, payment.checkout_url = page.reference, page.url
    payment.save(update_fields=["checkout_reference", "checkout_url"])
    return payment


def ensure_customer(provider: PaymentProvider, organization: Organization, *, email: str) -> PaymentCustomer:
    """The organization as the provider knows it; introduced on first use."""
    known = PaymentCustomer.objects.for_organization(organization.id).filter(provider=provider.name)
    found: PaymentCustomer | None = known.first()
    if found is not None:
        return found
    made: PaymentCustomer
    reference = provider.create_customer(Customer(organization.id, organization.name, email))
    try:
        with transaction.atomic():
            made = PaymentCustomer.objects.create(
                organization=organization, provider=provider.name, reference=reference, billing_email=email
            )
    except IntegrityError:  # somebody else introduced it at the same moment: one of them is enough
        made = known.get()
    return made


@dataclass(frozen=True)
class Transfer:
    """A bank transfer as an operator saw it. `reference` is the bank's, so that no transfer is recorded twice."""

    amount_nanos: int
    reference: str
    note: str = ""


def record_bank_transfer(organization_id: str, transfer: Transfer, *, actor: str) -> Payment:
    """Credit money that is on the bank account already.

    Raises InvalidInput for an amount without cents, and Conflict when this reference was recorded before."""
    if transfer.amount_nanos <= 0 or transfer.amount_nanos % NANOS_PER_CENT:
        raise InvalidInput("a bank transfer is a positive number of whole cents")
    reference = " ".join(transfer.reference.split())
    if not reference:
        raise InvalidInput("the bank's reference is required")
    try:
        with transaction.atomic():
            claim_reference(reference)
            payment: Payment = Payment.objects.create(
                organization_id=organization_id,
                kind=PaymentKind.BANK_TRANSFER,
                amount_nanos=transfer.amount_nanos,
                provider=BANK_TRANSFER,
                provider_reference=reference,
                actor=actor,
                note=transfer.note,
            )
            credit(payment)
    except IntegrityError as error:
        if not Payment.objects.filter(provider=BANK_TRANSFER, provider_reference=reference).exists():
            raise
        raise Conflict(f"the bank transfer {reference!r} was recorded before") from error
    return payment


def follow_checkouts() -> int:
    """Ask the provider about pages whose end we have not heard of; returns how many were asked about.

    For events that got lost: soon after the start at first, then hourly."""
    work = "following a payment page"
    now = timezone.now()
    open_pages = Payment.objects.filter(
        Q(checked_at=None)
        | Q(checked_at__lt=now - FIRST_LOOK_AFTER, created_at__gt=now - FOLLOW_OFTEN_FOR)
        | Q(checked_at__lt=now - timedelta(hours=1)),
        status=PaymentStatus.PENDING,
        kind=PaymentKind.TOP_UP,
        created_at__lt=now - FIRST_LOOK_AFTER,
        created_at__gt=now - FOLLOW_FOR,
    ).exclude(checkout_reference="")
    ids = open_pages.exclude(pk__in=waiting(work)).order_by("created_at").values_list("pk", flat=True)
    return one_by_one(work, list(ids[:100]), _follow_page, away=ProviderAway)


def _follow_page(payment_id: str) -> bool:
    payment = Payment.objects.get(pk=payment_id)
    Payment.objects.filter(pk=payment.pk).update(checked_at=timezone.now())
    apply_payment(provider_named(payment.provider).checkout(payment.checkout_reference), payment.provider)
    return True
