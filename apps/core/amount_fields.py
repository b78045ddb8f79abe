"""Amounts of money as they are typed into forms and commands: plain digits and a point, as budgets take them."""

import re
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError

_PLAIN: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)


def plain_amount(text: str) -> Decimal:
    """The decimal number of an amount such as `12.50`.

    Raises ValueError for what `Decimal` reads beside that: exponents, underscores, digits of other scripts."""
    if not _PLAIN.fullmatch(text.strip()):
        raise ValueError(f"{text[:40]!r} is not an amount in USD: write it like 12.50")
    return Decimal(text.strip())


class AmountField(forms.DecimalField):
    """An amount in USD."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            try:
                plain_amount(value)
            except ValueError as error:
                raise ValidationError(f"{error}.", code="invalid") from error
        return super().to_python(value)
