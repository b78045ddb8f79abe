"""Credit notes: together never more than their invoice, whoever issues at once; the ledger moves with them."""

from functools import partial

import pytest
from django.db import DatabaseError, transaction

from apps.billing.invoices.credit_notes import CreditNoteDraft, issue_credit_note
from apps.billing.invoices.issuing import issue
from apps.billing.invoices.monthly import issue_month
from apps.billing.ledger import balance_nanos
from apps.billing.models import CreditNote, DocumentSeries, Invoice, InvoiceStatus, LedgerTransaction
from apps.core.errors import Conflict, InvalidInput, NotFound
from tests.billing import books
from tests.billing.invoices import documents

USD = 10**9


def monthly() -> Invoice:
    """A monthly invoice over $5."""
    documents.seller()
    owner = documents.on_credit()
    documents.use(owner, documents.this_month().start, 5 * USD)
    invoice = issue_month(owner.id, documents.this_month(), now=documents.after(documents.this_month()))
    assert invoice is not None
    return invoice


def crediting(invoice: Invoice, cents: int, key: str, reason: str = "Outage") -> "partial[CreditNote]":
    return partial(issue_credit_note, CreditNoteDraft(invoice.id, cents, key, reason, "ada@example.com"))


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_never_take_back_more_than_the_invoice() -> None:
    invoice = monthly()
    results = books.at_once([crediting(invoice, 120, f"note-{number}") for number in range(20)])
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 16 + ["CreditNote"] * 4
    assert sorted(CreditNote.objects.values_list("number", flat=True)) == [f"CN-{n:06d}" for n in range(1, 5)]
    assert balance_nanos(invoice.organization_id) == -5 * USD + 480 * 10**7
    assert books.failed_proofs() == []


@pytest.mark.django_db(transaction=True)
def test_twenty_twins_are_one_credit_note_and_one_movement() -> None:
    invoice = monthly()
    results = books.at_once([crediting(invoice, 100, "once")] * 20)
    assert {result.id for result in results} == {CreditNote.objects.get().id}
    assert balance_nanos(invoice.organization_id) == -4 * USD
    assert DocumentSeries.objects.get(pk="CN-").last_number == 1


@pytest.mark.django_db(transaction=True)
def test_the_database_itself_refuses_too_much() -> None:
    """Two sessions that go around the functions: the second waits for the first, and sees it."""
    invoice = monthly()

    def insert(number: int) -> None:
        with transaction.atomic():
            series = DocumentSeries.objects.get_or_create(prefix=f"X{number}-")[0]
            DocumentSeries.objects.filter(pk=series.pk).update(last_number=1)
            CreditNote.objects.create(
                organization_id=invoice.organization_id,
                invoice=invoice,
                number=f"X{number}-000001",
                series=series,
                sequence=1,
                idempotency_key=f"x{number}",
                amount_cents=300,
                tax_cents=0,
                reason="x",
                actor="x",
            )

    results = books.at_once([partial(insert, number) for number in range(4)])
    assert sum(isinstance(result, DatabaseError) for result in results) == 3
    assert CreditNote.objects.count() == 1


@pytest.mark.django_db
def test_all_of_it_makes_the_invoice_void_and_takes_back_all_its_tax() -> None:
    documents.seller()
    owner = books.organization()
    documents.profile(owner)
    documents.rate("DE", "19")
    invoice = issue(documents.draft(owner, 9_990_000_000))
    for cents, key in ((333, "a"), (333, "b"), (333, "c")):
        crediting(invoice, cents, key)()
    invoice.refresh_from_db()
    assert invoice.status == InvoiceStatus.VOID
    assert sum(CreditNote.objects.values_list("tax_cents", flat=True)) == invoice.tax_cents == 160
    with pytest.raises(Conflict, match=r"\$0.00 are left"):
        crediting(invoice, 1, "d")()
    books.settle_constraints()


@pytest.mark.django_db
def test_only_monthly_invoices_move_the_balance() -> None:
    documents.seller()
    owner = books.organization()
    for kind in ("payment", "manual"):
        crediting(issue(documents.draft(owner, kind=kind, is_paid=True)), 50, kind)()
    assert not LedgerTransaction.objects.exists()


@pytest.mark.django_db
def test_a_used_key_is_for_the_same_thing() -> None:
    invoice = monthly()
    first = crediting(invoice, 100, "key")()
    assert crediting(invoice, 100, "key")() == first
    with pytest.raises(Conflict, match="something else"):
        crediting(invoice, 101, "key")()
    assert balance_nanos(invoice.organization_id) == -4 * USD


@pytest.mark.django_db
def test_nonsense_is_refused() -> None:
    invoice = monthly()
    for cents, reason in ((0, "x"), (-5, "x"), (5, "  ")):
        with pytest.raises(InvalidInput):
            crediting(invoice, cents, "k", reason)()
    with pytest.raises(NotFound):
        issue_credit_note(CreditNoteDraft("inv_none", 1, "k", "x"))
