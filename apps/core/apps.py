"""Registers the system checks."""

from django.apps import AppConfig

from apps.core import checks


class CoreConfig(AppConfig):
    name = "apps.core"
    system_checks = checks
