"""What an organization's guardrails did with a request."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0005_attempts")]

    operations = [
        # The records are partitioned, which Django cannot say; a column with a constant default rewrites no partition.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE usage_usagerecord ADD guardrails jsonb NOT NULL DEFAULT '[]'",
                    "ALTER TABLE usage_usagerecord DROP guardrails",
                )
            ],
            state_operations=[
                migrations.AddField(
                    model_name="usagerecord",
                    name="guardrails",
                    field=models.JSONField(default=list),
                )
            ],
        ),
    ]
