"""Price features: media and hour-long caches, flat parts, and variants."""

import django.core.validators
from django.db import migrations, models

BUCKETS = {
    "cache_write_1h": "USD per million tokens. Input written to a cache for an hour; empty: as cache write.",
    "audio_input": "USD per million tokens. Empty: as input.",
    "image_input": "USD per million tokens. Empty: as input.",
    "audio_output": "USD per million tokens. Empty: as output.",
    "image_output": "USD per million tokens. Empty: as output.",
}
FLAT = {
    "per_request": "USD. For each request that has tokens; empty: nothing.",
    "per_image": "USD. For each image that a request brings; empty: nothing.",
}
HIGHEST = {**dict.fromkeys(BUCKETS, 1_000_000), **dict.fromkeys(FLAT, 1_000)}


def _amount(help_text: str, highest: int) -> models.Field:
    return models.DecimalField(
        blank=True,
        decimal_places=9,
        help_text=help_text,
        max_digits=20,
        null=True,
        validators=[
            django.core.validators.MinValueValidator(0),
            django.core.validators.MaxValueValidator(highest),
        ],
    )


class Migration(migrations.Migration):
    dependencies = [("catalog", "0002_triggers")]

    operations = [
        *(
            migrations.AddField(model_name="priceversion", name=name, field=_amount(explanation, HIGHEST[name]))
            for name, explanation in {**BUCKETS, **FLAT}.items()
        ),
        migrations.AddField(
            model_name="priceversion",
            name="variants",
            field=models.JSONField(blank=True, default=list, help_text="Other prices for some requests."),
        ),
        *(
            migrations.AddConstraint(
                model_name="priceversion",
                constraint=models.CheckConstraint(
                    condition=models.Q((f"{name}__range", (0, highest)), (f"{name}__isnull", True), _connector="OR"),
                    name=f"price_{name}_in_range",
                ),
            )
            for name, highest in HIGHEST.items()
        ),
    ]
