"""More token buckets, raw usage, reviews, and test traffic."""

import django.db.models.deletion
from django.db import migrations, models

BUCKETS = ("cache_write_1h", "audio_input", "image_input", "audio_output", "image_output")

# The records are partitioned, which Django cannot say. A column with a constant default rewrites no partition.
ADD_COLUMNS = f"""
ALTER TABLE usage_usagerecord
    {", ".join(f"ADD {name}_tokens bigint NOT NULL DEFAULT 0 CHECK ({name}_tokens >= 0)" for name in BUCKETS)},
    ADD images integer NOT NULL DEFAULT 0 CHECK (images >= 0),
    ADD service_tier varchar(20) NOT NULL DEFAULT '',
    ADD overage_nanos bigint NOT NULL DEFAULT 0 CHECK (overage_nanos >= 0),
    ADD balance_before_nanos bigint,
    ADD sandbox boolean NOT NULL DEFAULT false,
    ADD raw_usage text NOT NULL DEFAULT '',
    ADD review varchar(200) NOT NULL DEFAULT '';
"""
DROP_COLUMNS = f"""
ALTER TABLE usage_usagerecord
    {", ".join(f"DROP {name}_tokens" for name in BUCKETS)},
    DROP images, DROP service_tier, DROP overage_nanos, DROP balance_before_nanos, DROP sandbox, DROP raw_usage,
    DROP review;
"""
RECORD_FIELDS: list[tuple[str, models.Field]] = [
    *((f"{name}_tokens", models.PositiveBigIntegerField(default=0)) for name in BUCKETS),
    ("images", models.PositiveIntegerField(default=0)),
    ("service_tier", models.CharField(default="", max_length=20)),
    ("overage_nanos", models.BigIntegerField(default=0)),
    ("balance_before_nanos", models.BigIntegerField(null=True)),
    ("sandbox", models.BooleanField(default=False)),
    ("raw_usage", models.TextField(default="")),
    ("review", models.CharField(default="", max_length=200)),
]


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial"), ("usage", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(ADD_COLUMNS, DROP_COLUMNS)],
            state_operations=[
                migrations.AddField(model_name="usagerecord", name=name, field=field) for name, field in RECORD_FIELDS
            ],
        ),
        *(
            migrations.AddField(
                model_name="usagerollup", name=f"{name}_tokens", field=models.PositiveBigIntegerField(default=0)
            )
            for name in BUCKETS
        ),
        migrations.AddField(model_name="usagerollup", name="sandbox", field=models.BooleanField(default=False)),
        migrations.RemoveConstraint(model_name="usagerollup", name="rollup_unique"),
        migrations.AddConstraint(
            model_name="usagerollup",
            constraint=models.UniqueConstraint(
                fields=("organization", "hour", "project_id", "key_id", "model", "provider", "sandbox"),
                name="rollup_unique",
            ),
        ),
        migrations.CreateModel(
            name="UsageReview",
            fields=[
                ("request_id", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("model", models.CharField(max_length=128)),
                ("provider", models.CharField(max_length=60)),
                ("reason", models.CharField(max_length=200)),
                ("note", models.CharField(default="", max_length=1000)),
                ("reviewed_by", models.CharField(default="", max_length=254)),
                ("reviewed_at", models.DateTimeField(null=True)),
                (
                    "organization",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "usage to review",
                "ordering": ["-request_id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("reviewed_at__isnull", True)),
                        fields=["-request_id"],
                        name="review_waiting",
                    )
                ],
            },
        ),
    ]
