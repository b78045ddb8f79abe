"""The brake of a plan's keys."""

import apps.core.limit_fields
import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_limits"),
    ]

    operations = [
        migrations.AddField(
            model_name="plan",
            name="brake_minutes",
            field=models.PositiveSmallIntegerField(
                default=5,
                help_text="1 to 60.",
                validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(60)],
                verbose_name="brake: minutes",
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="brake_nanos",
            field=apps.core.limit_fields.NanosField(
                blank=True,
                help_text="A key that spends more than this within the minutes of the brake is paused. 0: never.",
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(0),
                    django.core.validators.MaxValueValidator(9000000000000000),
                ],
                verbose_name="brake: USD",
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("brake_nanos__isnull", True),
                    models.Q(("brake_nanos__gte", 0), ("brake_nanos__lte", 9000000000000000)),
                    _connector="OR",
                ),
                name="plan_brake_nanos_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(("brake_minutes__gte", 1), ("brake_minutes__lte", 60)),
                name="plan_brake_minutes_in_range",
            ),
        ),
    ]
