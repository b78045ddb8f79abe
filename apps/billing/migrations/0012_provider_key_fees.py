"""What requests with an organization's own provider key cost. Only ever added to, as price books are."""

import apps.core.ids
import django.core.validators
import django.db.models.deletion
import django.utils.timezone
import functools
from django.db import migrations, models

RULES = """
CREATE TRIGGER provider_key_fee_append_only BEFORE UPDATE OR DELETE ON billing_providerkeyfee
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_pricing_change();
-- Gateways load the fees with the catalog, and look at its version.
CREATE TRIGGER provider_key_fee_raises_version AFTER INSERT ON billing_providerkeyfee
    FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_version();
"""
NO_RULES = """
DROP TRIGGER provider_key_fee_append_only ON billing_providerkeyfee;
DROP TRIGGER provider_key_fee_raises_version ON billing_providerkeyfee;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0003_plan_brake'),
        ('billing', '0011_odd_rows'),
        ('catalog', '0002_triggers'),
    ]

    operations = [
        migrations.CreateModel(
            name='ProviderKeyFee',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('fee',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('starts_at', models.DateTimeField(default=django.utils.timezone.now, help_text='In force from this moment on (UTC).')),
                ('percent', models.DecimalField(decimal_places=4, help_text='Of what the request would cost without the key: 5 is a fee of 5 %, 0 none at all.', max_digits=7, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(100)])),
                ('note', models.CharField(blank=True, max_length=300)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.CharField(blank=True, editable=False, max_length=254)),
                ('organization', models.ForeignKey(blank=True, help_text='Empty: everybody. A fee of an organization goes before that.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='provider_key_fees', to='accounts.organization')),
            ],
            options={
                'verbose_name': 'fee for own provider keys',
                'verbose_name_plural': 'fees for own provider keys',
                'ordering': ['organization', '-starts_at'],
                'constraints': [models.UniqueConstraint(fields=('organization', 'starts_at'), name='provider_key_fee_start_unique', nulls_distinct=False), models.CheckConstraint(condition=models.Q(('percent__range', (0, 100))), name='provider_key_fee_percent_in_range')],
            },
        ),
        migrations.RunSQL(RULES, NO_RULES),
    ]
