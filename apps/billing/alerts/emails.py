"""Sending the e-mails of alerts."""

import logging
import time
from smtplib import SMTPException
from typing import Final

from django.conf import settings
from django.core.mail import EmailMessage
from django.utils import timezone

from apps.accounts.models import Organization
from apps.billing.alerts.work_tables import end_turn, fail, give_up_lost, lease, succeed, take_turn
from apps.billing.models import Alert, AlertEmail, AlertKind

SLICE_S: Final = 20.0
"""A task sends for so long at most; the next one goes on."""
TURN_S: Final = SLICE_S + settings.EMAIL_TIMEOUT * 3
TURN: Final = "e-mails"
PAGES: Final = {
    AlertKind.BUDGET_REACHED: "usage/",
    AlertKind.SPEND_ANOMALY: "usage/",
    AlertKind.KEY_PAUSED: "keys/",
    AlertKind.WEBHOOK_DISABLED: "webhooks/",
}
"""Where in the portal an alert is best answered; otherwise on the page of alerts."""
log = logging.getLogger(__name__)


def send_emails() -> int:
    """Send what is due, for SLICE_S at most; returns how many were accepted. One process at a time does this."""
    if not take_turn(TURN, TURN_S):
        return 0
    try:
        return _send_slice(time.monotonic() + SLICE_S)
    finally:
        end_turn(TURN)


def _send_slice(deadline: float) -> int:
    sent = 0
    while time.monotonic() < deadline:
        claimed = lease(AlertEmail.objects.select_related("alert__organization"), limit=1, now=timezone.now())
        if not claimed:
            break
        sent += sum(_send(row) for row in give_up_lost(claimed, lambda row: row.attempts))
    return sent


def _send(row: AlertEmail) -> bool:
    try:
        message(row).send()
    except (SMTPException, OSError) as error:
        log.warning("an alert's e-mail was not sent", extra={"alert": row.alert_id, "reason": str(error)})
        fail(row, f"{type(error).__name__}: {error}", number=row.attempts)
        return False
    return succeed(row)


def message(row: AlertEmail) -> EmailMessage:
    """The e-mail: what happened, in the words of the alert, and where to look."""
    alert = row.alert
    name = alert.organization.name if alert.organization else "CRUN"
    lines = [alert.text or alert.subject, "", f"See {page_of(alert)}"]
    if alert.organization:
        lines += ["", f"You get this because alerts of {name} are sent to {row.recipient}."]
    return EmailMessage(
        subject=f"[{_one_line(name)}] {_one_line(alert.subject)}",
        body="\n".join(lines) + "\n",
        to=[row.recipient],
        headers={"X-CRUN-Alert": alert.id, "Auto-Submitted": "auto-generated"},
    )


def page_of(alert: Alert) -> str:
    """The address of the page where the alert is best answered."""
    organization: Organization | None = alert.organization
    if organization is None:
        return f"{settings.PUBLIC_URL}/console/billing/alert/"
    return f"{settings.PUBLIC_URL}/o/{organization.slug}/{PAGES.get(AlertKind(alert.kind), 'alerts/')}"


def _one_line(text: str) -> str:
    """Names come from people: no line break may reach a header."""
    return " ".join(text.split())
