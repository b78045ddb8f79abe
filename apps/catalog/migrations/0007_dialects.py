"""Three more dialects, and what each asks for beside address and credential."""

from django.core.validators import RegexValidator
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", "0006_output_limit_field")]

    operations = [
        migrations.AlterField(
            model_name="provider",
            name="dialect",
            field=models.CharField(
                choices=[
                    ("openai", "OpenAI"),
                    ("azure", "Azure OpenAI"),
                    ("anthropic", "Anthropic"),
                    ("gemini", "Google Gemini"),
                    ("bedrock", "AWS Bedrock"),
                ],
                default="openai",
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="provider",
            name="base_url",
            field=models.CharField(
                "base URL",
                help_text="Up to and with /v1, without a slash at the end. For Azure, Gemini and Bedrock up to the host.",
                max_length=500,
                validators=[
                    RegexValidator(
                        r"^https?://[A-Za-z0-9.\-\[\]:_]+(/[^\s?#@]*)?$",
                        "Enter an http or https address without user, query or fragment.",
                    )
                ],
            ),
        ),
        migrations.AddField(
            model_name="provider",
            name="options",
            field=models.JSONField(
                blank=True, default=dict, help_text="What else the dialect asks for: one name and value a line."
            ),
        ),
    ]
