"""Sandbox keys."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("keys", "0002_limits")]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="sandbox",
            field=models.BooleanField(
                default=False,
                help_text="Calls sandbox models only and spends no money. A key stays what it was made as.",
                verbose_name="sandbox key",
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("sandbox", False), ("prefix__startswith", "ak_test"), _connector="OR"),
                name="apikey_sandbox_looks_like_one",
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("sandbox", False), ("budget_nanos__isnull", True), _connector="OR"),
                name="apikey_sandbox_has_no_budget",
            ),
        ),
    ]
