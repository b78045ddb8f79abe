"""Invoices, statements and the billing profile in the portal, as their readers see them."""

import csv
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone

from apps.billing.grants import Credit, grant_credit
from apps.billing.invoices import printing
from apps.billing.invoices.payments import mark_paid
from apps.billing.models import BillingProfile, GrantSource
from tests.portal import paper
from tests.portal.conftest import Cast

HUB = "/o/acme/billing/"
LIST = "/o/acme/billing/invoices/"
PROFILE = "/o/acme/billing/invoices/profile/"
THIS_MONTH = f"/o/acme/billing/statements/{timezone.now():%Y-%m}/"


def text_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def test_without_a_seller_the_page_says_why_there_are_no_invoices(owner: Client) -> None:
    for page in (HUB, LIST):
        assert "once the operator of this service has filled in its own details" in text_of(owner, page)
    paper.seller()
    assert "Each payment gets one within minutes" in text_of(owner, LIST)


def test_the_hub_and_the_list_link_each_document(owner: Client, cast: Cast) -> None:
    ids = paper.document_ids(cast.organization)
    for page in (HUB, LIST):
        content = text_of(owner, page)
        assert f"{LIST}{ids['invoice_id']}/" in content
        assert f"{LIST}{ids['invoice_id']}/invoice.pdf" in content
        assert THIS_MONTH in content
    assert f"{LIST}credit-notes/{ids['credit_note_id']}/" in text_of(owner, LIST)


def test_an_invoice_is_a_page_without_anything_inline(owner: Client, cast: Cast) -> None:
    ids = paper.document_ids(cast.organization)
    response = owner.get(f"{LIST}{ids['invoice_id']}/")
    content = response.content.decode()
    for words in ("INV-000001", "Crunch GmbH", "$12.345670000", "Rounding to whole cents", "$12.35", "CN-000001"):
        assert words in content
    assert "style=" not in content and "<style" not in content and "<script" not in content
    assert "css/invoice.css" in content
    assert "style-src 'self'" in response.headers["Content-Security-Policy"]
    assert "no-cache" in response.headers["Cache-Control"]


def test_a_paid_invoice_with_a_credit_note_says_that_nothing_is_left_to_pay(owner: Client, cast: Cast) -> None:
    invoice = paper.invoice_of(cast.organization)
    paper.credit_note_of(invoice)
    page = f"/o/acme/billing/invoices/{invoice.id}/"
    assert "Left to pay" in owner.get(page).content.decode()
    mark_paid(invoice.id)
    shown = owner.get(page).content.decode()
    assert "Left" not in shown
    assert "Total less credit notes" in shown and "nothing is left to pay" in shown


def test_a_credit_note_names_its_invoice_and_reason(owner: Client, cast: Cast) -> None:
    content = text_of(owner, f"{LIST}credit-notes/{paper.document_ids(cast.organization)['credit_note_id']}/")
    for words in ("CN-000001", "INV-000001", "Outage on the 3rd", "$1.00"):
        assert words in content


def test_a_pdf_is_named_like_its_document(
    owner: Client, cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "PROCESS", paper.stand_in(tmp_path, paper.QUICK_PDF))
    response = owner.get(f"{LIST}{paper.document_ids(cast.organization)['invoice_id']}/invoice.pdf")
    assert response.headers["Content-Type"] == "application/pdf"
    assert response.headers["Content-Disposition"] == 'inline; filename="INV-000001.pdf"'
    assert response.content == b"%PDF-quick"


def test_without_the_library_the_page_says_so_and_the_document_is_a_click_away(
    owner: Client, cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "PROCESS", paper.stand_in(tmp_path, paper.NO_LIBRARY))
    page = f"{LIST}{paper.document_ids(cast.organization)['invoice_id']}/"
    response = owner.get(f"{page}invoice.pdf")
    assert response.status_code == 503
    assert "Pango" in response.content.decode()
    assert f'href="{page}"' in response.content.decode()
    assert owner.get(page).status_code == 200


