"""Windows of maintenance for providers and routes; how long the streams of a model may take to begin."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0009_unsupported_parameters'),
    ]

    operations = [
        migrations.AddField(
            model_name='model',
            name='first_byte_timeout_s',
            field=models.PositiveIntegerField(blank=True, help_text='Seconds that a stream may take to begin; empty: CRUN_UPSTREAM_FIRST_BYTE_TIMEOUT_S.', null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(3600)], verbose_name='first byte timeout'),
        ),
        migrations.AddField(
            model_name='provider',
            name='maintenance_from',
            field=models.DateTimeField(blank=True, help_text='No new requests from then on (UTC).', null=True),
        ),
        migrations.AddField(
            model_name='provider',
            name='maintenance_note',
            field=models.CharField(blank=True, help_text='Customers can read it at /models/{id}/endpoints.', max_length=200),
        ),
        migrations.AddField(
            model_name='provider',
            name='maintenance_until',
            field=models.DateTimeField(blank=True, help_text='Requests again from then on (UTC).', null=True),
        ),
        migrations.AddField(
            model_name='route',
            name='maintenance_from',
            field=models.DateTimeField(blank=True, help_text='No new requests from then on (UTC).', null=True),
        ),
        migrations.AddField(
            model_name='route',
            name='maintenance_note',
            field=models.CharField(blank=True, help_text='Customers can read it at /models/{id}/endpoints.', max_length=200),
        ),
        migrations.AddField(
            model_name='route',
            name='maintenance_until',
            field=models.DateTimeField(blank=True, help_text='Requests again from then on (UTC).', null=True),
        ),
        migrations.AddConstraint(
            model_name='model',
            constraint=models.CheckConstraint(condition=models.Q(('first_byte_timeout_s__isnull', True), models.Q(('first_byte_timeout_s__gte', 1), ('first_byte_timeout_s__lte', 3600)), _connector='OR'), name='model_first_byte_timeout_s_in_range'),
        ),
        migrations.AddConstraint(
            model_name='provider',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('maintenance_from__isnull', True), ('maintenance_until__isnull', True)), models.Q(('maintenance_from__isnull', False), ('maintenance_until__gt', models.F('maintenance_from')), ('maintenance_until__isnull', False)), _connector='OR'), name='provider_maintenance_is_a_window', violation_error_message='Maintenance has both a beginning and a later end, or neither.'),
        ),
        migrations.AddConstraint(
            model_name='route',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('maintenance_from__isnull', True), ('maintenance_until__isnull', True)), models.Q(('maintenance_from__isnull', False), ('maintenance_until__gt', models.F('maintenance_from')), ('maintenance_until__isnull', False)), _connector='OR'), name='route_maintenance_is_a_window', violation_error_message='Maintenance has both a beginning and a later end, or neither.'),
        ),
    ]
