"""Documents by e-mail: to the billing addresses, once, again after a failure, and with the PDF if there is one."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.core import mail
from django.utils import timezone
from pytest_django import Settings

from apps.billing.invoices import mailing, printing
from apps.billing.invoices.credit_notes import CreditNoteDraft, issue_credit_note
from apps.billing.invoices.issuing import issue
from apps.billing.models import Invoice
from tests.billing import books
from tests.billing.invoices import documents

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def quick_pdf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about mail: a process that answers at once stands in for the layout."""
    path = tmp_path / "quick.py"
    path.write_text("import sys; sys.stdin.read(); sys.stdout.write('%PDF-quick')")
    monkeypatch.setattr(printing, "PROCESS", path)


@pytest.fixture
def invoice(db: None) -> Invoice:
    documents.seller()
    owner = books.organization()
    documents.profile(owner, emails=["bills@acme.example", "cfo@acme.example"])
    return issue(documents.draft(owner))


def test_an_invoice_goes_to_all_billing_addresses_once(invoice: Invoice) -> None:
    assert (mailing.send_due(), mailing.send_due()) == (1, 0)
    (message,) = mail.outbox
    assert message.to == ["bills@acme.example", "cfo@acme.example"]
    assert message.subject == "Invoice INV-000001 from Crunch GmbH"
    assert f"/o/acme/billing/invoices/{invoice.id}/" in message.body
    assert message.attachments == [("INV-000001.pdf", b"%PDF-quick", "application/pdf")]


def test_a_credit_note_is_sent_too(invoice: Invoice) -> None:
    issue_credit_note(CreditNoteDraft(invoice.id, 5, "k", "Outage"))
    assert mailing.send_due() == 2
    assert [message.subject.split()[0] for message in mail.outbox] == ["Invoice", "Credit"]


def test_an_organization_without_addresses_gets_none(db: None) -> None:
    documents.seller()
    issue(documents.draft(books.organization()))
    assert mailing.send_due() == 0
    assert mail.outbox == []
    assert Invoice.objects.get().emailed_at is not None


def test_it_can_be_sent_again(invoice: Invoice) -> None:
    mailing.send_due()
    mailing.send_again(invoice)
    assert mailing.send_due() == 1


def test_a_failure_is_tried_again_later(invoice: Invoice, settings: Settings) -> None:
    works = settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    assert mailing.send_due() == 0
    settings.EMAIL_BACKEND = works
    assert mailing.send_due() == 0  # not at once
    Invoice.objects.update(mail_claimed_at=timezone.now() - timedelta(minutes=11))
    assert mailing.send_due() == 1


@pytest.fixture
def old_invoice(monkeypatch: pytest.MonkeyPatch) -> Invoice:
    """Issued a month ago, and never sent."""
    past = timezone.now() - timedelta(days=30)
    documents.seller()
    owner = books.organization()
    documents.profile(owner)
    with monkeypatch.context() as patch:
        patch.setattr(timezone, "now", lambda: past)
        return issue(documents.draft(owner))


def test_an_old_document_that_is_sent_again_is_tried_again_when_it_fails(
    old_invoice: Invoice, settings: Settings
) -> None:
    """Its three days count from when somebody asked, not from its issue."""
    works = settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    mailing.send_again(old_invoice)
    assert mailing.send_due() == 0
    settings.EMAIL_BACKEND = works
    Invoice.objects.update(mail_claimed_at=timezone.now() - timedelta(minutes=11))
    assert mailing.send_due() == 1


def test_three_days_after_it_was_asked_for_nobody_tries_any_more(old_invoice: Invoice) -> None:
    past = timezone.now() - timedelta(days=4)
    Invoice.objects.update(mail_claimed_at=past, mail_since=past)
    assert mailing.send_due() == 0


def test_one_odd_document_does_not_stop_the_others(invoice: Invoice, monkeypatch: pytest.MonkeyPatch) -> None:
    other = books.organization("Other")
    documents.profile(other)
    issue(documents.draft(other))
    real = mailing.pdf_of

    def odd(document: Invoice) -> bytes:
        if document.pk == invoice.pk:
            raise RuntimeError("odd")
        return real(document)

    monkeypatch.setattr(mailing, "pdf_of", odd)
    assert mailing.send_due() == 1


def test_without_a_pdf_the_message_has_the_link(invoice: Invoice, monkeypatch: pytest.MonkeyPatch) -> None:
    path = printing.PROCESS
    path.write_text(f"import sys; sys.exit({printing.LIBRARY_MISSING})")
    assert mailing.send_due() == 1
    assert mail.outbox[0].attachments == []
    assert "http" in mail.outbox[0].body


def test_a_name_with_line_breaks_cannot_add_headers(invoice: Invoice) -> None:
    owner = books.organization("Other")
    documents.profile(owner)
    seller = documents.SellerProfile.objects.get()
    seller.name = "Crunch\nBcc: everybody@example.com"
    seller.save()
    issue(documents.draft(owner))
    assert mailing.send_due() == 2
    assert "\n" not in mail.outbox[1].subject


@pytest.mark.django_db(transaction=True)
def test_four_workers_at_once_send_it_once(invoice: Invoice) -> None:
    results = books.at_once([partial(mailing.send_due)] * 4)
    assert sum(results) == len(mail.outbox) == 1
