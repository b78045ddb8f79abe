"""Payments."""

import apps.billing.models.payments
import apps.core.ids
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import functools
from django.db import migrations, models


# What was agreed when a payment began is never changed, and money that came in stays: whatever code runs, a payment
# cannot become somebody else's, larger, or unpaid again, and neither can it vanish.
RULES = """
CREATE FUNCTION billing_refuse_payment_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'payments are kept as they were: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER payment_fixed BEFORE UPDATE ON billing_payment FOR EACH ROW
    WHEN ((OLD.id, OLD.organization_id, OLD.kind, OLD.amount_nanos, OLD.currency, OLD.provider)
        IS DISTINCT FROM (NEW.id, NEW.organization_id, NEW.kind, NEW.amount_nanos, NEW.currency, NEW.provider)
        OR (OLD.status = 'paid' AND (NEW.status, NEW.grant_id) IS DISTINCT FROM (OLD.status, OLD.grant_id))
        OR (OLD.provider_reference <> '' AND NEW.provider_reference <> OLD.provider_reference))
    EXECUTE FUNCTION billing_refuse_payment_change();
CREATE TRIGGER payment_stays BEFORE DELETE ON billing_payment
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_payment_change();
CREATE TRIGGER payment_refund_fixed BEFORE UPDATE ON billing_refund FOR EACH ROW
    WHEN ((OLD.id, OLD.payment_id, OLD.organization_id, OLD.amount_nanos, OLD.transaction_id)
        IS DISTINCT FROM (NEW.id, NEW.payment_id, NEW.organization_id, NEW.amount_nanos, NEW.transaction_id))
    EXECUTE FUNCTION billing_refuse_payment_change();
CREATE TRIGGER payment_refund_stays BEFORE DELETE ON billing_refund
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_payment_change();
"""
NO_RULES = """
DROP TRIGGER payment_fixed ON billing_payment;
DROP TRIGGER payment_stays ON billing_payment;
DROP TRIGGER payment_refund_fixed ON billing_refund;
DROP TRIGGER payment_refund_stays ON billing_refund;
DROP FUNCTION billing_refuse_payment_change;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0002_limits'),
        ('billing', '0004_pricing'),
    ]

    operations = [
        migrations.AlterField(
            model_name='ledgertransaction',
            name='kind',
            field=models.CharField(choices=[('grant', 'Grant'), ('usage', 'Usage'), ('charge', 'Charge'), ('refund', 'Refund'), ('adjustment', 'Adjustment'), ('expiry', 'Expiry'), ('write_off', 'Write off'), ('payment_refund', 'Payment refund'), ('dispute', 'Dispute')], max_length=20),
        ),
        migrations.CreateModel(
            name='Payment',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('pay',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('top_up', 'Top up'), ('auto_top_up', 'Auto top up'), ('bank_transfer', 'Bank transfer')], max_length=20)),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('paid', 'Paid'), ('failed', 'Failed'), ('expired', 'Expired')], default=apps.billing.models.payments.PaymentStatus['PENDING'], max_length=20)),
                ('amount_nanos', models.BigIntegerField()),
                ('currency', models.CharField(default='usd', max_length=3)),
                ('provider', models.CharField(max_length=30)),
                ('provider_reference', models.CharField(blank=True, max_length=255)),
                ('checkout_reference', models.CharField(blank=True, max_length=255)),
                ('checkout_url', models.TextField(blank=True)),
                ('saves_card', models.BooleanField(default=False)),
                ('actor', models.CharField(max_length=200)),
                ('note', models.CharField(blank=True, max_length=500)),
                ('failure', models.CharField(blank=True, max_length=500)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('checked_at', models.DateTimeField(blank=True, null=True)),
                ('paid_at', models.DateTimeField(blank=True, null=True)),
                ('grant', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='payment', to='billing.grant')),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='payments', to='accounts.organization')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Dispute',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider_reference', models.CharField(max_length=255)),
                ('amount_nanos', models.BigIntegerField()),
                ('status', models.CharField(max_length=60)),
                ('reason', models.CharField(blank=True, max_length=100)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='disputes', to='accounts.organization')),
                ('reinstatement', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.ledgertransaction')),
                ('withdrawal', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.ledgertransaction')),
                ('payment', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='disputes', to='billing.payment')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='PaymentCustomer',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(max_length=30)),
                ('reference', models.CharField(max_length=255)),
                ('billing_name', models.CharField(blank=True, max_length=300)),
                ('billing_email', models.CharField(blank=True, max_length=320)),
                ('country', models.CharField(blank=True, max_length=2)),
                ('tax_id_type', models.CharField(blank=True, max_length=40)),
                ('tax_id', models.CharField(blank=True, max_length=100)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='payment_customers', to='accounts.organization')),
            ],
        ),
        migrations.CreateModel(
            name='PaymentMethod',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('card',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('provider', models.CharField(max_length=30)),
                ('customer_reference', models.CharField(max_length=255)),
                ('reference', models.CharField(max_length=255)),
                ('brand', models.CharField(max_length=40)),
                ('last4', models.CharField(max_length=4)),
                ('exp_month', models.PositiveSmallIntegerField()),
                ('exp_year', models.PositiveSmallIntegerField()),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('removed_at', models.DateTimeField(blank=True, null=True)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='payment_methods', to='accounts.organization')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.AddField(
            model_name='payment',
            name='card',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='payments', to='billing.paymentmethod'),
        ),
        migrations.CreateModel(
            name='AutoTopUp',
            fields=[
                ('organization', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='auto_top_up', serialize=False, to='accounts.organization')),
                ('enabled', models.BooleanField(default=False)),
                ('threshold_nanos', models.BigIntegerField()),
                ('amount_nanos', models.BigIntegerField()),
                ('monthly_ceiling_nanos', models.BigIntegerField()),
                ('failures', models.PositiveSmallIntegerField(default=0)),
                ('next_attempt_at', models.DateTimeField(blank=True, null=True)),
                ('paused_at', models.DateTimeField(blank=True, null=True)),
                ('paused_reason', models.CharField(blank=True, max_length=500)),
                ('actor', models.CharField(max_length=200)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('card', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.paymentmethod')),
            ],
        ),
        migrations.CreateModel(
            name='Refund',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('rfd',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('amount_nanos', models.BigIntegerField()),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('succeeded', 'Succeeded'), ('failed', 'Failed')], default=apps.billing.models.payments.RefundStatus['PENDING'], max_length=20)),
                ('provider_reference', models.CharField(blank=True, max_length=255)),
                ('reason', models.CharField(max_length=500)),
                ('actor', models.CharField(max_length=200)),
                ('failure', models.CharField(blank=True, max_length=500)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('checked_at', models.DateTimeField(blank=True, null=True)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='payment_refunds', to='accounts.organization')),
                ('payment', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='refunds', to='billing.payment')),
                ('reversal', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.ledgertransaction')),
                ('transaction', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='payment_refund', to='billing.ledgertransaction')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='WebhookInbox',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(max_length=30)),
                ('event_id', models.CharField(max_length=255)),
                ('type', models.CharField(max_length=100)),
                ('payload', models.TextField()),
                ('status', models.CharField(choices=[('received', 'Received'), ('done', 'Done'), ('ignored', 'Ignored'), ('parked', 'Parked'), ('refused', 'Refused'), ('given_up', 'Given up')], default=apps.billing.models.payments.EventStatus['RECEIVED'], max_length=20)),
                ('reference', models.CharField(blank=True, max_length=255)),
                ('error', models.CharField(blank=True, max_length=500)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('deliveries', models.PositiveIntegerField(default=1)),
                ('received_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('next_attempt_at', models.DateTimeField(blank=True, null=True)),
                ('processed_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'verbose_name': 'incoming event',
                'ordering': ['-id'],
                'indexes': [models.Index(condition=models.Q(('status__in', ['received', 'parked'])), fields=['next_attempt_at'], name='inbox_to_be_tried')],
                'constraints': [models.UniqueConstraint(fields=('provider', 'event_id'), name='inbox_event_unique')],
            },
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0)), name='dispute_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.CheckConstraint(condition=models.Q(('reinstatement__isnull', True), ('withdrawal__isnull', False), _connector='OR'), name='dispute_reinstated_after_withdrawal'),
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.UniqueConstraint(fields=('payment', 'provider_reference'), name='dispute_reference_unique'),
        ),
        migrations.AddConstraint(
            model_name='paymentcustomer',
            constraint=models.UniqueConstraint(fields=('organization', 'provider'), name='payment_customer_once_a_provider'),
        ),
        migrations.AddConstraint(
            model_name='paymentcustomer',
            constraint=models.UniqueConstraint(fields=('provider', 'reference'), name='payment_customer_reference_unique'),
        ),
        migrations.AddConstraint(
            model_name='paymentmethod',
            constraint=models.UniqueConstraint(fields=('provider', 'reference'), name='payment_method_unique'),
        ),
        migrations.AddIndex(
            model_name='payment',
            index=models.Index(fields=['organization', '-id'], name='payment_by_organization'),
        ),
        migrations.AddIndex(
            model_name='payment',
            index=models.Index(condition=models.Q(('status', 'pending')), fields=['created_at'], name='payment_pending'),
        ),
        migrations.AddConstraint(
            model_name='payment',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0), ('amount_nanos', django.db.models.expressions.CombinedExpression(models.Value(10000000), '*', django.db.models.expressions.CombinedExpression(models.F('amount_nanos'), '/', models.Value(10000000))))), name='payment_amount_is_whole_cents'),
        ),
        migrations.AddConstraint(
            model_name='payment',
            constraint=models.CheckConstraint(condition=models.Q(('currency', 'usd')), name='payment_currency_is_usd'),
        ),
        migrations.AddConstraint(
            model_name='payment',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('grant__isnull', False), ('paid_at__isnull', False), ('status', 'paid')), models.Q(models.Q(('status', 'paid'), _negated=True), ('grant__isnull', True), ('paid_at__isnull', True)), _connector='OR'), name='payment_is_paid_when_credited'),
        ),
        migrations.AddConstraint(
            model_name='payment',
            constraint=models.UniqueConstraint(condition=models.Q(('provider_reference', ''), _negated=True), fields=('provider', 'provider_reference'), name='payment_reference_unique'),
        ),
        migrations.AddConstraint(
            model_name='payment',
            constraint=models.UniqueConstraint(condition=models.Q(('checkout_reference', ''), _negated=True), fields=('provider', 'checkout_reference'), name='payment_checkout_unique'),
        ),
        migrations.AddConstraint(
            model_name='payment',
            constraint=models.UniqueConstraint(condition=models.Q(('kind', 'auto_top_up'), ('status', 'pending')), fields=('organization',), name='payment_one_auto_top_up_at_a_time'),
        ),
        migrations.AddConstraint(
            model_name='autotopup',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0), ('amount_nanos', django.db.models.expressions.CombinedExpression(models.Value(10000000), '*', django.db.models.expressions.CombinedExpression(models.F('amount_nanos'), '/', models.Value(10000000))))), name='auto_top_up_amount_is_whole_cents'),
        ),
        migrations.AddConstraint(
            model_name='autotopup',
            constraint=models.CheckConstraint(condition=models.Q(('monthly_ceiling_nanos__gte', models.F('amount_nanos')), ('threshold_nanos__gte', 0)), name='auto_top_up_ceiling_allows_one'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nanos__gt', 0), ('amount_nanos', django.db.models.expressions.CombinedExpression(models.Value(10000000), '*', django.db.models.expressions.CombinedExpression(models.F('amount_nanos'), '/', models.Value(10000000))))), name='payment_refund_amount_is_whole_cents'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('reversal__isnull', False), ('status', 'failed')), models.Q(models.Q(('status', 'failed'), _negated=True), ('reversal__isnull', True)), _connector='OR'), name='payment_refund_failed_when_reversed'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.UniqueConstraint(condition=models.Q(('provider_reference', ''), _negated=True), fields=('payment', 'provider_reference'), name='payment_refund_reference_unique'),
        ),
        migrations.RunSQL(RULES, NO_RULES),
    ]
