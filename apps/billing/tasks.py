"""Periodic work on money: each task may run twice at once, and catches up by itself after any pause."""

import logging

from celery import shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from apps.billing.grants import expire_due
from apps.billing.posting import post_batch
from apps.billing.proofs import verify
from apps.billing.recovery import close_orphan
from apps.billing.settlement import settle_recorded
from apps.usage.shipping import ship

log = logging.getLogger(__name__)


@shared_task(name="billing.settle_usage")
def settle_usage() -> None:
    """Ship the journals of this machine, then post all records that wait for it."""
    close_old_connections()
    try:
        try:
            ship(settings.JOURNAL_DIR, close_orphan=close_orphan, on_recorded=settle_recorded)
        finally:  # whatever is wrong with the journals: what the database has already is posted
            while post_batch():
                pass
    except (OperationalError, InterfaceError) as error:
        log.warning("PostgreSQL is away; the journal keeps the records: %s", error)


@shared_task(name="billing.expire_grants")
def expire_grants() -> None:
    """Move what is left of grants that have ended to breakage."""
    close_old_connections()
    if expired := expire_due(timezone.now()):
        log.info("%d grants expired", expired)


@shared_task(name="billing.prove_ledger")
def prove_ledger() -> None:
    """Prove the ledger; every rule that does not hold is an error in the log."""
    close_old_connections()
    for proof in verify():
        if not proof.holds:
            log.error("ledger proof failed: %s", proof.name, extra={"detail": proof.detail})
