"""Issued invoices: numbers without a gap whoever issues at once, and rows that nobody can change."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction

from apps.billing.invoices import parties
from apps.billing.invoices.credit_notes import CreditNoteDraft, issue_credit_note
from apps.billing.invoices.issuing import issue, lock_series, next_number
from apps.billing.models import (
    Alert,
    CreditNote,
    DocumentSeries,
    Invoice,
    InvoiceLine,
    InvoiceTax,
    SellerProfile,
    TaxRate,
)
from apps.core.errors import ConfigurationError, Conflict, InvalidInput
from tests.billing import books
from tests.billing.invoices import documents

ROOT = Path(__file__).resolve().parents[3]
ISSUE = """
import sys, django
django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
from django.db import transaction
from apps.billing.invoices.amounts import Item
from apps.billing.invoices.issuing import Draft, issue
from apps.billing.models import InvoiceKind
with transaction.atomic():
    issue(Draft(sys.argv[2], InvoiceKind.MANUAL, "killed", [Item("Never", 10**9)]))
    print("issued", flush=True)
    sys.stdin.readline()
"""


def numbers() -> list[str]:
    return sorted(Invoice.objects.values_list("number", flat=True))


@pytest.mark.django_db(transaction=True)
def test_numbers_have_no_gap_when_many_issue_at_once_and_some_fail() -> None:
    """Forty issue at once, every third of them fails after it got its number."""
    documents.seller()
    owners = [books.organization(f"Owner {number}") for number in range(4)]

    def issue_or_fail(place: int) -> None:
        with transaction.atomic():
            issue(documents.draft(owners[place % 4], key=f"at-once:{place}"))
            if place % 3 == 0:
                raise RuntimeError("after the number")

    results = books.at_once([partial(issue_or_fail, place) for place in range(40)])
    failed = [result for result in results if isinstance(result, Exception)]
    assert {type(error) for error in failed} == {RuntimeError}
    assert len(failed) == 14
    assert numbers() == [f"INV-{number:06d}" for number in range(1, 27)]
    assert DocumentSeries.objects.get().last_number == 26


@pytest.mark.django_db(transaction=True)
def test_twenty_twins_are_one_invoice() -> None:
    documents.seller()
    owner = books.organization()
    draft = documents.draft(owner, key="once")
    results = books.at_once([partial(issue, draft)] * 20)
    assert {result.id for result in results} == {Invoice.objects.get().id}
    assert numbers() == ["INV-000001"]


@pytest.mark.django_db(transaction=True)
def test_a_process_killed_after_it_got_a_number_leaves_no_gap() -> None:
    documents.seller()
    owner = books.organization()
    issue(documents.draft(owner))
    command = [sys.executable, "-c", ISSUE, str(connection.settings_dict["NAME"]), owner.id]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "issued\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    deadline = time.monotonic() + 20
    issue(documents.draft(owner))  # waits for the lock until PostgreSQL has noticed
    assert time.monotonic() < deadline
    assert numbers() == ["INV-000001", "INV-000002"]
    assert not Invoice.objects.filter(source_key="killed").exists()


@pytest.mark.django_db
def test_without_a_seller_there_is_no_invoice() -> None:
    owner = books.organization()
    with pytest.raises(ConfigurationError, match="Seller"):
        issue(documents.draft(owner))
    assert not Invoice.objects.exists()


@pytest.mark.django_db
def test_the_same_source_for_another_organization_is_a_conflict() -> None:
    documents.seller()
    issue(documents.draft(books.organization(), key="mine"))
    with pytest.raises(Conflict):
        issue(documents.draft(books.organization("Other"), key="mine"))


@pytest.mark.django_db
@pytest.mark.parametrize("amounts", [(-(10**9),), ()])
def test_nothing_or_less_is_no_invoice(amounts: tuple[int, ...]) -> None:
    documents.seller()
    draft = documents.draft(books.organization(), *amounts)
    items = draft.items if amounts else []
    with pytest.raises(InvalidInput):
        issue(type(draft)(draft.organization_id, draft.kind, draft.source_key, items))


@pytest.mark.django_db
def test_it_keeps_the_parties_taxes_and_lines_of_the_moment() -> None:
    documents.seller()
    owner = books.organization()
    profile = documents.profile(owner)
    documents.rate("DE", "19", valid_from="2020-01-01")
    documents.rate("DE", "20", valid_from="2021-01-01")
    documents.rate("DE", "25", valid_from="2199-01-01")
    documents.rate("FR", "21")
    invoice = issue(documents.draft(owner, 12_000_000_000, 4_000_000))
    profile.legal_name = "Renamed"
    profile.save()
    SellerProfile.objects.update(name="Sold")
    invoice.refresh_from_db()
    assert (invoice.buyer["name"], invoice.seller["name"]) == ("Acme Inc.", "Crunch GmbH")
    assert (invoice.total_nanos, invoice.total_cents, invoice.tax_cents) == (12_004_000_000, 1200, 200)
    assert [(line.kind, line.amount_nanos, line.amount_cents) for line in invoice.lines.all()] == [
        ("item", 12_000_000_000, 1200),
        ("item", 4_000_000, 0),
        ("rounding", -4_000_000, 0),
    ]
    (tax,) = invoice.taxes.all()
    assert (tax.name, tax.percent, tax.base_cents, tax.tax_cents) == ("VAT", 20, 1000, 200)
    books.settle_constraints()


@pytest.mark.django_db
def test_reverse_charge_needs_a_tax_id_and_other_countries_have_the_rate_of_nowhere() -> None:
    documents.rate("AT", "20", reverse_charge=True)
    documents.rate("", "5", name="GST")
    documents.rate("US", "0", name="None")
    documents.rate("US", "7.25", region="CA", name="Sales tax")
    buyer = {"country": "AT", "region": "", "tax_id": "ATU1"}
    day = documents.this_month().first_day

    def rates(**changes: str) -> list[tuple[str, str, bool]]:
        found = parties.taxes_for({**buyer, **changes}, day)
        return [(rate.name, f"{rate.percent.normalize():f}", rate.reverse_charge) for rate in found]

    assert rates() == [("VAT", "0", True)]
    assert rates(tax_id="") == [("VAT", "20", False)]
    assert rates(country="US", region="CA") == [("Sales tax", "7.25", False)]
    assert rates(country="JP") == rates(country="") == [("GST", "5", False)]


@pytest.mark.django_db
def test_a_new_prefix_begins_a_series_of_its_own() -> None:
    row = documents.seller()
    owner = books.organization()
    issue(documents.draft(owner))
    row.invoice_prefix = "2027-"
    row.save()
    assert issue(documents.draft(owner)).number == "2027-000001"
    assert numbers() == ["2027-000001", "INV-000001"]


@pytest.mark.django_db
def test_the_organization_is_told() -> None:
    documents.seller()
    invoice = issue(documents.draft(books.organization(), 123_450_000_000))
    alert = Alert.objects.get()
    assert alert.subject == "Invoice INV-000001 over $123.45"
    assert alert.text.endswith(f"/o/acme/billing/invoices/{invoice.id}/")


CHANGES: dict[str, Callable[[Invoice], object]] = {
    "total": lambda invoice: Invoice.objects.update(total_cents=1),
    "buyer": lambda invoice: Invoice.objects.update(buyer={}),
    "number": lambda invoice: Invoice.objects.update(number="INV-9"),
    "delete": lambda invoice: Invoice.objects.all()._raw_delete("default"),
    "line changed": lambda invoice: InvoiceLine.objects.update(amount_cents=1),
    "line deleted": lambda invoice: InvoiceLine.objects.all()._raw_delete("default"),
    "tax changed": lambda invoice: InvoiceTax.objects.update(tax_cents=1),
    "note changed": lambda invoice: CreditNote.objects.update(amount_cents=1),
    "note deleted": lambda invoice: CreditNote.objects.all()._raw_delete("default"),
    "rate changed": lambda invoice: TaxRate.objects.update(percent=1),
    "series reset": lambda invoice: DocumentSeries.objects.update(last_number=0),
    "series jumps": lambda invoice: DocumentSeries.objects.update(last_number=9),
    "series begins later": lambda invoice: DocumentSeries.objects.create(prefix="X-", last_number=5),
    "unpaid again": lambda invoice: Invoice.objects.update(status="issued"),
    "void without credit note": lambda invoice: Invoice.objects.update(status="void"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_issued_cannot_be_changed(change: str) -> None:
    documents.seller()
    owner = books.organization()
    documents.profile(owner)
    documents.rate("DE", "19")
    invoice = issue(documents.draft(owner, is_paid=True))
    issue_credit_note(CreditNoteDraft(invoice.id, 10, "part", "Because"))
    with pytest.raises(DatabaseError), transaction.atomic():
        CHANGES[change](invoice)


def _without_a_document() -> None:
    next_number(lock_series("INV-"))


def _a_line_later() -> None:
    invoice = Invoice.objects.get()
    InvoiceLine.objects.create(
        invoice=invoice, position=9, kind="item", description="x", amount_nanos=0, amount_cents=0
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("act", [_without_a_document, _a_line_later])
def test_the_database_refuses_gaps_and_late_lines(act: Callable[[], None]) -> None:
    documents.seller()
    issue(documents.draft(books.organization()))
    with pytest.raises(DatabaseError), transaction.atomic():
        act()
    assert DocumentSeries.objects.get().last_number == 1


@pytest.mark.django_db
def test_the_database_refuses_lines_that_do_not_sum_to_the_invoice() -> None:
    documents.seller()
    owner = books.organization()
    with pytest.raises(DatabaseError, match="do not sum"), transaction.atomic():
        invoice = issue(documents.draft(owner))
        InvoiceLine.objects.create(
            invoice=invoice, position=9, kind="item", description="More", amount_nanos=10_000_000, amount_cents=1
        )
        books.settle_constraints()
