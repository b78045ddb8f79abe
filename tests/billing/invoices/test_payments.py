"""Invoices of payments: one for each that is there, once, and credit notes for what went back."""

from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from apps.billing.grants import adjust
from apps.billing.invoices import payments
from apps.billing.invoices.credit_notes import CreditNoteDraft, issue_credit_note
from apps.billing.invoices.monthly import issue_month, settle
from apps.billing.invoices.payments import issue_for_payment, issue_missing
from apps.billing.invoices.tasks import issue_invoices
from apps.billing.models import CreditNote, Invoice, InvoiceStatus, OddRow, Payment, Refund
from apps.core.errors import Conflict
from tests.billing import books
from tests.billing.invoices import documents

USD = 10**9


def given_back(payment: Payment, amount_usd: int, status: str = "succeeded") -> Refund:
    taken = adjust(
        payment.organization_id, -amount_usd * USD, idempotency_key=books.key(), reason="Given back", actor="test"
    )
    return Refund.objects.create(
        organization_id=payment.organization_id,
        payment=payment,
        amount_nanos=amount_usd * USD,
        status=status,
        reason="Not wanted",
        actor="ada@example.com",
        transaction=taken,
    )


@pytest.mark.django_db
def test_each_payment_has_an_invoice_that_is_paid() -> None:
    documents.seller()
    owner = books.organization()
    documents.profile(owner)
    documents.rate("DE", "25")
    payment = documents.paid(owner, 10)
    assert issue_missing() == 1
    assert issue_missing() == 0
    invoice = Invoice.objects.get()
    assert (invoice.total_cents, invoice.tax_cents, invoice.status) == (1000, 200, InvoiceStatus.PAID)
    assert payment.id in invoice.lines.get().description
    assert issue_for_payment(payment.id) == invoice


@pytest.mark.django_db
def test_a_payment_that_is_not_there_has_none() -> None:
    documents.seller()
    owner = books.organization()
    payment = Payment.objects.create(organization=owner, kind="top_up", amount_nanos=USD, provider="x", actor="test")
    assert issue_missing() == 0
    with pytest.raises(Conflict):
        issue_for_payment(payment.id)


@pytest.mark.django_db(transaction=True)
def test_payments_wait_for_the_seller() -> None:
    documents.paid(books.organization())
    issue_invoices()
    assert not Invoice.objects.exists()
    documents.seller()
    issue_invoices()
    assert Invoice.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_paid_a_monthly_invoice_is_not_invoiced_again() -> None:
    documents.seller()
    owner = documents.on_credit()
    documents.use(owner, documents.this_month().previous().start, 5 * USD)
    issue_month(owner.id, documents.this_month().previous(), now=timezone.now())
    documents.paid(owner, 2)
    documents.paid(owner, 8)
    documents.paid(owner, 4)
    assert issue_missing() == 3
    assert settle(timezone.now()) == 1
    receipts = Invoice.objects.filter(kind="payment").order_by("sequence")
    assert list(receipts.values_list("total_cents", flat=True)) == [0, 500, 400]
    assert sum(Invoice.objects.values_list("total_cents", flat=True)) == 1400


@pytest.mark.django_db(transaction=True)
def test_paid_before_the_month_was_invoiced_it_is_invoiced_as_a_payment_alone() -> None:
    documents.seller()
    owner = documents.on_credit()
    last = documents.this_month().previous()
    documents.use(owner, last.start, 5 * USD)
    documents.paid(owner, 3)
    invoice = issue_month(owner.id, last, now=timezone.now())
    assert invoice is not None
    assert invoice.total_cents == 200
    issue_missing()
    assert sorted(Invoice.objects.values_list("total_cents", flat=True)) == [200, 300]


@pytest.mark.django_db
def test_a_refund_has_a_credit_note_once_and_only_when_it_succeeded() -> None:
    documents.seller()
    owner = books.organization()
    payment = documents.paid(owner, 10)
    given_back(payment, 1, status="pending")
    given_back(payment, 4)
    assert issue_missing() == 2
    assert issue_missing() == 0
    note = CreditNote.objects.get()
    assert (note.amount_cents, note.reason, note.actor, note.transaction) == (
        400,
        "Not wanted",
        "ada@example.com",
        None,
    )
    given_back(payment, 6)
    issue_missing()
    assert Invoice.objects.get().status == InvoiceStatus.VOID


