"""Which of the organization's own provider keys served a request, and the part of the price that its fee was."""

from django.db import migrations, models

# The records are partitioned, which Django cannot say. A column with a constant default rewrites no partition.
ADD_COLUMNS = """
ALTER TABLE usage_usagerecord
    ADD credential_id varchar(40) NOT NULL DEFAULT '',
    ADD fee_ppm integer CHECK (fee_ppm >= 0);
"""
DROP_COLUMNS = "ALTER TABLE usage_usagerecord DROP credential_id, DROP fee_ppm;"


class Migration(migrations.Migration):
    dependencies = [("usage", "0006_guardrails")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(ADD_COLUMNS, DROP_COLUMNS)],
            state_operations=[
                migrations.AddField("usagerecord", "credential_id", models.CharField(default="", max_length=40)),
                migrations.AddField("usagerecord", "fee_ppm", models.PositiveIntegerField(null=True)),
            ],
        ),
        migrations.AddField(model_name="usagerollup", name="byok", field=models.BooleanField(default=False)),
        migrations.RemoveConstraint(model_name="usagerollup", name="rollup_unique"),
        migrations.AddConstraint(
            model_name="usagerollup",
            constraint=models.UniqueConstraint(
                fields=("organization", "hour", "project_id", "key_id", "model", "provider", "sandbox", "byok"),
                name="rollup_unique",
            ),
        ),
    ]
