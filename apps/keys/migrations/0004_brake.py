"""The brake of a key, and its pause."""

import apps.core.limit_fields
import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('keys', '0003_sandbox_keys'),
    ]

    operations = [
        migrations.AddField(
            model_name='apikey',
            name='brake_counts_from',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='apikey',
            name='brake_minutes',
            field=models.PositiveSmallIntegerField(default=5, help_text='1 to 60.', validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(60)], verbose_name='brake: minutes'),
        ),
        migrations.AddField(
            model_name='apikey',
            name='brake_nanos',
            field=apps.core.limit_fields.NanosField(blank=True, help_text='A key that spends more than this within the minutes of the brake is paused. 0: never.', null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(9000000000000000)], verbose_name='brake: USD'),
        ),
        migrations.AddField(
            model_name='apikey',
            name='pause_reason',
            field=models.CharField(blank=True, editable=False, max_length=200),
        ),
        migrations.AddField(
            model_name='apikey',
            name='paused_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(('brake_nanos__isnull', True), models.Q(('brake_nanos__gte', 0), ('brake_nanos__lte', 9000000000000000)), _connector='OR'), name='apikey_brake_nanos_in_range'),
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(('brake_minutes__gte', 1), ('brake_minutes__lte', 60)), name='apikey_brake_minutes_in_range'),
        ),
    ]
