"""The rows of an organization's decisions."""

from functools import partial
from typing import Final

from django.db import models

from apps.core.ids import ID_LENGTH, new_id
from apps.core.models import OrganizationScoped
from apps.core.name_fields import NameField

new_guardrail_id = partial(new_id, "guard")
MODES: Final = [("on", "On"), ("log", "Log only"), ("off", "Off")]
DIRECTIONS: Final = [("both", "Requests and answers"), ("input", "Requests"), ("output", "Answers")]
ACTIONS: Final = [("block", "Block"), ("redact", "Redact")]
KINDS: Final = [
    ("models", "Models"),
    ("pattern", "Regular expression"),
    ("keywords", "Keywords"),
    ("personal_data", "Personal data"),
    ("moderation", "Moderation"),
]


class GuardrailRule(OrganizationScoped):
    """A guardrail: of the whole organization, or of one of its keys."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_guardrail_id, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="guardrails")
    key = models.ForeignKey(
        "keys.ApiKey",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="guardrails",
        help_text="Empty: all keys of the organization.",
    )
    name = NameField(max_length=60)
    kind = models.CharField(max_length=20, choices=KINDS)
    mode = models.CharField(max_length=10, choices=MODES, default="on")
    direction = models.CharField(max_length=10, choices=DIRECTIONS, default="both")
    action = models.CharField(max_length=10, choices=ACTIONS, default="block")
    check_settings = models.JSONField(editable=False)
    """What the check of this kind needs: apps.policies.rules.Check."""
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        "accounts.User", null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["created_at", "id"]
        verbose_name = "guardrail"

    def __str__(self) -> str:
        return self.name
