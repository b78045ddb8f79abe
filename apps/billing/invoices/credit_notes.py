"""Credit notes: taking back a part or all of an invoice, never more than it."""

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from apps.billing.grants import adjust
from apps.billing.invoices import parties
from apps.billing.invoices.amounts import in_usd, share_of_tax
from apps.billing.invoices.issuing import announce, lock_series, next_number
from apps.billing.ledger import SYSTEM, lock_wallets
from apps.billing.models import CreditNote, Invoice, InvoiceKind, InvoiceStatus
from apps.core.errors import Conflict, InvalidInput, NotFound
from apps.core.money import NANOS_PER_CENT


@dataclass(frozen=True)
class CreditNoteDraft:
    """A credit note to be. The same key is the same credit note."""

    invoice_id: str
    amount_cents: int
    idempotency_key: str
    reason: str
    actor: str = SYSTEM


@transaction.atomic
def issue_credit_note(draft: CreditNoteDraft) -> CreditNote:
    """Issue a credit note, once per key; returns the first one for a used key with the same content.

    A monthly invoice's credit note gives the amount to the organization's balance, in the same transaction. A
    payment's does not: its money goes back where it came from. An invoice of which nothing is left is void. Raises
    NotFound, InvalidInput for an amount or reason that makes no sense, and Conflict for more than what is left, or a
    key that was used otherwise."""
    if draft.amount_cents < 1:
        raise InvalidInput("a credit note is about one cent at least")
    if not draft.reason.strip():
        raise InvalidInput("a credit note needs a reason")
    owner = Invoice.objects.filter(pk=draft.invoice_id).values_list("organization_id", flat=True).first()
    if owner is None:
        raise NotFound(f"there is no invoice with the id {draft.invoice_id!r}")
    lock_wallets([owner])
    invoice = Invoice.objects.select_for_update().get(pk=draft.invoice_id)
    if earlier := CreditNote.objects.filter(idempotency_key=draft.idempotency_key).first():
        return _same(earlier, draft)
    credited, credited_tax = credited_so_far(invoice)
    rest = invoice.total_cents - credited
    if draft.amount_cents > rest:
        raise Conflict(f"of {invoice.number} {in_usd(rest)} are left to credit, not {in_usd(draft.amount_cents)}")
    note = _write(draft, invoice, (credited, credited_tax))
    if draft.amount_cents == rest:
        invoice.status, invoice.voided_at = InvoiceStatus.VOID, note.issued_at
        invoice.save(update_fields=["status", "voided_at"])
    announce(note, note.amount_cents, "Credit note")
    return note


def credited_so_far(invoice: Invoice) -> tuple[int, int]:
    """What the credit notes of an invoice took back: cents in all, and cents of tax among them."""
    sums = invoice.credit_notes.aggregate(amount=Sum("amount_cents"), tax=Sum("tax_cents"))
    return sums["amount"] or 0, sums["tax"] or 0


def _write(draft: CreditNoteDraft, invoice: Invoice, earlier: tuple[int, int]) -> CreditNote:
    series = lock_series(parties.seller().credit_note_prefix)
    fields = next_number(series)
    given = None
    if invoice.kind == InvoiceKind.USAGE:
        given = adjust(
            invoice.organization_id,
            draft.amount_cents * NANOS_PER_CENT,
            idempotency_key=f"credit_note:{fields['number']}",
            reason=f"Credit note {fields['number']} for {invoice.number}: {draft.reason.strip()}"[:500],
            actor=draft.actor,
        )
    tax_cents = share_of_tax(
        draft.amount_cents, total_cents=invoice.total_cents, tax_cents=invoice.tax_cents, earlier=earlier
    )
    note: CreditNote = CreditNote.objects.create(
        organization_id=invoice.organization_id,
        invoice=invoice,
        **fields,
        idempotency_key=draft.idempotency_key,
        amount_cents=draft.amount_cents,
        tax_cents=tax_cents,
        reason=draft.reason.strip(),
        transaction=given,
        actor=draft.actor,
        issued_at=timezone.now(),
    )
    return note


def _same(earlier: CreditNote, draft: CreditNoteDraft) -> CreditNote:
    asked = (draft.invoice_id, draft.amount_cents, draft.reason.strip())
    if (earlier.invoice_id, earlier.amount_cents, earlier.reason) != asked:
        raise Conflict(f"the idempotency key {draft.idempotency_key!r} was used for something else: {earlier.number}")
    return earlier
