"""API keys. Only a keyed digest is stored; the key itself is shown once, when it is made."""

from functools import partial

from django.db import models

from apps.core.brake_fields import BRAKE_CONSTRAINTS, Braked
from apps.core.ids import ID_LENGTH, new_id
from apps.core.limit_fields import Limited
from apps.core.models import OrganizationScoped
from apps.core.name_fields import NameField
from apps.core.priority_fields import PRIORITY_CONSTRAINT, Prioritized
from apps.keys.keyformat import SANDBOX_PREFIX

new_key_id = partial(new_id, "key")


class ApiKey(OrganizationScoped, Limited, Braked, Prioritized):
    """A key of a project. `digest` says which pepper made it: `pepper$hex`."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_key_id, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="keys")
    project = models.ForeignKey("accounts.Project", on_delete=models.PROTECT, related_name="keys")
    name = NameField(max_length=100)
    prefix = models.CharField(max_length=16, editable=False)
    last_four = models.CharField(max_length=4, editable=False)
    digest = models.CharField(max_length=100, unique=True, editable=False)
    sandbox = models.BooleanField(
        "sandbox key",
        default=False,
        help_text="Calls sandbox models only and spends no money. A key stays what it was made as.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        "accounts.User", null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    pause_reason = models.CharField(max_length=200, blank=True, editable=False)
    brake_counts_from = models.DateTimeField(null=True, blank=True, editable=False)
    """What was spent before the key was resumed no longer counts."""

    class Meta(Limited.Meta):
        ordering = ["-created_at"]
        verbose_name = "API key"
        constraints = [
            *Limited.Meta.constraints,
            *BRAKE_CONSTRAINTS,
            PRIORITY_CONSTRAINT,
            models.CheckConstraint(
                condition=models.Q(sandbox=False) | models.Q(prefix__startswith=SANDBOX_PREFIX),
                name="apikey_sandbox_looks_like_one",
            ),
            models.CheckConstraint(
                condition=models.Q(sandbox=False) | models.Q(budget_nanos__isnull=True),
                name="apikey_sandbox_has_no_budget",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.redacted})"

    @property
    def redacted(self) -> str:
        """What may be shown of the key after its creation."""
        return f"{self.prefix}…{self.last_four}"