@pytest.mark.django_db
def test_a_refund_beyond_what_its_invoice_still_asks_for_is_credited_up_to_that() -> None:
    documents.seller()
    payment = documents.paid(books.organization(), 10)
    issue_missing()
    issue_credit_note(CreditNoteDraft(Invoice.objects.get().id, 700, "by-hand", "By hand"))
    given_back(payment, 5)
    given_back(payment, 5)
    assert issue_missing() == 1
    assert issue_missing() == 0
    assert sorted(CreditNote.objects.values_list("amount_cents", flat=True)) == [300, 700]


def fails_now(refund: Refund) -> None:
    """The bank sends a refund back that had succeeded."""
    returned = adjust(
        refund.organization_id, refund.amount_nanos, idempotency_key=books.key(), reason="It failed", actor="test"
    )
    Refund.objects.filter(pk=refund.pk).update(status="failed", reversal=returned)


@pytest.mark.django_db
def test_a_refund_that_fails_after_its_credit_note_gets_an_invoice_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the customer has paid credit and no invoice for it. With the taxes of the first day."""
    documents.seller()
    owner = books.organization()
    documents.profile(owner)
    documents.rate("DE", "25")
    payment = documents.paid(owner, 10)
    past = timezone.now() - timedelta(days=40)
    with monkeypatch.context() as patch:
        patch.setattr(timezone, "now", lambda: past)
        issue_missing()
    refund = given_back(payment, 10)
    issue_missing()
    assert Invoice.objects.get().status == InvoiceStatus.VOID
    documents.rate("DE", "0", valid_from=f"{timezone.now():%Y-%m-%d}")
    fails_now(refund)
    assert issue_missing() == 1
    assert issue_missing() == 0
    replacement = Invoice.objects.get(source_key=f"refund-failed:{refund.id}")
    assert (replacement.kind, replacement.status, replacement.total_cents) == ("payment", InvoiceStatus.PAID, 1000)
    assert replacement.tax_cents == 200
    assert payment.id in replacement.lines.get().description
    assert CreditNote.objects.get().number in replacement.note


@pytest.mark.django_db
def test_a_later_refund_credits_what_took_the_place_of_the_first_invoice() -> None:
    documents.seller()
    payment = documents.paid(books.organization(), 10)
    issue_missing()
    first = given_back(payment, 4)
    issue_missing()
    fails_now(first)
    issue_missing()
    second = given_back(payment, 10)
    assert issue_missing() == 1
    assert issue_missing() == 0
    notes = CreditNote.objects.exclude(idempotency_key=f"refund:{first.id}").order_by("id")
    assert [(note.amount_cents, note.invoice.source_key) for note in notes] == [
        (600, f"payment:{payment.id}"),
        (400, f"refund-failed:{first.id}"),
    ]
    assert set(Invoice.objects.values_list("status", flat=True)) == {InvoiceStatus.VOID}
    fails_now(second)
    issue_missing()
    assert Invoice.objects.get(source_key=f"refund-failed:{second.id}").total_cents == 1000


@pytest.mark.django_db
def test_one_odd_payment_or_refund_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    documents.seller()
    odd, fine = documents.paid(books.organization("One"), 10), documents.paid(books.organization("Two"), 10)
    real = payments.issue_for_payment

    def issue(payment_id: str) -> Invoice:
        if payment_id == odd.id:
            raise RuntimeError("odd")
        return real(payment_id)

    monkeypatch.setattr(payments, "issue_for_payment", issue)
    given_back(fine, 4)
    assert issue_missing() == 2
    assert issue_missing() == 0
    assert OddRow.objects.get().subject == odd.id
    assert CreditNote.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_issue_each_once() -> None:
    documents.seller()
    owners = [books.organization(f"Owner {number}") for number in range(3)]
    made = [documents.paid(owners[number % 3], number + 1) for number in range(12)]
    given_back(made[0], 1)
    results = books.at_once([issue_missing] * 3 + [partial(issue_for_payment, payment.id) for payment in made])
    assert [result for result in results if isinstance(result, Exception)] == []
    issue_missing()
    assert sorted(Invoice.objects.values_list("sequence", flat=True)) == list(range(1, 13))
    assert CreditNote.objects.count() == 1
