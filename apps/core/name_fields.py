"""Fields for names: a column and a form field that refuse what `names` does."""

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.db import models

from apps.core.names import is_plain

if TYPE_CHECKING:
    TextColumn = models.CharField[str, str]
else:
    TextColumn = models.CharField  # generic for the type checker only

REFUSAL: Final = "Use one line of text without control characters."


def validate_plain(value: str) -> None:
    """Raises ValidationError for text with line breaks or other control characters in it."""
    if not is_plain(value):
        raise ValidationError(REFUSAL, code="not_plain")


class NameFormField(forms.CharField):
    """A name that somebody types."""

    default_validators = [validate_plain]


class NameField(TextColumn):
    """A name in the database. For migrations it is a plain CharField: the rule is about new text, not about rows."""

    default_validators = [validate_plain]

    def deconstruct(self) -> Any:
        name, _, arguments, options = super().deconstruct()
        return name, "django.db.models.CharField", arguments, options
