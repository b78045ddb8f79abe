"""Webhook endpoints: their secrets, and the messages that were and will be sent to them. No HTTP here."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from apps.accounts.models import Organization
from apps.billing.alerts.addresses import check_url, host_of
from apps.billing.alerts.raising import event_body, raise_alert
from apps.billing.alerts.work_tables import fail, give_up_lost, lease, put_off, succeed
from apps.billing.models import AlertKind, DeliveryState, WebhookDelivery, WebhookEndpoint
from apps.billing.models.alerts import CUSTOMER_KINDS, ERROR_LENGTH, SECRET_OVERLAP, TEST_EVENT, new_endpoint_id
from apps.core.crypto import seal, unseal
from apps.core.errors import Conflict, InvalidInput

MARK: Final = "whsec_"
_SECRET_BYTES: Final = 32
MAX_ENDPOINTS: Final = 20
TRIES_SHOWN: Final = 20
PER_ENDPOINT: Final = 5
"""Of one endpoint so many messages are tried at the same time: a slow one does not hold up the others."""
PER_ORGANIZATION: Final = 10
"""And of one organization so many, for the same reason."""
MAX_TESTS_WAITING: Final = 5
"""Test events that wait for one endpoint."""
PUT_OFF: Final = timedelta(seconds=5)
"""How long a message waits that could not be tried for no fault of its own."""
GIVE_UP_AFTER: Final = timedelta(days=5)
"""An endpoint that answered nothing but failures for so long is switched off."""
KEEP: Final = timedelta(days=30)
"""Messages that are done stay in the list for so long."""

_DUE: Final = """
SELECT id FROM (
    SELECT id, next_at,
        row_number() OVER (PARTITION BY organization_id ORDER BY place_of_endpoint, next_at, id) AS place
    FROM (
        SELECT delivery.id, delivery.organization_id, delivery.next_at,
            row_number() OVER (PARTITION BY endpoint.id ORDER BY delivery.next_at, delivery.id) AS place_of_endpoint
        FROM billing_webhookdelivery delivery
        JOIN billing_webhookendpoint endpoint ON endpoint.id = delivery.endpoint_id
        WHERE delivery.state = 'pending' AND delivery.next_at <= %(now)s AND endpoint.enabled
    ) due WHERE place_of_endpoint <= %(per_endpoint)s
) fair WHERE place <= %(per_organization)s
ORDER BY place, next_at, id LIMIT %(limit)s
"""
"""In turns: the first message of each organization, the one that waits longest first, then the second of each. Within
an organization the same among its endpoints. So what one of them queues never stands before another's first."""


@dataclass(frozen=True)
class Try:
    """How one try ended. `code` is the HTTP status, None when there was no answer; `error` is empty when it went
    through; `is_gone` says that the receiver wants no more of this."""

    at: datetime
    code: int | None
    error: str
    duration_ms: int
    is_gone: bool = False


def new_secret() -> str:
    """A fresh signing secret: `whsec_` and 32 random bytes in base64, as Standard Webhooks has it."""
    return MARK + base64.b64encode(os.urandom(_SECRET_BYTES)).decode()


@transaction.atomic
def create_endpoint(
    organization: Organization, url: str, *, kinds: Sequence[str], description: str = ""
) -> tuple[WebhookEndpoint, str]:
    """A new endpoint and its secret, which is shown once.

    Raises InvalidInput for a URL that may not be or kinds that do not exist, Conflict when there are MAX_ENDPOINTS."""
    _check(url, kinds)
    Organization.objects.select_for_update(of=("self",)).get(pk=organization.pk)
    if WebhookEndpoint.objects.for_organization(organization.id).count() >= MAX_ENDPOINTS:
        raise Conflict(f"an organization has at most {MAX_ENDPOINTS} webhook endpoints")
    secret, endpoint_id = new_secret(), new_endpoint_id()
    endpoint = WebhookEndpoint.objects.create(
        id=endpoint_id,
        organization=organization,
        url=url,
        description=description,
        event_kinds=list(kinds),
        sealed_secret=_seal(secret, endpoint_id),
    )
    return endpoint, secret


