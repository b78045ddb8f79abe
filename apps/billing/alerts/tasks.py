"""Periodic work of alerts: each task may run twice at once, and catches up by itself after any pause."""

from celery import shared_task
from django.db import close_old_connections
from django.utils import timezone

from apps.billing.alerts import emails, endpoints, evaluation
from apps.billing.alerts.brake import brake


@shared_task(name="alerts.evaluate")
def evaluate() -> None:
    """Budgets and balances of whoever spent or paid."""
    close_old_connections()
    evaluation.evaluate(timezone.now())


@shared_task(name="alerts.look_ahead")
def look_ahead() -> None:
    """Unusual spending, and ends of credit."""
    close_old_connections()
    evaluation.look_ahead(timezone.now())


@shared_task(name="alerts.brake")
def brake_keys() -> None:
    """Pause keys that spend too fast."""
    close_old_connections()
    brake(timezone.now())


@shared_task(name="alerts.send_emails")
def send_emails() -> None:
    """Send e-mails that are due."""
    close_old_connections()
    emails.send_emails()


@shared_task(name="alerts.prune")
def prune() -> None:
    """Forget webhook messages of last month."""
    close_old_connections()
    endpoints.prune(timezone.now())
