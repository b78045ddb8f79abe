"""Invoices for payments: one for each payment that is there, and a credit note for each that was given back."""

import logging

from django.db import transaction
from django.db.models import Exists, OuterRef, Value
from django.db.models.functions import Concat
from django.utils import timezone

from apps.billing.invoices.amounts import BALANCE, NANOS_PER_CENT, Item, cents_from_nanos
from apps.billing.invoices.credit_notes import CreditNoteDraft, credited_so_far, issue_credit_note
from apps.billing.invoices.issuing import Draft, issue
from apps.billing.invoices.monthly import asked_nanos, latest_month
from apps.billing.invoices.positions import owed_from_before
from apps.billing.ledger import lock_wallets
from apps.billing.models import (
    CreditNote,
    Invoice,
    InvoiceKind,
    InvoiceStatus,
    Payment,
    PaymentKind,
    PaymentStatus,
    Refund,
)
from apps.billing.models.payments import RefundStatus
from apps.core.errors import Conflict, DomainError

KIND_WORDS = {
    PaymentKind.TOP_UP: "Prepaid credit",
    PaymentKind.AUTO_TOP_UP: "Prepaid credit, automatic top-up",
    PaymentKind.BANK_TRANSFER: "Prepaid credit, bank transfer",
}
log = logging.getLogger(__name__)


def payment_key(payment_id: str) -> str:
    """What the invoice of a payment is for."""
    return f"payment:{payment_id}"


def issue_missing() -> int:
    """Issue what is missing for payments and refunds, oldest first; returns how many documents."""
    invoices = Invoice.objects.filter(source_key=Concat(Value("payment:"), OuterRef("id")))
    paid = Payment.objects.filter(~Exists(invoices), status=PaymentStatus.PAID)
    issued = 0
    for payment_id in list(paid.order_by("paid_at", "id").values_list("id", flat=True)):
        try:
            issue_for_payment(payment_id)
        except DomainError as error:  # one odd payment must not hold up all others
            log.error("a payment has no invoice: %s", error.message, extra={"payment": payment_id})
            continue
        issued += 1
    return issued + _credit_refunds()


@transaction.atomic
def issue_for_payment(payment_id: str) -> Invoice:
    """The invoice of a payment that is there, once; what of it paid monthly invoices is not invoiced again.

    Raises ConfigurationError when no seller is known and Conflict for a payment that is not there."""
    payment = Payment.objects.select_related("grant__transaction").get(pk=payment_id)
    if payment.grant is None or payment.paid_at is None:
        raise Conflict(f"{payment_id} is not paid")
    lock_wallets([payment.organization_id])
    items = [Item(f"{KIND_WORDS[PaymentKind(payment.kind)]} ({payment.id})", payment.amount_nanos)]
    covered = min(payment.amount_nanos, _asked_before(payment))
    if covered:
        items.append(Item("Of this for monthly invoices issued before", -covered, BALANCE))
    draft = Draft(
        payment.organization_id,
        InvoiceKind.PAYMENT,
        source_key=payment_key(payment.id),
        items=items,
        note=f"Paid on {payment.paid_at:%Y-%m-%d}.",
        is_paid=True,
    )
    return issue(draft)


@transaction.atomic
def mark_paid(invoice_id: str) -> Invoice:
    """Note that a manual invoice was paid. Raises Conflict for others, which follow the ledger, and for paid ones."""
    invoice: Invoice = Invoice.objects.select_for_update().get(pk=invoice_id)
    if invoice.kind != InvoiceKind.MANUAL:
        raise Conflict(f"{invoice.number} is paid when the wallet is: record the payment instead")
    if invoice.status != InvoiceStatus.ISSUED:
        raise Conflict(f"{invoice.number} is {invoice.status} already")
    invoice.status, invoice.paid_at = InvoiceStatus.PAID, timezone.now()
    invoice.save(update_fields=["status", "paid_at"])
    return invoice


def _asked_before(payment: Payment) -> int:
    """How much monthly invoices still asked for when the payment came (nano-USD): it paid them first."""
    month = latest_month(payment.organization_id)
    if month is None or payment.grant is None:
        return 0
    moment = payment.grant.transaction.created_at
    if moment < month.end:
        return 0
    owed = owed_from_before(payment.organization_id, month.end, seen_at=moment)
    asked = asked_nanos(payment.organization_id, seen_at=moment, issued_before=moment)
    return min(asked, cents_from_nanos(owed) * NANOS_PER_CENT)


def _credit_refunds() -> int:
    """A credit note for each refund that succeeded, over as much as its invoice asked for and still asks for."""
    notes = CreditNote.objects.filter(idempotency_key=Concat(Value("refund:"), OuterRef("id")))
    done = Refund.objects.filter(~Exists(notes), status=RefundStatus.SUCCEEDED).order_by("id")
    issued = 0
    for refund in list(done):
        invoice = Invoice.objects.filter(source_key=payment_key(refund.payment_id)).first()
        rest = invoice.total_cents - credited_so_far(invoice)[0] if invoice else 0
        amount_cents = min(refund.amount_nanos // NANOS_PER_CENT, rest)
        if invoice is None or not amount_cents:
            continue
        draft = CreditNoteDraft(invoice.id, amount_cents, f"refund:{refund.id}", refund.reason, refund.actor)
        try:
            issue_credit_note(draft)
        except Conflict as error:  # somebody else was faster; the next run looks again
            log.info("a refund has no credit note yet: %s", error.message, extra={"refund": refund.id})
            continue
        issued += 1
    return issued
