"""Requests that the response cache answered: which share of the price they paid, and what that saved."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0007_provider_keys")]

    operations = [
        # The records are partitioned, which Django cannot say; a column with a constant default rewrites no partition.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE usage_usagerecord ADD cache_share_ppm integer CHECK (cache_share_ppm >= 0),"
                    " ADD saved_nanos bigint NOT NULL DEFAULT 0",
                    "ALTER TABLE usage_usagerecord DROP cache_share_ppm, DROP saved_nanos",
                ),
                migrations.RunSQL(
                    "ALTER TABLE usage_usagerollup ADD cached_requests bigint NOT NULL DEFAULT 0"
                    " CHECK (cached_requests >= 0), ADD saved_nanos bigint NOT NULL DEFAULT 0",
                    "ALTER TABLE usage_usagerollup DROP cached_requests, DROP saved_nanos",
                ),
            ],
            state_operations=[
                migrations.AddField("usagerecord", "cache_share_ppm", models.PositiveIntegerField(null=True)),
                migrations.AddField("usagerecord", "saved_nanos", models.BigIntegerField(default=0)),
                migrations.AddField("usagerollup", "cached_requests", models.PositiveBigIntegerField(default=0)),
                migrations.AddField("usagerollup", "saved_nanos", models.BigIntegerField(default=0)),
            ],
        ),
    ]
