"""The brake as columns: how fast a key may spend before it is paused."""

from typing import Final

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from apps.core.errors import InvalidInput
from apps.core.limit_fields import NanosField
from apps.core.limits import MAX_BUDGET_NANOS

MAX_MINUTES: Final = 60
DEFAULT_MINUTES: Final = 5
BRAKE_FIELDS: Final = ("brake_nanos", "brake_minutes")


class Braked(models.Model):
    """Spending more than `brake_nanos` within `brake_minutes` pauses a key. 0 is no brake at all.

    Empty means: what the plan of the organization says, or, on a plan, no brake."""

    brake_nanos = NanosField(
        "brake: USD",
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(MAX_BUDGET_NANOS)],
        help_text="A key that spends more than this within the minutes of the brake is paused. 0: never.",
    )
    brake_minutes = models.PositiveSmallIntegerField(
        "brake: minutes",
        default=DEFAULT_MINUTES,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_MINUTES)],
        help_text=f"1 to {MAX_MINUTES}.",
    )

    class Meta:
        abstract = True


BRAKE_CONSTRAINTS: Final = [
    models.CheckConstraint(
        condition=Q(brake_nanos__isnull=True) | Q(brake_nanos__gte=0, brake_nanos__lte=MAX_BUDGET_NANOS),
        name="%(class)s_brake_nanos_in_range",
    ),
    models.CheckConstraint(
        condition=Q(brake_minutes__gte=1, brake_minutes__lte=MAX_MINUTES), name="%(class)s_brake_minutes_in_range"
    ),
]


def check_brake(nanos: int | None, minutes: int) -> None:
    """Raises InvalidInput for a brake that cannot be."""
    if nanos is not None and not 0 <= nanos <= MAX_BUDGET_NANOS:
        raise InvalidInput("the amount of a brake is 0 or more; leave it out to follow the plan")
    if not 1 <= minutes <= MAX_MINUTES:
        raise InvalidInput(f"a brake looks at 1 to {MAX_MINUTES} minutes")
