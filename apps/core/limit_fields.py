"""Limits as columns: the abstract model of every owner, and money that is nano-USD in the database and USD in forms."""

from typing import Any

import msgspec
from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from apps.core.errors import InvalidInput
from apps.core.limits import (
    BRAKE_WORDS,
    BUDGET_PERIODS,
    BUDGET_WORDS,
    MARK_WORDS,
    MAX_BUDGET_NANOS,
    MAX_RATE,
    RATES,
    Limits,
    UsdWords,
    budget_from_usd,
    spoken,
    usd_text,
)

BUDGET_FIELDS = ("budget_nanos", "budget_period")
LIMIT_FIELDS = (*RATES, *BUDGET_FIELDS)
PERIOD_CHOICES = {"day": "Every day", "week": "Every week", "month": "Every month", "lifetime": "Never"}
_WORDS = {"brake_nanos": BRAKE_WORDS, "low_balance_nanos": MARK_WORDS}
BUDGET_HELP = "Empty: no limit. 0: nothing may be spent."


class UsdField(forms.CharField):
    """An amount, typed in USD, exact to the nano-dollar. Its value is nano-USD, None when left empty.

    `words` say what it is, for errors."""

    def __init__(self, *, words: UsdWords = BUDGET_WORDS, **options: Any) -> None:
        self.words = words
        options.setdefault("empty_value", None)
        super().__init__(**options)

    def widget_attrs(self, widget: forms.Widget) -> dict[str, Any]:
        return {**super().widget_attrs(widget), "inputmode": "decimal", "step": "any", "min": "0"}

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if text is None:
            return None
        try:
            return budget_from_usd(text, self.words)
        except InvalidInput as error:
            raise ValidationError(sentence(error), code="invalid") from error

    def prepare_value(self, value: Any) -> Any:
        """What the input shows: nano-USD as USD; text that somebody typed stays as it is."""
        return usd_text(value) if isinstance(value, int) else value


class NanosField(models.BigIntegerField):  # type: ignore[type-arg]  # generic for the type checker only
    """Nano-USD; its form field takes and shows USD."""

    def formfield(self, **options: Any) -> Any:
        words = _WORDS.get(self.name, BUDGET_WORDS)
        return models.Field.formfield(self, **{"form_class": UsdField, "words": words, **options})


def sentence(error: InvalidInput) -> str:
    """The error's words as a sentence for a form."""
    return f"{error.message[:1].upper()}{error.message[1:]}."


def rate_field(name: str, explanation: str = "") -> "models.IntegerField[Any, Any]":
    return models.IntegerField(
        spoken(name),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_RATE)],
        help_text=f"Empty: no limit. {explanation}".strip(),
    )


def in_range(name: str, low: int, high: int) -> models.CheckConstraint:
    return models.CheckConstraint(
        condition=Q(**{f"{name}__isnull": True}) | Q(**{f"{name}__gte": low, f"{name}__lte": high}),
        name=f"%(class)s_{name}_in_range",
    )


class Limited(models.Model):
    """An owner of limits; every empty column is no limit. The period says how often the budget begins again, UTC."""

    requests_per_minute = rate_field("requests_per_minute")
    tokens_per_minute = rate_field("tokens_per_minute", "Input and output together.")
    requests_per_day = rate_field("requests_per_day", "A day begins at 00:00 UTC.")
    concurrency = rate_field("concurrency", "Requests running at the same time.")
    budget_nanos = NanosField(
        "budget in USD",
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(MAX_BUDGET_NANOS)],
        help_text=BUDGET_HELP,
    )
    budget_period = models.CharField(
        "budget begins again",
        max_length=10,
        choices=PERIOD_CHOICES,
        default="lifetime",
        help_text="At 00:00 UTC: of every day, of Monday, or of the 1st.",
    )

    class Meta:
        abstract = True
        constraints = [
            *(in_range(name, 1, MAX_RATE) for name in RATES),
            in_range("budget_nanos", 0, MAX_BUDGET_NANOS),
            models.CheckConstraint(condition=Q(budget_period__in=BUDGET_PERIODS), name="%(class)s_budget_period_known"),
        ]

    @property
    def limits(self) -> Limits:
        """This row's own limits, without those that it inherits."""
        return Limits(**{name: getattr(self, name) for name in LIMIT_FIELDS})


def limit_columns(limits: Limits) -> dict[str, Any]:
    """Column name -> value, for `create` and `update`."""
    return msgspec.structs.asdict(limits)
