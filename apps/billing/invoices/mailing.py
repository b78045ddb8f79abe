"""Sending each issued document to the billing addresses of its organization, with the PDF where one can be made."""

import logging
from datetime import timedelta
from functools import partial
from smtplib import SMTPException

from django.core.mail import EmailMessage
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from apps.billing.invoices.amounts import in_usd
from apps.billing.invoices.issuing import document_address
from apps.billing.invoices.parties import billing_emails
from apps.billing.invoices.rendering import file_name, pdf_of
from apps.billing.models import CreditNote, Invoice
from apps.billing.one_by_one import one_by_one
from apps.core.errors import DomainError

AGAIN_AFTER = timedelta(minutes=10)
"""How long who took a document has to send it; then it is anybody's again."""
GIVE_UP_AFTER = timedelta(days=3)
log = logging.getLogger(__name__)
Document = Invoice | CreditNote


def send_due() -> int:
    """Send what was issued and not sent yet; returns how many. What fails is tried again, for three days.

    Two runs never send the same document at once. After a crash in the middle one may be sent twice."""
    work = "sending a document"
    return sum(one_by_one(work, _waiting(kind), partial(send, kind)) for kind in (Invoice, CreditNote))


def send(kind: type[Document], document_id: str) -> bool:
    """Send one document, if nobody else is at it; whether it was sent. An organization without addresses gets none."""
    if not kind.objects.filter(_free(), pk=document_id).update(mail_claimed_at=Now()):
        return False
    document: Document = kind.objects.select_related("organization").get(pk=document_id)
    addresses = billing_emails(document.organization_id)
    try:
        if addresses:
            _message(document, addresses).send()
    except (OSError, SMTPException) as error:
        log.warning("a document could not be sent: %s", error, extra={"document": document.number})
        return False
    kind.objects.filter(pk=document_id).update(emailed_at=Now())
    return bool(addresses)


def send_again(document: Document) -> None:
    """Have a document sent once more with the next run, however old it is; what fails is tried as long as at first."""
    again = {"emailed_at": None, "mail_claimed_at": None, "mail_since": Now()}
    type(document).objects.filter(pk=document.pk).update(**again)


def _waiting(kind: type[Document]) -> list[str]:
    return list(kind.objects.filter(_free()).order_by("id").values_list("id", flat=True))


def _free() -> Q:
    now = timezone.now()
    never_tried = Q(mail_claimed_at=None)
    young = Q(issued_at__gte=now - GIVE_UP_AFTER) | Q(mail_since__gte=now - GIVE_UP_AFTER)
    again = Q(mail_claimed_at__lt=now - AGAIN_AFTER) & young
    return Q(emailed_at=None) & (never_tried | again)


def _message(document: Document, addresses: list[str]) -> EmailMessage:
    what = "Invoice" if isinstance(document, Invoice) else "Credit note"
    cents = document.total_cents if isinstance(document, Invoice) else document.amount_cents
    seller = document.seller if isinstance(document, Invoice) else document.invoice.seller
    address = document_address(document.organization.slug, document)
    about = f"{what} {document.number} for {document.organization.name} over {in_usd(cents)} is ready:"
    body = f"{about}\n\n{address}\n\n{seller['name']}\n"
    subject = f"{what} {document.number} from {seller['name']}".replace("\n", " ").replace("\r", " ")
    message = EmailMessage(subject=subject, body=body, to=addresses)
    try:
        message.attach(f"{file_name(document)}.pdf", pdf_of(document), "application/pdf")
    except DomainError as error:  # the page behind the link has everything
        log.warning("a document is sent without its PDF: %s", error.message, extra={"document": document.number})
    return message
