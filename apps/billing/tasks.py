"""Periodic work on money: each task may run twice at once, and catches up by itself after any pause."""

import logging

from celery import shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from apps.billing.balance_cache import drop_stale
from apps.billing.grants import expire_due
from apps.billing.ledger import SYSTEM
from apps.billing.models import RunCause
from apps.billing.posting import post_batch
from apps.billing.reconciliation.running import reconcile, run_asked
from apps.billing.recovery import close_orphan
from apps.billing.settlement import settle_recorded
from apps.core.crash_points import crash_point
from apps.usage.shipping import ship

log = logging.getLogger(__name__)


@shared_task(name="billing.settle_usage")
def settle_usage() -> None:
    """Ship the journals of this machine, then post all records that wait for it."""
    close_old_connections()
    try:
        try:
            drop_stale()
            ship(settings.JOURNAL_DIR, close_orphan=close_orphan, on_recorded=settle_recorded)
        finally:  # whatever is wrong with the journals: what the database has already is posted
            while post_batch():
                crash_point("P10")
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
    """Run every proof; each that does not hold is an error in the log, and the operator is alerted."""
    close_old_connections()
    reconcile(RunCause.NIGHTLY, actor=SYSTEM)


@shared_task(name="billing.reconcile_asked")
def reconcile_asked() -> None:
    """The same, for whoever asked for it in the console."""
    close_old_connections()
    run_asked()
