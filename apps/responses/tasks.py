"""Periodic work on stored responses."""

from celery import shared_task
from django.conf import settings

from apps.responses.forgetting import evict_all, purge_expired


@shared_task(name="responses.forget")
def forget() -> None:
    """Delete what is over its time, and what organizations have beyond their room."""
    purge_expired()
    evict_all(settings.RESPONSES_ORGANIZATION_BYTES)
