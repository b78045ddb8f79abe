"""Where a request was asked."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0008_response_cache")]

    operations = [
        # The records are partitioned, which Django cannot say; a column with a constant default rewrites no partition.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE usage_usagerecord ADD endpoint varchar(30) NOT NULL DEFAULT ''",
                    "ALTER TABLE usage_usagerecord DROP endpoint",
                )
            ],
            state_operations=[
                migrations.AddField("usagerecord", "endpoint", models.CharField(default="", max_length=30)),
            ],
        ),
    ]
