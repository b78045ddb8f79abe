"""Alerts, webhook endpoints and their work tables."""

import apps.billing.models.alerts
import apps.core.ids
import apps.core.limit_fields
import django.contrib.postgres.fields
import django.db.models.deletion
import django.utils.timezone
import functools
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0003_plan_brake'),
        ('billing', '0006_invoices'),
    ]

    operations = [
        migrations.CreateModel(
            name='AlertPass',
            fields=[
                ('name', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('seen_until', models.DateTimeField()),
            ],
            options={
                'verbose_name_plural': 'alert passes',
            },
        ),
        migrations.CreateModel(
            name='AlertSettings',
            fields=[
                ('organization', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='alert_settings', serialize=False, to='accounts.organization')),
                ('low_balance_nanos', apps.core.limit_fields.NanosField(blank=True, default=5000000000, null=True)),
                ('recipients', django.contrib.postgres.fields.ArrayField(base_field=models.EmailField(max_length=254), blank=True, default=list, size=None)),
                ('muted_kinds', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), blank=True, default=list, size=None)),
                ('low_since', models.DateTimeField(editable=False, null=True)),
            ],
            options={
                'verbose_name_plural': 'alert settings',
            },
        ),
        migrations.CreateModel(
            name='Alert',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('alert',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('credit.low', 'credit.low'), ('budget.reached', 'budget.reached'), ('grant.expiring', 'grant.expiring'), ('auto_top_up.failed', 'auto_top_up.failed'), ('spend.anomaly', 'spend.anomaly'), ('key.paused', 'key.paused'), ('invoice.issued', 'invoice.issued'), ('webhook.disabled', 'webhook.disabled'), ('ledger.proof_failed', 'ledger.proof_failed'), ('usage.review', 'usage.review')], max_length=40)),
                ('subject', models.CharField(max_length=200)),
                ('text', models.CharField(blank=True, max_length=2000)),
                ('details', models.JSONField(default=dict)),
                ('dedupe_key', models.CharField(max_length=200, unique=True)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('acknowledged_at', models.DateTimeField(blank=True, null=True)),
                ('acknowledged_by', models.CharField(blank=True, max_length=254)),
                ('organization', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='alerts', to='accounts.organization')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='AlertEmail',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('delivered', 'Delivered'), ('failed', 'Failed')], default=apps.billing.models.alerts.DeliveryState['PENDING'], max_length=10)),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('next_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('last_error', models.CharField(blank=True, max_length=200)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('finished_at', models.DateTimeField(null=True)),
                ('recipient', models.EmailField(max_length=254)),
                ('alert', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='emails', to='billing.alert')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='WebhookEndpoint',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('hook',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('url', models.CharField(max_length=500)),
                ('description', models.CharField(blank=True, max_length=100)),
                ('sealed_secret', models.TextField(editable=False)),
                ('sealed_previous_secret', models.TextField(blank=True, editable=False)),
                ('previous_until', models.DateTimeField(editable=False, null=True)),
                ('event_kinds', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), default=list, size=None)),
                ('enabled', models.BooleanField(default=True)),
                ('disabled_reason', models.CharField(blank=True, max_length=200)),
                ('failing_since', models.DateTimeField(editable=False, null=True)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='webhook_endpoints', to='accounts.organization')),
            ],
            options={
                'ordering': ['created_at'],
            },
        ),
        migrations.CreateModel(
            name='WebhookDelivery',
            fields=[
                ('state', models.CharField(choices=[('pending', 'Pending'), ('delivered', 'Delivered'), ('failed', 'Failed')], default=apps.billing.models.alerts.DeliveryState['PENDING'], max_length=10)),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('next_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('last_error', models.CharField(blank=True, max_length=200)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('finished_at', models.DateTimeField(null=True)),
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('msg',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('event', models.CharField(max_length=40)),
                ('body', models.TextField()),
                ('tries_before', models.PositiveSmallIntegerField(default=0)),
                ('last_code', models.PositiveSmallIntegerField(null=True)),
                ('tries', models.JSONField(default=list)),
                ('alert', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='billing.alert')),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='accounts.organization')),
                ('endpoint', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='billing.webhookendpoint')),
            ],
            options={
                'verbose_name_plural': 'webhook deliveries',
                'ordering': ['-id'],
                'abstract': False,
            },
        ),
        migrations.AddIndex(
            model_name='alert',
            index=models.Index(fields=['organization', '-id'], name='alert_by_organization'),
        ),
        migrations.AddIndex(
            model_name='alert',
            index=models.Index(condition=models.Q(('acknowledged_at', None)), fields=['organization'], name='alert_open'),
        ),
        migrations.AddIndex(
            model_name='alertemail',
            index=models.Index(condition=models.Q(('state', 'pending')), fields=['next_at'], name='alertemail_due'),
        ),
        migrations.AddConstraint(
            model_name='alertemail',
            constraint=models.UniqueConstraint(fields=('alert', 'recipient'), name='alertemail_once'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(condition=models.Q(('state', 'pending')), fields=['next_at'], name='webhookdelivery_due'),
        ),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(fields=['endpoint', '-id'], name='webhookdelivery_by_endpoint'),
        ),
        migrations.AddConstraint(
            model_name='webhookdelivery',
            constraint=models.UniqueConstraint(condition=models.Q(('alert__isnull', False)), fields=('alert', 'endpoint'), name='webhookdelivery_once'),
        ),
    ]
