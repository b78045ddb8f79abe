"""Periodic work on the usage tables."""

from celery import shared_task

from apps.usage.partitions import ensure_upcoming_partitions


@shared_task(name="usage.maintain_partitions")
def maintain_partitions() -> None:
    """Make the partitions of the days ahead."""
    ensure_upcoming_partitions()
