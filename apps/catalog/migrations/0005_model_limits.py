"""What each organization may use of a model: requests and tokens per minute."""

import django.core.validators
from django.db import migrations, models
from django.db.models import Q

MAX_RATE = 1_000_000_000


def _rate(verbose_name: str, help_text: str) -> models.IntegerField:
    return models.IntegerField(
        verbose_name,
        null=True,
        blank=True,
        validators=[
            django.core.validators.MinValueValidator(1),
            django.core.validators.MaxValueValidator(MAX_RATE),
        ],
        help_text=help_text,
    )


def _in_range(name: str) -> migrations.AddConstraint:
    condition = Q(**{f"{name}__isnull": True}) | Q(**{f"{name}__gte": 1, f"{name}__lte": MAX_RATE})
    return migrations.AddConstraint(
        "model", models.CheckConstraint(condition=condition, name=f"model_{name}_in_range")
    )


class Migration(migrations.Migration):
    dependencies = [("catalog", "0004_sandbox_providers")]
    operations = [
        migrations.AddField(
            "model",
            "requests_per_minute",
            _rate("requests per minute", "Empty: no limit. For each organization."),
        ),
        migrations.AddField(
            "model",
            "tokens_per_minute",
            _rate("tokens per minute", "Empty: no limit. For each organization; input and output together."),
        ),
        _in_range("requests_per_minute"),
        _in_range("tokens_per_minute"),
    ]
