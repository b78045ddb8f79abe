"""Raising an alert: once for its key, and with everything that will be sent because of it, in one transaction."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from django.conf import settings
from django.db import transaction

from apps.accounts.models import Membership, User
from apps.accounts.roles import Capability, Role, may
from apps.billing.models import Alert, AlertEmail, AlertKind, AlertSettings, WebhookDelivery, WebhookEndpoint
from apps.billing.models.alerts import DEDUPE_LENGTH, SUBJECT_LENGTH, TEXT_LENGTH
from apps.core.errors import InvalidInput
from apps.core.names import one_line

TOLD: Final = tuple(role for role in Role if may(role, Capability.MANAGE_BILLING))
"""Who is e-mailed where an organization names nobody."""


@transaction.atomic
def raise_alert(
    organization_id: str | None,
    kind: AlertKind,
    *,
    key: str,
    subject: str,
    text: str = "",
    details: Mapping[str, Any] | None = None,
) -> Alert:
    """Tell an organization, or the operator (None), of something. Returns the alert, the first one for a used key.

    `key` names the event and makes it happen once: `invoice.issued:inv_…`. `subject` is made one line and cut, because
    it may hold names that customers chose; `text` is one or more sentences for people, `details` what webhooks get as
    `data`: JSON values, money as `…_nanos` and `…_usd`.

    All in the caller's transaction: the alert, its e-mails and its webhook deliveries are committed with the event
    that they tell of, or not at all; tasks send them from there. Nothing is sent in here. Raises InvalidInput for a
    key that is empty or too long and a subject without a word: mistakes of the caller, never of a customer."""
    line = one_line(subject, SUBJECT_LENGTH)
    _check(key, line)
    alert, is_new = Alert.objects.get_or_create(
        dedupe_key=key,
        defaults={
            "organization_id": organization_id,
            "kind": kind,
            "subject": line,
            "text": text[:TEXT_LENGTH],
            "details": dict(details or {}),
        },
    )
    if is_new:
        _queue_emails(alert)
        _queue_webhooks(alert)
    return alert


def recipients(organization_id: str | None, kind: str) -> list[str]:
    """The addresses that are told of such an alert, sorted, each once; nobody when the kind is muted."""
    if organization_id is None:
        named = settings.OPERATOR_EMAILS
        operators = User.objects.filter(is_superuser=True, is_active=True).values_list("email", flat=True)
        return sorted(set(named or operators))
    chosen = AlertSettings.objects.for_organization(organization_id).first() or AlertSettings()
    if kind in chosen.muted_kinds:
        return []
    if chosen.recipients:
        return sorted(set(chosen.recipients))
    members = Membership.objects.for_organization(organization_id).filter(role__in=TOLD, user__is_active=True)
    return sorted(set(members.values_list("user__email", flat=True)))


def event_body(event: str, moment: datetime, content: Mapping[str, Any]) -> str:
    """The body of a webhook: `{type, timestamp, data}` as Standard Webhooks describes it."""
    said = {"type": event, "timestamp": moment.astimezone(UTC).isoformat().replace("+00:00", "Z"), "data": content}
    return orjson.dumps(said).decode()


def _check(key: str, subject: str) -> None:
    if not 1 <= len(key) <= DEDUPE_LENGTH:
        raise InvalidInput(f"the key of an alert has 1 to {DEDUPE_LENGTH} characters")
    if not subject:
        raise InvalidInput("the subject of an alert says something")


def _queue_emails(alert: Alert) -> None:
    addresses = recipients(alert.organization_id, alert.kind)
    AlertEmail.objects.bulk_create(AlertEmail(alert=alert, recipient=address) for address in addresses)


def _queue_webhooks(alert: Alert) -> None:
    if alert.organization_id is None:
        return
    endpoints = WebhookEndpoint.objects.for_organization(alert.organization_id).filter(
        enabled=True, event_kinds__contains=[alert.kind]
    )
    content = {"alert_id": alert.id, "subject": alert.subject, "text": alert.text, **alert.details}
    body = event_body(alert.kind, alert.created_at, content)
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(
            organization_id=alert.organization_id, endpoint=endpoint, alert=alert, event=alert.kind, body=body
        )
        for endpoint in endpoints
    )
