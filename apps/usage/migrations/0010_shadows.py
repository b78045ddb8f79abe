

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0003_plan_brake'),
        ('usage', '0009_endpoint'),
    ]

    operations = [
        migrations.CreateModel(
            name='ShadowRecord',
            fields=[
                ('id', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField()),
                ('request_id', models.CharField(max_length=40)),
                ('model', models.CharField(max_length=128)),
                ('provider', models.CharField(max_length=60)),
                ('upstream_model', models.CharField(max_length=200)),
                ('status', models.CharField(choices=[('completed', 'Completed'), ('failed', 'Failed'), ('cancelled', 'Cancelled'), ('interrupted', 'Interrupted')], max_length=20)),
                ('error_code', models.CharField(default='', max_length=60)),
                ('input_tokens', models.PositiveBigIntegerField()),
                ('cache_read_tokens', models.PositiveBigIntegerField()),
                ('output_tokens', models.PositiveBigIntegerField()),
                ('duration_ms', models.PositiveIntegerField()),
                ('organization', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='accounts.organization')),
            ],
            options={
                'verbose_name': 'copy',
                'verbose_name_plural': 'copies to routes on trial',
                'ordering': ['-id'],
            },
        ),
    ]
