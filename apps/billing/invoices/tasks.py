"""Periodic work on documents: each task may run twice at once, and catches up by itself after any pause."""

import logging
from collections.abc import Callable
from functools import partial

from celery import shared_task
from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from apps.billing.invoices.mailing import send_due
from apps.billing.invoices.monthly import issue_due, settle
from apps.billing.invoices.parties import has_seller
from apps.billing.invoices.payments import issue_missing

log = logging.getLogger(__name__)


@shared_task(name="billing.issue_invoices")
def issue_invoices() -> None:
    """Issue what is missing for payments and refunds, and note which monthly invoices were paid meanwhile.

    Nothing is issued before the operator has filled in who sells; then everything that waits."""
    _issue("payments", issue_missing)


@shared_task(name="billing.invoice_months")
def invoice_months() -> None:
    """Issue the monthly invoices of organizations on credit for every closed month that has none yet."""
    _issue("closed months", partial(issue_due, timezone.now()))


@shared_task(name="billing.send_invoices")
def send_invoices() -> None:
    """Send what was issued to the billing addresses."""
    close_old_connections()
    if sent := send_due():
        log.info("%d documents sent", sent)


def _issue(what: str, act: Callable[[], int]) -> None:
    close_old_connections()
    try:
        if has_seller() and (issued := act()):
            log.info("%d documents issued for %s", issued, what)
        settle(timezone.now())
    except (OperationalError, InterfaceError) as error:
        log.warning("PostgreSQL is away; documents are issued later: %s", error)
