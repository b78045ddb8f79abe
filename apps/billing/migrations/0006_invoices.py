"""Invoices and billing profiles."""

import django.core.validators
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import functools
import apps.billing.models.invoices
import apps.core.ids
from django.db import migrations, models

# What was issued stays as it was, whatever code runs: rows are only added, numbers leave no gap, lines and taxes come
# with their invoice and sum to it, and credit notes never take back more than the invoice.
RULES = """
ALTER TABLE billing_invoice ADD COLUMN written_in xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE FUNCTION billing_refuse_document_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'issued documents never change: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER invoice_stays BEFORE DELETE ON billing_invoice
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_document_change();
CREATE TRIGGER invoice_line_fixed BEFORE UPDATE OR DELETE ON billing_invoiceline
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_document_change();
CREATE TRIGGER invoice_tax_fixed BEFORE UPDATE OR DELETE ON billing_invoicetax
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_document_change();
CREATE TRIGGER credit_note_stays BEFORE DELETE ON billing_creditnote
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_document_change();
CREATE TRIGGER tax_rate_fixed BEFORE UPDATE OR DELETE ON billing_taxrate
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_document_change();
CREATE TRIGGER document_series_stays BEFORE DELETE ON billing_documentseries
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_document_change();
-- Of an issued document only what became of it may be noted.
CREATE TRIGGER invoice_fixed BEFORE UPDATE ON billing_invoice FOR EACH ROW
    WHEN ((to_jsonb(OLD) - ARRAY['status', 'paid_at', 'voided_at', 'mail_claimed_at', 'emailed_at'])
        IS DISTINCT FROM (to_jsonb(NEW) - ARRAY['status', 'paid_at', 'voided_at', 'mail_claimed_at', 'emailed_at'])
        OR (OLD.status <> NEW.status AND (OLD.status, NEW.status)
            NOT IN (('issued', 'paid'), ('issued', 'void'), ('paid', 'void'))))
    EXECUTE FUNCTION billing_refuse_document_change();
CREATE TRIGGER credit_note_fixed BEFORE UPDATE ON billing_creditnote FOR EACH ROW
    WHEN ((to_jsonb(OLD) - ARRAY['mail_claimed_at', 'emailed_at'])
        IS DISTINCT FROM (to_jsonb(NEW) - ARRAY['mail_claimed_at', 'emailed_at']))
    EXECUTE FUNCTION billing_refuse_document_change();

-- A series begins at 0 and counts in ones, and each number is a document when its transaction ends.
CREATE TRIGGER document_series_begins BEFORE INSERT ON billing_documentseries
    FOR EACH ROW WHEN (NEW.last_number <> 0) EXECUTE FUNCTION billing_refuse_document_change();
CREATE TRIGGER document_series_counts BEFORE UPDATE ON billing_documentseries FOR EACH ROW
    WHEN (NEW.prefix <> OLD.prefix OR NEW.last_number <> OLD.last_number + 1)
    EXECUTE FUNCTION billing_refuse_document_change();

CREATE FUNCTION billing_check_series() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM billing_invoice WHERE series_id = NEW.prefix AND sequence = NEW.last_number)
        AND NOT EXISTS (SELECT FROM billing_creditnote WHERE series_id = NEW.prefix AND sequence = NEW.last_number)
    THEN
        RAISE EXCEPTION 'number % of the series % has no document', NEW.last_number, NEW.prefix
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER document_series_has_no_gap AFTER UPDATE ON billing_documentseries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_series();

CREATE FUNCTION billing_check_number() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    digits text := NEW.sequence::text;
BEGIN
    PERFORM 1 FROM billing_documentseries WHERE prefix = NEW.series_id AND last_number = NEW.sequence;
    IF NOT FOUND OR NEW.number <> NEW.series_id || lpad(digits, greatest(6, length(digits)), '0') THEN
        RAISE EXCEPTION 'the number % is not the next of its series', NEW.number USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER invoice_number_is_next BEFORE INSERT ON billing_invoice
    FOR EACH ROW EXECUTE FUNCTION billing_check_number();
CREATE TRIGGER credit_note_number_is_next BEFORE INSERT ON billing_creditnote
    FOR EACH ROW EXECUTE FUNCTION billing_check_number();

CREATE FUNCTION billing_check_invoice_part() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM billing_invoice WHERE id = NEW.invoice_id AND written_in = pg_current_xact_id();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lines and taxes are written with their invoice, never later'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER invoice_line_belongs BEFORE INSERT ON billing_invoiceline
    FOR EACH ROW EXECUTE FUNCTION billing_check_invoice_part();
CREATE TRIGGER invoice_tax_belongs BEFORE INSERT ON billing_invoicetax
    FOR EACH ROW EXECUTE FUNCTION billing_check_invoice_part();

CREATE FUNCTION billing_check_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    nanos numeric;
    exact numeric;
    cents numeric;
    taxes numeric;
BEGIN
    SELECT coalesce(sum(amount_nanos), 0), coalesce(sum(amount_nanos) FILTER (WHERE kind <> 'rounding'), 0),
           coalesce(sum(amount_cents), 0)
        INTO nanos, exact, cents FROM billing_invoiceline WHERE invoice_id = NEW.id;
    SELECT coalesce(sum(tax_cents), 0) INTO taxes FROM billing_invoicetax WHERE invoice_id = NEW.id;
    IF nanos <> NEW.total_cents::numeric * 10000000 OR exact <> NEW.total_nanos OR cents <> NEW.total_cents
        OR abs(nanos - exact) > 5000000 OR taxes <> NEW.tax_cents
    THEN
        RAISE EXCEPTION 'the lines of invoice % do not sum to it', NEW.number USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER invoice_adds_up AFTER INSERT ON billing_invoice
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_invoice();

-- The lock on the invoice lets one credit note look at a time; the sums are read after it was got.
CREATE FUNCTION billing_check_credit_note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    invoice billing_invoice%ROWTYPE;
    credited numeric;
    taxes numeric;
BEGIN
    SELECT * INTO invoice FROM billing_invoice WHERE id = NEW.invoice_id FOR UPDATE;
    SELECT coalesce(sum(amount_cents), 0), coalesce(sum(tax_cents), 0) INTO credited, taxes
        FROM billing_creditnote WHERE invoice_id = NEW.invoice_id;
    IF credited + NEW.amount_cents > invoice.total_cents OR taxes + NEW.tax_cents > invoice.tax_cents
        OR invoice.organization_id <> NEW.organization_id
    THEN
        RAISE EXCEPTION 'credit notes are never more than their invoice %', invoice.number
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER credit_note_within_invoice BEFORE INSERT ON billing_creditnote
    FOR EACH ROW EXECUTE FUNCTION billing_check_credit_note();

CREATE FUNCTION billing_check_void() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.total_cents <> (SELECT coalesce(sum(amount_cents), 0) FROM billing_creditnote WHERE invoice_id = NEW.id) THEN
        RAISE EXCEPTION 'invoice % is void when credit notes have taken all of it back', NEW.number
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER invoice_void_by_credit_note BEFORE UPDATE OF status ON billing_invoice
    FOR EACH ROW WHEN (NEW.status = 'void') EXECUTE FUNCTION billing_check_void();
"""
NO_RULES = """
DROP FUNCTION billing_refuse_document_change, billing_check_series, billing_check_number,
    billing_check_invoice_part, billing_check_invoice, billing_check_credit_note, billing_check_void CASCADE;
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial"), ("billing", "0005_payments")]
    operations = [
        migrations.CreateModel(
            name='BillingProfile',
            fields=[
                ('organization', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='billing_profile', serialize=False, to='accounts.organization')),
                ('legal_name', models.CharField(max_length=200)),
                ('address', models.TextField(blank=True, max_length=500)),
                ('country', models.CharField(blank=True, max_length=2, validators=[django.core.validators.RegexValidator('^[A-Z]{2}$', 'Two capital letters, such as DE or US (ISO 3166-1).')])),
                ('region', models.CharField(blank=True, max_length=3, validators=[django.core.validators.RegexValidator('^[A-Z0-9]{1,3}$', 'One to three capital letters or digits, such as CA for California.')])),
                ('tax_id', models.CharField(blank=True, max_length=60)),
                ('emails', models.JSONField(default=list)),
                ('purchase_order', models.CharField(blank=True, max_length=100)),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='DocumentSeries',
            fields=[
                ('prefix', models.CharField(max_length=20, primary_key=True, serialize=False)),
                ('last_number', models.PositiveBigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name='Invoice',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('inv',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('number', models.CharField(max_length=40, unique=True)),
                ('sequence', models.PositiveBigIntegerField()),
                ('kind', models.CharField(choices=[('payment', 'Payment'), ('usage', 'Usage'), ('manual', 'Manual')], max_length=20)),
                ('source_key', models.CharField(max_length=200, unique=True)),
                ('month', models.DateField(null=True)),
                ('seller', models.JSONField()),
                ('buyer', models.JSONField()),
                ('total_nanos', models.BigIntegerField()),
                ('total_cents', models.BigIntegerField()),
                ('tax_cents', models.BigIntegerField()),
                ('note', models.CharField(blank=True, max_length=500)),
                ('due_on', models.DateField(null=True)),
                ('issued_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('actor', models.CharField(max_length=200)),
                ('status', models.CharField(choices=[('issued', 'Issued'), ('paid', 'Paid'), ('void', 'Void')], max_length=10)),
                ('paid_at', models.DateTimeField(null=True)),
                ('voided_at', models.DateTimeField(null=True)),
                ('mail_claimed_at', models.DateTimeField(null=True)),
                ('emailed_at', models.DateTimeField(null=True)),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='invoices', to='accounts.organization')),
                ('series', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.documentseries')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='CreditNote',
            fields=[
                ('id', models.CharField(default=functools.partial(apps.core.ids.new_id, *('cn',), **{}), editable=False, max_length=40, primary_key=True, serialize=False)),
                ('number', models.CharField(max_length=40, unique=True)),
                ('sequence', models.PositiveBigIntegerField()),
                ('idempotency_key', models.CharField(max_length=200, unique=True)),
                ('amount_cents', models.BigIntegerField()),
                ('tax_cents', models.BigIntegerField()),
                ('reason', models.CharField(max_length=500)),
                ('actor', models.CharField(max_length=200)),
                ('issued_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('mail_claimed_at', models.DateTimeField(null=True)),
                ('emailed_at', models.DateTimeField(null=True)),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='credit_notes', to='accounts.organization')),
                ('transaction', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.ledgertransaction')),
                ('series', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.documentseries')),
                ('invoice', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='credit_notes', to='billing.invoice')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='InvoiceLine',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('position', models.PositiveIntegerField()),
                ('kind', models.CharField(choices=[('item', 'Item'), ('balance', 'Balance'), ('rounding', 'Rounding')], max_length=20)),
                ('description', models.CharField(max_length=300)),
                ('amount_nanos', models.BigIntegerField()),
                ('amount_cents', models.BigIntegerField()),
                ('invoice', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='lines', to='billing.invoice')),
            ],
            options={
                'ordering': ['invoice', 'position'],
            },
        ),
        migrations.CreateModel(
            name='InvoiceTax',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('position', models.PositiveIntegerField()),
                ('name', models.CharField(max_length=60)),
                ('percent', models.DecimalField(decimal_places=4, max_digits=7)),
                ('reverse_charge', models.BooleanField()),
                ('base_cents', models.BigIntegerField()),
                ('tax_cents', models.BigIntegerField()),
                ('invoice', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='taxes', to='billing.invoice')),
            ],
            options={
                'ordering': ['invoice', 'position'],
            },
        ),
        migrations.CreateModel(
            name='SellerProfile',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=200, verbose_name='legal name')),
                ('address', models.TextField(max_length=500)),
                ('country', models.CharField(help_text='Two letters, such as DE or US.', max_length=2, validators=[django.core.validators.RegexValidator('^[A-Z]{2}$', 'Two capital letters, such as DE or US (ISO 3166-1).')])),
                ('tax_number', models.CharField(blank=True, help_text='VAT or other tax number, as printed.', max_length=60)),
                ('email', models.EmailField(blank=True, help_text='Where customers ask about an invoice.', max_length=254)),
                ('invoice_prefix', models.CharField(default='INV-', help_text='What stands before the number. A new prefix begins a new series at 1.', max_length=20, validators=[django.core.validators.RegexValidator('^[A-Z0-9][A-Z0-9-]*$', 'Capital letters, digits and hyphens, such as INV-.')])),
                ('credit_note_prefix', models.CharField(default='CN-', max_length=20, validators=[django.core.validators.RegexValidator('^[A-Z0-9][A-Z0-9-]*$', 'Capital letters, digits and hyphens, such as INV-.')])),
                ('payment_days', models.PositiveSmallIntegerField(default=30, help_text='Until a monthly invoice is due.', validators=[django.core.validators.MaxValueValidator(365)])),
                ('footer', models.TextField(blank=True, help_text='Below every document: bank account, register.', max_length=1000)),
            ],
            options={
                'verbose_name': 'seller',
                'verbose_name_plural': 'seller',
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='seller_is_one'), models.CheckConstraint(condition=models.Q(('invoice_prefix', models.F('credit_note_prefix')), _negated=True), name='seller_prefixes_differ')],
            },
        ),
        migrations.CreateModel(
            name='TaxRate',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('country', models.CharField(blank=True, help_text='Empty: where no other rate applies.', max_length=2, validators=[django.core.validators.RegexValidator('^[A-Z]{2}$', 'Two capital letters, such as DE or US (ISO 3166-1).')])),
                ('region', models.CharField(blank=True, help_text='Empty: the whole country.', max_length=3, validators=[django.core.validators.RegexValidator('^[A-Z0-9]{1,3}$', 'One to three capital letters or digits, such as CA for California.')])),
                ('name', models.CharField(help_text='As printed, such as VAT.', max_length=60)),
                ('percent', models.DecimalField(decimal_places=4, help_text='Contained in what is paid. 0 ends a rate.', max_digits=7, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(100)])),
                ('valid_from', models.DateField(help_text='The first UTC day.')),
                ('reverse_charge', models.BooleanField(default=False, help_text='Customers with a tax id owe the tax themselves: 0 %, and the invoice says so.')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('created_by', models.CharField(editable=False, max_length=200)),
            ],
            options={
                'ordering': ['country', 'region', 'name', '-valid_from'],
                'constraints': [models.UniqueConstraint(fields=('country', 'region', 'name', 'valid_from'), name='tax_rate_unique'), models.CheckConstraint(condition=models.Q(('percent__gte', 0), ('percent__lte', 100)), name='tax_rate_is_a_percentage'), models.CheckConstraint(condition=models.Q(('region', ''), models.Q(('country', ''), _negated=True), _connector='OR'), name='tax_rate_region_has_country')],
            },
        ),
        migrations.AddIndex(
            model_name='invoice',
            index=models.Index(fields=['organization', '-id'], name='invoice_by_organization'),
        ),
        migrations.AddIndex(
            model_name='invoice',
            index=models.Index(condition=models.Q(('emailed_at', None)), fields=['id'], name='invoice_to_be_mailed'),
        ),
        migrations.AddIndex(
            model_name='invoice',
            index=models.Index(condition=models.Q(('status', apps.billing.models.invoices.InvoiceStatus['ISSUED'])), fields=['organization', 'month'], name='invoice_open_by_organization'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.UniqueConstraint(fields=('series', 'sequence'), name='invoice_number_unique'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('tax_cents__gte', 0), ('tax_cents__lte', models.F('total_cents')), ('total_cents__gte', 0)), name='invoice_amounts_make_sense'),
        ),
        migrations.AddIndex(
            model_name='creditnote',
            index=models.Index(fields=['organization', '-id'], name='credit_note_by_organization'),
        ),
        migrations.AddIndex(
            model_name='creditnote',
            index=models.Index(condition=models.Q(('emailed_at', None)), fields=['id'], name='credit_note_to_be_mailed'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.UniqueConstraint(fields=('series', 'sequence'), name='credit_note_number_unique'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(('amount_cents__gt', 0), ('tax_cents__gte', 0), ('tax_cents__lte', models.F('amount_cents'))), name='credit_note_amounts_make_sense'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='credit_note_has_reason'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'position'), name='invoice_line_unique'),
        ),
        migrations.AddConstraint(
            model_name='invoicetax',
            constraint=models.UniqueConstraint(fields=('invoice', 'position'), name='invoice_tax_unique'),
        ),
        migrations.AddIndex(
            model_name='ledgertransaction',
            index=models.Index(condition=models.Q(('kind', 'usage'), _negated=True), fields=['organization', 'created_at'], name='ledger_txn_beside_usage'),
        ),
        migrations.RunSQL(RULES, NO_RULES),
    ]
