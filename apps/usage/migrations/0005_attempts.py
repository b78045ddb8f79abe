"""The calls of upstreams that a request took, where it took more than one."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0004_price_rules")]

    operations = [
        # The records are partitioned, which Django cannot say; a column with a constant default rewrites no partition.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE usage_usagerecord ADD attempts jsonb NOT NULL DEFAULT '[]'",
                    "ALTER TABLE usage_usagerecord DROP attempts",
                )
            ],
            state_operations=[
                migrations.AddField(
                    model_name="usagerecord",
                    name="attempts",
                    field=models.JSONField(default=list),
                )
            ],
        ),
    ]
