"""What becomes of request fields that a route has no words for: left out and named, or refused."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", "0008_image_tokens")]

    operations = [
        migrations.AddField(
            model_name="model",
            name="unsupported_parameters",
            field=models.CharField(
                choices=[("drop", "drop"), ("refuse", "refuse")],
                default="drop",
                help_text="What a provider has no words for: drop leaves it out and names it, refuse answers with an "
                "error.",
                max_length=10,
            ),
        ),
    ]
