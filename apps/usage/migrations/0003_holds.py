"""What was held for a request, for its receipt."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_buckets")]

    operations = [
        # The records are partitioned, which Django cannot say; an empty column rewrites no partition.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE usage_usagerecord ADD hold_nanos bigint",
                    "ALTER TABLE usage_usagerecord DROP hold_nanos",
                )
            ],
            state_operations=[
                migrations.AddField(
                    model_name="usagerecord", name="hold_nanos", field=models.BigIntegerField(null=True)
                )
            ],
        ),
    ]
