"""Invoices for payments: one for each payment that is there, and a credit note for each that was given back."""

from datetime import UTC

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, Value
from django.db.models.functions import Concat
from django.utils import timezone

from apps.billing.invoices.amounts import BALANCE, Item, cents_from_nanos
from apps.billing.invoices.credit_notes import CreditNoteDraft, credited_so_far, issue_credit_note
from apps.billing.invoices.issuing import Draft, issue
from apps.billing.invoices.monthly import asked_nanos, latest_month
from apps.billing.invoices.parties import has_seller
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
from apps.billing.one_by_one import one_by_one, waiting
from apps.core.errors import Conflict
from apps.core.money import NANOS_PER_CENT

KIND_WORDS = {
    PaymentKind.TOP_UP: "Prepaid credit",
    PaymentKind.AUTO_TOP_UP: "Prepaid credit, automatic top-up",
    PaymentKind.BANK_TRANSFER: "Prepaid credit, bank transfer",
}


def payment_key(payment_id: str) -> str:
    """What the invoice of a payment is for."""
    return f"payment:{payment_id}"


def replacement_key(refund_id: str) -> str:
    """What the invoice is for that takes the place of what a refund credited before it failed."""
    return f"refund-failed:{refund_id}"


def issue_missing() -> int:
    """Issue what is missing for payments and refunds, oldest first; returns how many documents.

    What goes wrong for one does not stop the others. Without a seller nothing is issued."""
    if not has_seller():
        return 0
    work = "invoice of a payment"
    invoices = Invoice.objects.filter(source_key=Concat(Value("payment:"), OuterRef("id")))
    paid = Payment.objects.filter(~Exists(invoices), status=PaymentStatus.PAID).exclude(pk__in=waiting(work))
    ids = list(paid.order_by("paid_at", "id").values_list("id", flat=True))
    return one_by_one(work, ids, issue_for_payment) + _credit_refunds() + _replace_credited()


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
    """Credit notes for each refund that succeeded, over as much as its invoices asked for and still ask for."""
    work = "credit note of a refund"
    notes = CreditNote.objects.filter(idempotency_key=Concat(Value("refund:"), OuterRef("id")))
    done = Refund.objects.filter(~Exists(notes), status=RefundStatus.SUCCEEDED).exclude(pk__in=waiting(work))
    return one_by_one(work, list(done.order_by("id").values_list("id", flat=True)), _credit_refund)


@transaction.atomic
def _credit_refund(refund_id: str) -> bool:
    """One credit note an invoice: usually the payment's own, then those that took its place when refunds failed."""
    refund = Refund.objects.select_related("payment").get(pk=refund_id)
    lock_wallets([refund.organization_id])
    left = refund.amount_nanos // NANOS_PER_CENT
    key = f"refund:{refund.id}"
    for invoice in _invoices_of(refund.payment):
        amount_cents = min(left, invoice.total_cents - credited_so_far(invoice)[0])
        if amount_cents:
            issue_credit_note(CreditNoteDraft(invoice.id, amount_cents, key, refund.reason, refund.actor))
            key = f"refund:{refund.id}:{invoice.id}"
            left -= amount_cents
    return bool(left < refund.amount_nanos // NANOS_PER_CENT)


def _invoices_of(payment: Payment) -> list[Invoice]:
    keys = [payment_key(payment.id), *(replacement_key(refund.id) for refund in payment.refunds.all())]
    return list(Invoice.objects.filter(source_key__in=keys).order_by("id"))


def _replace_credited() -> int:
    """An invoice for each refund that failed after its credit notes were issued: the payment is there again."""
    work = "invoice after a failed refund"
    notes = CreditNote.objects.filter(idempotency_key=Concat(Value("refund:"), OuterRef("id")))
    replaced = Invoice.objects.filter(source_key=Concat(Value("refund-failed:"), OuterRef("id")))
    failed = Refund.objects.filter(Exists(notes), ~Exists(replaced), status=RefundStatus.FAILED)
    ids = failed.exclude(pk__in=waiting(work)).order_by("id").values_list("id", flat=True)
    return one_by_one(work, list(ids), _replace)


@transaction.atomic
def _replace(refund_id: str) -> Invoice:
    """Over what the refund's credit notes took back, with the taxes of the day on which it was invoiced first."""
    refund = Refund.objects.select_related("payment").get(pk=refund_id)
    lock_wallets([refund.organization_id])
    of_refund = Q(idempotency_key=f"refund:{refund.id}") | Q(idempotency_key__startswith=f"refund:{refund.id}:")
    notes = list(CreditNote.objects.filter(of_refund).select_related("invoice").order_by("id"))
    kind = KIND_WORDS[PaymentKind(refund.payment.kind)]
    draft = Draft(
        refund.organization_id,
        InvoiceKind.PAYMENT,
        source_key=replacement_key(refund.id),
        items=[Item(f"{kind} ({refund.payment_id})", sum(note.amount_cents for note in notes) * NANOS_PER_CENT)],
        note=f"The refund failed. In place of what was credited by {', '.join(note.number for note in notes)}.",
        is_paid=True,
        taxed_on=notes[0].invoice.issued_at.astimezone(UTC).date(),
    )
    return issue(draft)
