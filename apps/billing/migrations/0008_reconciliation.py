"""Runs of the proofs, vendors' own figures, and rules of the database that act as their owner.

The processes have database roles of their own that may not change balances or make tables. So the functions below run with the
rights of whoever migrates. Whoever may execute a trigger function can hang it on a table of its own, and so choose what it does:
nobody but the owner may execute them, and each looks where it hangs.
"""

import functools

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import apps.core.ids

# The function of migration 0002, which now acts as its owner, and therefore for the ledger's own lines only.
_APPLY = """
CREATE OR REPLACE FUNCTION billing_apply_lines() RETURNS trigger LANGUAGE plpgsql {rights} AS $$
BEGIN
    {check}UPDATE billing_ledgeraccount account SET balance_nanos = account.balance_nanos + moved.amount
        FROM (SELECT account_id, sum(amount_nanos)::bigint AS amount FROM added GROUP BY account_id) moved
        WHERE account.id = moved.account_id AND account.organization_id IS NOT NULL AND moved.amount <> 0;
    UPDATE billing_grant credit SET remaining_nanos = credit.remaining_nanos + moved.amount
        FROM (SELECT grant_id, sum(amount_nanos)::bigint AS amount FROM added
              WHERE grant_id IS NOT NULL GROUP BY grant_id) moved
        WHERE credit.id = moved.grant_id AND moved.amount <> 0;
    RETURN NULL;
END $$;
"""
_FOR_LINES_ONLY = """IF TG_RELID <> 'public.billing_ledgerline'::regclass THEN
        RAISE EXCEPTION 'billing_apply_lines() works for the lines of the ledger only, not for %', TG_RELID::regclass
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    """
AS_OWNER = (
    _APPLY.format(rights="SECURITY DEFINER SET search_path = public, pg_temp", check=_FOR_LINES_ONLY)
    + """
REVOKE ALL ON FUNCTION billing_apply_lines() FROM PUBLIC;

CREATE FUNCTION usage_make_partition(wanted date) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF usage_usagerecord FOR VALUES FROM (%L) TO (%L)',
                   'usage_record_' || to_char(wanted, 'YYYYMMDD'), wanted, wanted + 1);
END $$;
REVOKE ALL ON FUNCTION usage_make_partition(date) FROM PUBLIC;

-- Roles that may open a wallet or a grant cannot open it with money in it.
CREATE TRIGGER ledger_account_opens_empty BEFORE INSERT ON billing_ledgeraccount
    FOR EACH ROW WHEN (NEW.balance_nanos <> 0) EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER grant_opens_empty BEFORE INSERT ON billing_grant
    FOR EACH ROW WHEN (NEW.remaining_nanos <> 0) EXECUTE FUNCTION billing_refuse_change();
"""
)
AS_CALLER = (
    _APPLY.format(rights="", check="")
    + """
DROP TRIGGER ledger_account_opens_empty ON billing_ledgeraccount;
DROP TRIGGER grant_opens_empty ON billing_grant;
GRANT EXECUTE ON FUNCTION billing_apply_lines() TO PUBLIC;
DROP FUNCTION usage_make_partition(date);
"""
)


class Migration(migrations.Migration):

    dependencies = [
        ("billing", "0007_alerts"),
        ("catalog", "0003_price_features"),
        ("usage", "0001_initial"),
    ]

    operations = [
        migrations.RunSQL(AS_OWNER, AS_CALLER),
        migrations.AlterField(
            model_name='alert',
            name='kind',
            field=models.CharField(choices=[('credit.low', 'credit.low'), ('budget.reached', 'budget.reached'), ('grant.expiring', 'grant.expiring'), ('auto_top_up.failed', 'auto_top_up.failed'), ('spend.anomaly', 'spend.anomaly'), ('key.paused', 'key.paused'), ('invoice.issued', 'invoice.issued'), ('webhook.disabled', 'webhook.disabled'), ('ledger.proof_failed', 'ledger.proof_failed'), ('usage.review', 'usage.review'), ('vendor.drift', 'vendor.drift'), ('payment.review', 'payment.review')], max_length=40),
        ),
        migrations.CreateModel(
            name='ReconciliationRun',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('recon',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('cause', models.CharField(choices=[('nightly', 'Nightly'), ('console', 'Console'), ('shell', 'Shell')], max_length=10)),
                ('actor', models.CharField(max_length=254)),
                ('asked_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('started_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('holds', models.BooleanField(null=True)),
                ('account_totals', models.JSONField(default=dict)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='VendorReport',
            fields=[
                ('digest', models.CharField(editable=False, max_length=64, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200)),
                ('first_day', models.DateField()),
                ('last_day', models.DateField()),
                ('new_rows', models.PositiveIntegerField()),
                ('changed_rows', models.PositiveIntegerField()),
                ('known_rows', models.PositiveIntegerField()),
                ('imported_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('imported_by', models.CharField(max_length=254)),
                ('provider', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='catalog.provider')),
            ],
            options={
                'ordering': ['-imported_at'],
            },
        ),
        migrations.CreateModel(
            name='ProofResult',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('place', models.PositiveSmallIntegerField()),
                ('name', models.CharField(max_length=100)),
                ('holds', models.BooleanField()),
                ('detail', models.CharField(blank=True, max_length=2000)),
                ('seconds', models.FloatField()),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='results', to='billing.reconciliationrun')),
            ],
            options={
                'ordering': ['run', 'place'],
            },
        ),
        migrations.CreateModel(
            name='VendorCost',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('model', models.CharField(max_length=200)),
                ('line_item', models.CharField(max_length=200)),
                ('cost_nanos', models.BigIntegerField(null=True)),
                ('input_tokens', models.PositiveBigIntegerField(null=True)),
                ('cache_read_tokens', models.PositiveBigIntegerField(null=True)),
                ('cache_write_tokens', models.PositiveBigIntegerField(null=True)),
                ('output_tokens', models.PositiveBigIntegerField(null=True)),
                ('provider', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='catalog.provider')),
                ('report', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='rows', to='billing.vendorreport')),
            ],
            options={
                'ordering': ['-day', 'provider', 'model', 'line_item'],
            },
        ),
        migrations.AddConstraint(
            model_name='proofresult',
            constraint=models.UniqueConstraint(fields=('run', 'name'), name='proof_result_once_a_run'),
        ),
        migrations.AddConstraint(
            model_name='vendorcost',
            constraint=models.UniqueConstraint(fields=('provider', 'day', 'model', 'line_item'), name='vendor_cost_row_unique'),
        ),
    ]