def test_the_statement_of_the_running_month_is_preliminary(owner: Client, cast: Cast, request_id: str) -> None:
    credit = Credit(5_000_000_000, GrantSource.PURCHASED)
    grant_credit(cast.organization.id, credit, idempotency_key="k", reason="=SUM(A1)")
    content = text_of(owner, THIS_MONTH)
    for words in ("Preliminary", "Opening balance", "$5.000000000", "swift-1", cast.project.name, "Closing balance"):
        assert words in content


def test_the_file_of_a_statement_adds_up_and_runs_no_formula(owner: Client, cast: Cast, request_id: str) -> None:
    credit = Credit(5_000_000_000, GrantSource.PURCHASED)
    grant_credit(cast.organization.id, credit, idempotency_key="k", reason="=SUM(A1)")
    response = owner.get(f"{THIS_MONTH}statement.csv")
    content = b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]  # Django's stubs lack it
    rows = list(csv.DictReader(content.splitlines()))
    assert [row["section"] for row in rows] == ["Opening balance", "Credit bought", "Usage", "Closing balance"]
    nanos = [int(row["amount_usd"].replace(".", "")) for row in rows]
    assert nanos[0] + sum(nanos[1:-1]) == nanos[-1]
    assert rows[1]["description"] == "'=SUM(A1)"


@pytest.mark.parametrize("month", ["2026-13", "1999-01", "2026-1"])
def test_what_is_no_month_is_not_found(owner: Client, month: str) -> None:
    assert owner.get(f"/o/acme/billing/statements/{month}/").status_code == 404


def test_a_month_that_has_not_begun_is_not_found(owner: Client) -> None:
    later = timezone.now() + timedelta(days=40)
    for ending in ("", "statement.csv", "statement.pdf"):
        assert owner.get(f"/o/acme/billing/statements/{later:%Y-%m}/{ending}").status_code == 404


def test_the_billing_profile_is_kept_and_printed(owner: Client, cast: Cast) -> None:
    fields = {
        "legal_name": "Acme <Holding>",
        "address": "1 Road",
        "country": "de",
        "tax_id": " DE  9 ",
        "purchase_order": "PO-7",
        "emails": "a@acme.example\nb@acme.example, a@acme.example",
    }
    assert owner.post(PROFILE, fields).status_code == 302
    row = BillingProfile.objects.get()
    assert (row.country, row.tax_id, row.emails) == ("DE", "DE 9", ["a@acme.example", "b@acme.example"])
    content = text_of(owner, f"{LIST}{paper.invoice_of(cast.organization).id}/")
    assert "Acme &lt;Holding&gt;" in content
    assert "PO-7" in content
    assert "a@acme.example\nb@acme.example" in text_of(owner, PROFILE)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("legal_name", "", "required"),
        ("country", "Germany", "at most 2"),
        ("country", "D1", "Two capital letters"),
        ("country", "XX", "There is no country XX"),
        ("country", "uk", "The United Kingdom is GB"),
        ("region", "CA", "needs its country"),
        ("emails", "nobody", "is no e-mail address"),
        ("emails", "\n".join(f"a{number}@x.example" for number in range(11)), "At most 10"),
    ],
)
def test_what_makes_no_sense_is_refused_with_words(owner: Client, field: str, value: str, words: str) -> None:
    response = owner.post(PROFILE, {"legal_name": "Acme", field: value})
    assert response.status_code == 422
    assert words in response.content.decode()
    assert not BillingProfile.objects.exists()


def test_others_documents_do_not_exist(client_of: Callable[[str], Client], cast: Cast) -> None:
    theirs = paper.document_ids(cast.stranger_organization)
    for address in (f"{theirs['invoice_id']}/", f"credit-notes/{theirs['credit_note_id']}/"):
        assert client_of("owner").get(f"{LIST}{address}").status_code == 404
        assert client_of("stranger").get(f"/o/elsewhere/billing/invoices/{address}").status_code == 200
