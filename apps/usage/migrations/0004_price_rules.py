"""Which rule of the organization's price book made the price of a request."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0003_holds")]

    operations = [
        # The records are partitioned, which Django cannot say; a column with a constant default rewrites no partition.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE usage_usagerecord ADD price_rule_id varchar(40) NOT NULL DEFAULT ''",
                    "ALTER TABLE usage_usagerecord DROP price_rule_id",
                )
            ],
            state_operations=[
                migrations.AddField(
                    model_name="usagerecord",
                    name="price_rule_id",
                    field=models.CharField(default="", max_length=40),
                )
            ],
        ),
    ]
