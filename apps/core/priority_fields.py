"""Priority as a column: of a plan, an organization, a key."""

from django.db import models

from apps.core.priorities import Priority

PRIORITY_CHOICES = [(each.value, each.spoken.capitalize()) for each in reversed(Priority)]


class Prioritized(models.Model):
    """Empty means: what stands above it says so."""

    priority = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        choices=PRIORITY_CHOICES,
        help_text="Whose requests are served longest by a gateway that cannot keep up. Empty: a key has its"
        " organization's, an organization its plan's, and that is normal. A key never has more than its organization.",
    )

    class Meta:
        abstract = True


PRIORITY_CONSTRAINT = models.CheckConstraint(
    condition=models.Q(priority__isnull=True) | models.Q(priority__in=[each.value for each in Priority]),
    name="%(class)s_priority_known",
)
