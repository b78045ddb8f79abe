"""Providers that test traffic may be sent to. The one that CRUN itself starts is one."""

from django.db import migrations, models

MARK = "UPDATE catalog_provider SET sandbox = true WHERE id = 'sandbox'"


class Migration(migrations.Migration):
    dependencies = [("catalog", "0003_price_features")]

    operations = [
        migrations.AddField(
            model_name="provider",
            name="sandbox",
            field=models.BooleanField(
                default=False,
                help_text="Sandbox keys may use it, and nobody is charged for that: only for upstreams that cost nothing.",
            ),
        ),
        migrations.RunSQL(MARK, migrations.RunSQL.noop),
    ]
