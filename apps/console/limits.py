"""Limits in the console: the part of a form that sets them, and how they are told to gateways."""

from typing import Any

from django.http import HttpRequest

from apps.accounts.limits import announce_limits
from apps.console.access import ConsoleAdmin
from apps.core.limit_fields import LIMIT_FIELDS
from apps.core.limits import Limits, spoken_limits

LIMITS_FIELDSET = (
    "Limits",
    {
        "fields": (
            ("budget_nanos", "budget_period"),
            ("requests_per_minute", "tokens_per_minute"),
            ("requests_per_day", "concurrency"),
        )
    },
)
CHANGES_LIMITS = frozenset({*LIMIT_FIELDS, "plan", "priority"})
PRIORITY_FIELDSET = ("Under load", {"fields": ("priority",)})


def in_words(limits: Limits) -> str:
    """The limits on one line."""
    return ", ".join(spoken_limits(limits)) or "no limits"


class LimitsAdmin(ConsoleAdmin):
    """A page of an owner of limits: gateways learn of what is saved."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change and CHANGES_LIMITS.intersection(form.changed_data):
            announce_limits()
