"""What is held for an image, by model. GPT-4o mini's are billed at up to 48 169 tokens, far above the 8 192 of others."""

from django.core.validators import MinValueValidator
from django.db import migrations, models

RAISE = r"""
UPDATE catalog_model SET image_tokens = 48169
WHERE id IN (
    SELECT model_id FROM catalog_route WHERE upstream_model ~* '(^|/)gpt-4o-mini(-[0-9-]+)?$'
)
"""


class Migration(migrations.Migration):
    dependencies = [("catalog", "0007_dialects")]

    operations = [
        migrations.AddField(
            model_name="model",
            name="image_tokens",
            field=models.PositiveIntegerField(
                default=8192,
                help_text="Tokens that are held for each image: the most that the vendor bills for one.",
                validators=[MinValueValidator(1)],
            ),
        ),
        migrations.RunSQL(RAISE, migrations.RunSQL.noop),
    ]
