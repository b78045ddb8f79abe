"""Price books and re-ratings.

What an organization was promised and what was corrected stays as it was, whatever code runs: rules and corrections are only ever
added, and of a re-rating nothing changes but that it is done.
"""

import functools

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import apps.core.ids

RULES = """
CREATE FUNCTION billing_refuse_pricing_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'price books and corrections are append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER price_rule_append_only BEFORE UPDATE OR DELETE ON billing_pricerule
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_pricing_change();
CREATE TRIGGER rerated_usage_append_only BEFORE UPDATE OR DELETE ON billing_reratedusage
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_pricing_change();
CREATE TRIGGER rerating_stays BEFORE DELETE ON billing_rerating
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_pricing_change();
CREATE TRIGGER rerating_fixed BEFORE UPDATE ON billing_rerating
    FOR EACH ROW WHEN ((to_jsonb(OLD) - 'status') IS DISTINCT FROM (to_jsonb(NEW) - 'status')
        OR (OLD.status = 'applied' AND NEW.status <> 'applied'))
    EXECUTE FUNCTION billing_refuse_pricing_change();
-- Gateways load the price book with the catalog, and look at its version.
CREATE TRIGGER price_rule_raises_version AFTER INSERT ON billing_pricerule
    FOR EACH STATEMENT EXECUTE FUNCTION catalog_raise_version();
"""
NO_RULES = """
DROP TRIGGER price_rule_append_only ON billing_pricerule;
DROP TRIGGER rerated_usage_append_only ON billing_reratedusage;
DROP TRIGGER rerating_stays ON billing_rerating;
DROP TRIGGER rerating_fixed ON billing_rerating;
DROP TRIGGER price_rule_raises_version ON billing_pricerule;
DROP FUNCTION billing_refuse_pricing_change;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("billing", "0003_usage_before_the_ledger"),
        ("catalog", "0002_triggers"),
    ]

    operations = [
        migrations.CreateModel(
            name='Rerating',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('rerate',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('model', models.CharField(max_length=128)),
                ('starts_at', models.DateTimeField(help_text='First moment of the window (UTC).')),
                ('ends_at', models.DateTimeField(help_text='First moment after the window (UTC).')),
                ('reason', models.CharField(max_length=500)),
                ('status', models.CharField(choices=[('applying', 'Applying'), ('applied', 'Applied')], default='applying', max_length=20)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.CharField(max_length=254)),
            ],
            options={
                'verbose_name': 're-rating',
                'ordering': ['-id'],
                'constraints': [models.CheckConstraint(condition=models.Q(('starts_at__lt', models.F('ends_at'))), name='rerating_window_in_order')],
            },
        ),
        migrations.CreateModel(
            name='PriceRule',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('rule',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('starts_at', models.DateTimeField(default=django.utils.timezone.now, help_text='In force from this moment on (UTC).')),
                ('percent', models.DecimalField(blank=True, decimal_places=4, help_text='Change of the list price: -10 is a discount of 10 %, 20 a markup of 20 %, 0 the list price.', max_digits=8, null=True, validators=[django.core.validators.MinValueValidator(-100), django.core.validators.MaxValueValidator(1000)])),
                ('amounts', models.JSONField(blank=True, help_text='Fixed prices instead of the list.', null=True)),
                ('note', models.CharField(blank=True, max_length=300)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.CharField(blank=True, editable=False, max_length=254)),
                ('model', models.ForeignKey(blank=True, help_text='Empty: every model. A rule for a model goes before one for all.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='price_rules', to='catalog.model')),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='price_rules', to='accounts.organization')),
            ],
            options={
                'ordering': ['organization', 'model', '-starts_at'],
                'constraints': [models.UniqueConstraint(fields=('organization', 'model', 'starts_at'), name='price_rule_start_unique', nulls_distinct=False), models.CheckConstraint(condition=models.Q(('percent__isnull', True), ('amounts__isnull', True), _connector='XOR'), name='price_rule_percent_or_amounts'), models.CheckConstraint(condition=models.Q(('percent__isnull', True), ('percent__range', (-100, 1000)), _connector='OR'), name='price_rule_percent_in_range')],
            },
        ),
        migrations.CreateModel(
            name='ReratedUsage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('request_id', models.CharField(db_index=True, max_length=40)),
                ('delta_nanos', models.BigIntegerField()),
                ('price_version_id', models.BigIntegerField()),
                ('price_rule_id', models.CharField(blank=True, max_length=40)),
                ('organization', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.organization')),
                ('rerating', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='requests', to='billing.rerating')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('rerating', 'request_id'), name='rerated_once'), models.CheckConstraint(condition=models.Q(('delta_nanos', 0), _negated=True), name='rerated_changes_something')],
            },
        ),
        migrations.RunSQL(RULES, NO_RULES),
    ]