@transaction.atomic
def change_endpoint(endpoint: WebhookEndpoint, *, url: str, kinds: Sequence[str], description: str) -> None:
    """Other URL, words or kinds; the secret stays. Another URL begins without a history of failures.

    Raises InvalidInput as `create_endpoint` does."""
    _check(url, kinds)
    locked = _locked(endpoint)
    if locked.url != url:
        locked.failing_since = None
    locked.url, locked.event_kinds, locked.description = url, list(kinds), description
    locked.save(update_fields=["url", "event_kinds", "description", "failing_since"])


@transaction.atomic
def rotate_secret(endpoint: WebhookEndpoint) -> str:
    """A new secret, which is shown once. For SECRET_OVERLAP messages are signed with the old one, too.

    Raises Conflict while an earlier rotation lasts: a third secret would end the first one early."""
    locked, now = _locked(endpoint), timezone.now()
    if locked.previous_until is not None and locked.previous_until > now:
        raise Conflict("the secret was changed within the last 24 hours; both are still valid")
    secret = new_secret()
    locked.sealed_previous_secret, locked.previous_until = locked.sealed_secret, now + SECRET_OVERLAP
    locked.sealed_secret = _seal(secret, locked.id)
    locked.save(update_fields=["sealed_secret", "sealed_previous_secret", "previous_until"])
    return secret


@transaction.atomic
def drop_previous_secret(endpoint: WebhookEndpoint) -> None:
    """End a rotation now: from here on only the new secret signs."""
    locked = _locked(endpoint)
    locked.sealed_previous_secret, locked.previous_until = "", None
    locked.save(update_fields=["sealed_previous_secret", "previous_until"])


def live_secrets(endpoint: WebhookEndpoint, now: datetime) -> list[str]:
    """The secrets that sign now, newest first. Raises ConfigurationError when they cannot be opened."""
    sealed = [endpoint.sealed_secret]
    if endpoint.sealed_previous_secret and endpoint.previous_until is not None and endpoint.previous_until > now:
        sealed.append(endpoint.sealed_previous_secret)
    return [unseal(text, bound_to=_binding(endpoint.id), ring=settings.ENCRYPTION_KEYS) for text in sealed]


@transaction.atomic
def switch(endpoint: WebhookEndpoint, *, on: bool, reason: str = "") -> None:
    """Send to the endpoint again, or no more. What waits for it stays and goes out when it is on again."""
    locked = _locked(endpoint)
    locked.enabled, locked.disabled_reason, locked.failing_since = on, reason[:ERROR_LENGTH], None
    locked.save(update_fields=["enabled", "disabled_reason", "failing_since"])


