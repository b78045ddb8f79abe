"""Organizations' own keys at providers."""

import apps.core.ids
import django.contrib.postgres.fields
import django.db.models.deletion
import functools
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0003_plan_brake'),
        ('catalog', '0007_dialects'),
        ('policies', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='ProviderCredential',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('cred',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('label', models.CharField(max_length=60)),
                ('secret', models.TextField(editable=False)),
                ('last_four', models.CharField(editable=False, max_length=4)),
                ('options', models.JSONField(blank=True, default=dict, editable=False)),
                ('enabled', models.BooleanField(default=True)),
                ('order', models.PositiveSmallIntegerField(default=0)),
                ('is_exclusive', models.BooleanField(default=False)),
                ('model_ids', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=128), blank=True, default=list, size=None)),
                ('key_ids', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=40), blank=True, default=list, size=None)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.CharField(blank=True, editable=False, max_length=254)),
                ('changed_at', models.DateTimeField(auto_now=True)),
                ('changed_by', models.CharField(blank=True, editable=False, max_length=254)),
                ('last_used_at', models.DateTimeField(editable=False, null=True)),
                ('last_error', models.CharField(blank=True, editable=False, max_length=60)),
                ('last_error_at', models.DateTimeField(editable=False, null=True)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='provider_credentials', to='accounts.organization')),
                ('provider', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='own_credentials', to='catalog.provider')),
            ],
            options={
                'verbose_name': 'provider key',
                'ordering': ['provider', 'order', 'id'],
                'constraints': [models.UniqueConstraint(fields=('organization', 'provider', 'label'), name='provider_key_label_unique')],
            },
        ),
    ]
