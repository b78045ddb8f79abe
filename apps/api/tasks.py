"""Periodic work that speaks HTTP: each task may run twice at once, and catches up by itself after any pause."""

from celery import shared_task
from django.db import close_old_connections

from apps.api.webhook_sending import send_due


@shared_task(name="api.send_webhooks")
def send_webhooks() -> None:
    """Send webhooks that are due."""
    close_old_connections()
    send_due()
