"""Registers the system checks of billing."""

from django.apps import AppConfig

from apps.billing.payments import checks


class BillingConfig(AppConfig):
    name = "apps.billing"
    system_checks = checks
