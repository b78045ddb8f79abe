"""The rows of an organization's decisions."""

from functools import partial
from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models

from apps.core.ids import ID_LENGTH, new_id
from apps.core.models import OrganizationScoped
from apps.core.name_fields import NameField
from apps.policies.data_rules import REGION_PATTERN

new_guardrail_id = partial(new_id, "guard")
new_credential_id = partial(new_id, "cred")
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


class ProviderCredential(OrganizationScoped):
    """An organization's own key at a provider, tried before the operator's. Where it is sent is the operator's
    provider, nobody else's address. The key itself is sealed and never shown again."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_credential_id, editable=False)
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.PROTECT, related_name="provider_credentials"
    )
    provider = models.ForeignKey("catalog.Provider", on_delete=models.CASCADE, related_name="own_credentials")
    label = NameField(max_length=60)
    secret = models.TextField(editable=False)
    """Sealed by `apps.policies.credentials`; bound to this row and to the provider's host."""
    last_four = models.CharField(max_length=4, editable=False)
    options = models.JSONField(default=dict, blank=True, editable=False)
    enabled = models.BooleanField(default=True)
    order = models.PositiveSmallIntegerField(default=0)
    """Lower ones are tried first."""
    is_exclusive = models.BooleanField(default=False)
    model_ids = ArrayField(models.CharField(max_length=128), default=list, blank=True)
    """Ids of the models that it is for; none: all that the provider serves."""
    key_ids = ArrayField(models.CharField(max_length=ID_LENGTH), default=list, blank=True)
    """Ids of the API keys that may use it; none: all of the organization."""
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=254, blank=True, editable=False)
    changed_at = models.DateTimeField(auto_now=True)
    changed_by = models.CharField(max_length=254, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    last_error = models.CharField(max_length=60, blank=True, editable=False)
    """The code of the last failure; "" after a success."""
    last_error_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["provider", "order", "id"]
        verbose_name = "provider key"
        constraints = [
            models.UniqueConstraint(fields=["organization", "provider", "label"], name="provider_key_label_unique")
        ]

    def __str__(self) -> str:
        return self.label


class DataPolicy(OrganizationScoped):
    """Where an organization lets its prompts go. Without a row they may go anywhere."""

    organization = models.OneToOneField(
        "accounts.Organization", primary_key=True, on_delete=models.CASCADE, related_name="data_policy"
    )
    regions = ArrayField(
        models.CharField(max_length=20, validators=[RegexValidator(f"^{REGION_PATTERN}$")]),
        default=list,
        blank=True,
        help_text="Only there; none: anywhere. Commas between them.",
    )
    denies_collection = models.BooleanField(
        "deny collection", default=False, help_text="No provider that may keep prompts, or learn from them."
    )
    requires_zero_retention = models.BooleanField(
        "zero retention", default=False, help_text="Only providers that keep nothing of a request once it is answered."
    )
    denied_providers = ArrayField(
        models.CharField(max_length=60), default=list, blank=True, help_text="Ids of providers, with commas between."
    )
    forbids_copies = models.BooleanField(
        "forbid copies", default=False, help_text="No copies of requests go elsewhere to compare answers."
    )
    forbids_storage = models.BooleanField(
        "forbid storage", default=False, help_text="No responses are stored here to go on from."
    )
    changed_at = models.DateTimeField(auto_now=True)
    changed_by = models.ForeignKey(
        "accounts.User", null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )

    class Meta:
        verbose_name = "data policy"
        verbose_name_plural = "data policies"

    def __str__(self) -> str:
        return f"data policy of {self.organization_id}"
