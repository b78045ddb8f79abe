"""Rows that work failed for, payments that could still be charged, and documents that are sent once more."""

import django.db.models.functions.datetime
from django.db import migrations, models

# The new column is one of those that may change; otherwise the rules are those of migration 0006.
_RULES = """
DROP TRIGGER invoice_fixed ON billing_invoice;
CREATE TRIGGER invoice_fixed BEFORE UPDATE ON billing_invoice FOR EACH ROW
    WHEN ((to_jsonb(OLD) - ARRAY['status', 'paid_at', 'voided_at', {mail}])
        IS DISTINCT FROM (to_jsonb(NEW) - ARRAY['status', 'paid_at', 'voided_at', {mail}])
        OR (OLD.status <> NEW.status AND (OLD.status, NEW.status)
            NOT IN (('issued', 'paid'), ('issued', 'void'), ('paid', 'void'))))
    EXECUTE FUNCTION billing_refuse_document_change();
DROP TRIGGER credit_note_fixed ON billing_creditnote;
CREATE TRIGGER credit_note_fixed BEFORE UPDATE ON billing_creditnote FOR EACH ROW
    WHEN ((to_jsonb(OLD) - ARRAY[{mail}]) IS DISTINCT FROM (to_jsonb(NEW) - ARRAY[{mail}]))
    EXECUTE FUNCTION billing_refuse_document_change();
"""
_MAIL = "'mail_claimed_at', 'emailed_at'"


class Migration(migrations.Migration):
    dependencies = [("billing", "0010_stale_balances")]
    operations = [
        migrations.CreateModel(
            name="OddRow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("work", models.CharField(max_length=40)),
                ("subject", models.CharField(max_length=40)),
                ("tries", models.PositiveIntegerField(default=0)),
                ("error", models.CharField(max_length=300)),
                ("since", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("next_attempt_at", models.DateTimeField()),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("work", "subject"), name="odd_row_once")],
            },
        ),
        migrations.AddField("payment", "is_open_at_provider", models.BooleanField(default=False)),
        migrations.AddField("invoice", "mail_since", models.DateTimeField(null=True)),
        migrations.AddField("creditnote", "mail_since", models.DateTimeField(null=True)),
        migrations.RunSQL(_RULES.format(mail=f"{_MAIL}, 'mail_since'"), _RULES.format(mail=_MAIL)),
    ]
