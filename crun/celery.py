"""The Celery app. Tasks only wake work tables and journals, so each may run twice at once."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crun.settings")

app = Celery("crun")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.autodiscover_tasks([f"apps.billing.{room}" for room in ("alerts", "invoices", "payments", "pricing")])
