"""A dialect more: OpenAI's Responses API as an upstream's."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", "0014_shadows")]

    operations = [
        migrations.AlterField(
            model_name="provider",
            name="dialect",
            field=models.CharField(
                choices=[
                    ("openai", "OpenAI"),
                    ("openai-responses", "OpenAI Responses"),
                    ("azure", "Azure OpenAI"),
                    ("anthropic", "Anthropic"),
                    ("gemini", "Google Gemini"),
                    ("bedrock", "AWS Bedrock"),
                ],
                default="openai",
                max_length=20,
            ),
        ),
    ]