@transaction.atomic
def send_test(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a `webhook.test` event for the endpoint. Raises Conflict when it is switched off, or when MAX_TESTS_WAITING
    are on their way."""
    if not _locked(endpoint).enabled:
        raise Conflict("the endpoint is off; switch it on first")
    waiting = WebhookDelivery.objects.filter(endpoint=endpoint, event=TEST_EVENT, state=DeliveryState.PENDING)
    if waiting.count() >= MAX_TESTS_WAITING:
        raise Conflict(f"{MAX_TESTS_WAITING} test events are on their way already; see how they end")
    content = {"endpoint_id": endpoint.id, "text": "This is a test. Nothing happened."}
    delivery: WebhookDelivery = WebhookDelivery.objects.create(
        organization_id=endpoint.organization_id,
        endpoint=endpoint,
        event=TEST_EVENT,
        body=event_body(TEST_EVENT, timezone.now(), content),
    )
    return delivery


@transaction.atomic
def replay(delivery: WebhookDelivery) -> None:
    """Send the same message again: same id, same body, a schedule of its own. Raises Conflict when it is off, or when
    the message is on its way."""
    locked: WebhookDelivery = (
        WebhookDelivery.objects.select_for_update(of=("self",)).select_related("endpoint").get(pk=delivery.pk)
    )
    if not locked.endpoint.enabled:
        raise Conflict("the endpoint is off; switch it on first")
    if locked.state == DeliveryState.PENDING:
        raise Conflict("the message is on its way already")
    locked.state, locked.finished_at = DeliveryState.PENDING, None
    locked.tries_before, locked.next_at = locked.attempts, timezone.now()
    locked.save(update_fields=["state", "finished_at", "tries_before", "next_at"])


def lease_deliveries(limit: int, now: datetime) -> list[WebhookDelivery]:
    """Up to `limit` messages to try now, with their endpoints, leased to the caller alone."""
    with connection.cursor() as cursor:
        bounds = {"per_endpoint": PER_ENDPOINT, "per_organization": PER_ORGANIZATION, "limit": limit}
        cursor.execute(_DUE, {"now": now, **bounds})
        ids = [row[0] for row in cursor.fetchall()]
    due = WebhookDelivery.objects.filter(pk__in=ids).select_related("endpoint")
    return give_up_lost(lease(due, limit=limit, now=now), _tries)


@transaction.atomic
def conclude(delivery: WebhookDelivery, outcome: Try) -> bool:
    """Write down how the leased try ended, and what follows for the endpoint. False when the lease was lost."""
    entry = {
        "at": outcome.at.isoformat(timespec="seconds"),
        "code": outcome.code,
        "error": outcome.error[:ERROR_LENGTH],
        "ms": outcome.duration_ms,
    }
    columns = {"last_code": outcome.code, "tries": [*delivery.tries, entry][-TRIES_SHOWN:]}
    if not outcome.error:
        is_mine = succeed(delivery, **columns)
        if is_mine:
            WebhookEndpoint.objects.filter(pk=delivery.endpoint_id).update(failing_since=None)
        return is_mine
    is_mine = fail(delivery, outcome.error, number=_tries(delivery), **columns)
    if is_mine:
        _note_failure(delivery.endpoint_id, outcome)
    return is_mine


def postpone(delivery: WebhookDelivery) -> bool:
    """The leased try could not begin, which says nothing about the endpoint: it counts as none, and comes again soon.
    False when the lease was lost."""
    return put_off(delivery, PUT_OFF)


def prune(now: datetime) -> int:
    """Forget messages that were done long ago, with the alerts kept; returns how many."""
    old = WebhookDelivery.objects.filter(finished_at__lt=now - KEEP).exclude(state=DeliveryState.PENDING)
    return int(old.delete()[0])


def _tries(delivery: WebhookDelivery) -> int:
    return delivery.attempts - delivery.tries_before


def _note_failure(endpoint_id: str, outcome: Try) -> None:
    """An endpoint that says 410, or has failed for days, is switched off, and its people are told."""
    endpoint: WebhookEndpoint = WebhookEndpoint.objects.select_for_update(of=("self",)).get(pk=endpoint_id)
    since = endpoint.failing_since or outcome.at
    if endpoint.failing_since is None:
        WebhookEndpoint.objects.filter(pk=endpoint_id).update(failing_since=since)
    if not endpoint.enabled or not (outcome.is_gone or outcome.at - since >= GIVE_UP_AFTER):
        return
    reason = "it answered 410 Gone" if outcome.is_gone else f"every try has failed since {since:%Y-%m-%d %H:%M} UTC"
    host = host_of(endpoint.url)  # alerts are read by more people than the URL, whose path often holds a secret
    switch(endpoint, on=False, reason=f"Switched off because {reason}.")
    raise_alert(
        endpoint.organization_id,
        AlertKind.WEBHOOK_DISABLED,
        key=f"webhook.disabled:{endpoint.id}:{outcome.at.isoformat()}",
        subject="A webhook endpoint was switched off",
        text=f"Nothing more is sent to your endpoint at {host}, because {reason}. The last error was: {outcome.error}."
        " Switch the endpoint on again on the page of webhooks when it works; messages that wait are sent then.",
        details={"endpoint_id": endpoint.id, "host": host, "last_error": outcome.error},
    )


def _locked(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    locked: WebhookEndpoint = WebhookEndpoint.objects.select_for_update(of=("self",)).get(pk=endpoint.pk)
    return locked


def _check(url: str, kinds: Sequence[str]) -> None:
    check_url(url, allow_private=settings.WEBHOOKS_ALLOW_PRIVATE)
    if not kinds or not set(kinds) <= set(CUSTOMER_KINDS):
        raise InvalidInput("choose at least one of the events that there are")


def _seal(secret: str, endpoint_id: str) -> str:
    return seal(secret, bound_to=_binding(endpoint_id), ring=settings.ENCRYPTION_KEYS)


def _binding(endpoint_id: str) -> str:
    return f"webhook:{endpoint_id}"
