"""Periodic work on prices: it may run twice at once, and catches up by itself after any pause."""

import logging

from celery import shared_task
from django.db import close_old_connections

from apps.billing.pricing.rerating import finish_all

log = logging.getLogger(__name__)


@shared_task(name="billing.finish_reratings")
def finish_reratings() -> None:
    """Do what is left of every re-rating: those asked for in the console, and those that broke off."""
    close_old_connections()
    if done := finish_all():
        log.info("%d re-ratings finished", done)
