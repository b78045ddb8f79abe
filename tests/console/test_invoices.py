"""Invoices in the console: written by hand once per form, taken back by credit notes, never edited."""

from pathlib import Path

import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.billing.invoices import printing
from apps.billing.models import CreditNote, Invoice, InvoiceStatus, SellerProfile, TaxRate
from tests.console.cast import Rows

INVOICES = "/console/billing/invoice/"


def act(rows: Rows, name: str) -> str:
    return reverse(f"console:billing_invoice_{name}", args=[quote(rows.invoice.pk)])


def fields(rows: Rows, **changes: str) -> dict[str, str]:
    usual = {
        "organization": rows.organization.pk,
        "lines": "Setup | 500.00\n\nDiscount | -0.5",
        "note": "Thank you",
        "due_on": "2099-01-31",
        "idempotency_key": "form-1",
    }
    return {**usual, **changes}


def test_an_operator_writes_an_invoice_once_per_form(console: Client, operator: User, rows: Rows) -> None:
    for _ in range(2):
        answer = console.post(f"{INVOICES}add/", fields(rows), follow=True)
        assert "INV-000002 over $499.50 is issued." in answer.content.decode()
    made = Invoice.objects.get(number="INV-000002")
    assert (made.total_cents, made.actor, made.note, made.status) == (49_950, operator.email, "Thank you", "issued")
    assert list(made.lines.values_list("description", "amount_cents")) == [("Setup", 50_000), ("Discount", -50)]


@pytest.mark.parametrize(
    "lines",
    [
        *["Setup", "Setup | x", "| 5", "Setup | 0.001", "Setup | NaN", "A | 5\nB | -5", " \n"],
        "A | 1000000000.01",
        "A | 9300000000",
        "A | 1E+999999",
        "\n".join(["A | 900000000"] * 11),
        "\n".join(["A | 900000000", "B | -900000000"] * 6 + ["C | 1"]),
    ],
)
def test_lines_that_make_no_sense_are_refused(console: Client, rows: Rows, lines: str) -> None:
    answer = console.post(f"{INVOICES}add/", fields(rows, lines=lines))
    assert list(answer.context["adminform"].form.errors) == ["lines"]
    assert Invoice.objects.count() == 1


def test_without_a_seller_it_says_where_to_fill_it_in(console: Client, rows: Rows) -> None:
    SellerProfile.objects.all().delete()
    assert "Fill in who sells first" in console.post(f"{INVOICES}add/", fields(rows)).content.decode()


def test_a_credit_note_is_issued_once_with_its_reason(console: Client, operator: User, rows: Rows) -> None:
    form = {"amount_usd": "1.50", "reason": "Outage", "idempotency_key": "form-2"}
    for _ in range(2):
        assert "CN-000002 over $1.50" in console.post(act(rows, "credit"), form, follow=True).content.decode()
    note = CreditNote.objects.get(number="CN-000002")
    assert (note.amount_cents, note.reason, note.actor) == (150, "Outage", operator.email)


@pytest.mark.parametrize(
    ("amount", "reason", "words"),
    [
        ("4.01", "x", "$4.00 are left"),
        ("0", "x", "greater than"),
        ("1", " ", "required"),
        ("0.001", "x", "decimal"),
        ("1E+999999", "x", "less than"),
    ],
)
def test_too_much_or_nonsense_is_refused_with_words(
    console: Client, rows: Rows, amount: str, reason: str, words: str
) -> None:
    answer = console.post(act(rows, "credit"), {"amount_usd": amount, "reason": reason})
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert CreditNote.objects.count() == 1


def test_all_of_it_makes_the_invoice_void(console: Client, rows: Rows) -> None:
    offered = console.get(act(rows, "credit")).content.decode()
    assert 'value="4.00"' in offered
    console.post(act(rows, "credit"), {"amount_usd": "4.00", "reason": "All of it"})
    rows.invoice.refresh_from_db()
    assert rows.invoice.status == InvoiceStatus.VOID
    assert "$0.00 are left" in console.post(act(rows, "credit"), {"amount_usd": "1", "reason": "x"}).content.decode()


def test_paid_and_sent_again_only_when_confirmed(console: Client, rows: Rows) -> None:
    Invoice.objects.update(emailed_at=rows.invoice.issued_at)
    for name in ("paid_by_hand", "resend"):
        assert console.get(act(rows, name)).status_code == 200
    rows.invoice.refresh_from_db()
    assert (rows.invoice.status, rows.invoice.emailed_at is None) == ("issued", False)
    for name in ("paid_by_hand", "resend"):
        assert "done." in console.post(act(rows, name), follow=True).content.decode()
    rows.invoice.refresh_from_db()
    assert (rows.invoice.status, rows.invoice.emailed_at) == ("paid", None)
    assert "is paid already" in console.post(act(rows, "paid_by_hand"), follow=True).content.decode()


def test_the_operator_sees_what_the_customer_sees(console: Client, rows: Rows) -> None:
    content = console.get(act(rows, "open_page")).content.decode()
    for words in ("INV-000001", "Crunch GmbH", "CN-000001"):
        assert words in content


def test_a_missing_library_is_said_on_the_page(
    console: Client, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "none.py"
    path.write_text(f"import sys; sys.exit({printing.LIBRARY_MISSING})")
    monkeypatch.setattr(printing, "PROCESS", path)
    assert "Pango" in console.get(act(rows, "open_pdf"), follow=True).content.decode()


def test_tax_rates_are_added_and_never_edited(console: Client, operator: User, rows: Rows) -> None:
    rate = {"country": "AT", "region": "", "name": "VAT", "percent": "20", "valid_from": "2026-01-01"}
    assert console.post("/console/billing/taxrate/add/", rate).status_code == 302
    assert TaxRate.objects.get(country="AT").created_by == operator.email
    again = console.post("/console/billing/taxrate/add/", {**rate, "percent": "21"}).content.decode()
    assert "let the right one begin a day later" in again
    nowhere = console.post("/console/billing/taxrate/add/", {**rate, "country": "XX"}).content.decode()
    assert "There is no country XX" in nowhere
    page = reverse("console:billing_taxrate_change", args=[rows.tax_rate.pk])
    assert console.post(page, {**rate, "percent": "1"}).status_code == 403


def test_there_is_one_seller(console: Client, rows: Rows) -> None:
    assert console.get("/console/billing/sellerprofile/add/").status_code == 403
    page = reverse("console:billing_sellerprofile_change", args=[rows.seller.pk])
    form = {
        "name": "New name",
        "address": "Street",
        "country": "DE",
        "invoice_prefix": "INV-",
        "credit_note_prefix": "INV-",
        "payment_days": "14",
    }
    assert "seller_prefixes_differ" in console.post(page, form).content.decode()
    assert console.post(page, {**form, "credit_note_prefix": "CN-"}).status_code == 302
    assert SellerProfile.objects.get().name == "New name"
