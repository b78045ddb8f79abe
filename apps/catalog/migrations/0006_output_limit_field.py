"""The field in which a provider is told where to end. OpenAI's own models refuse the old one."""

from django.db import migrations, models

MARK = r"""
UPDATE catalog_provider SET output_limit_field = 'max_completion_tokens'
WHERE base_url ~* '^https?://(api\.openai\.com|[a-z0-9-]+\.openai\.azure\.com)(:[0-9]+)?(/|$)'
"""


class Migration(migrations.Migration):
    dependencies = [("catalog", "0005_model_limits")]

    operations = [
        migrations.AddField(
            model_name="provider",
            name="output_limit_field",
            field=models.CharField(
                choices=[("max_tokens", "max_tokens"), ("max_completion_tokens", "max_completion_tokens")],
                default="max_tokens",
                help_text="What CRUN writes where it must cut an output. OpenAI and Azure want max_completion_tokens.",
                max_length=30,
            ),
        ),
        migrations.RunSQL(MARK, migrations.RunSQL.noop),
    ]
