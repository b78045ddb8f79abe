"""How the portal writes money, tokens and times, and draws its icons and form fields."""

import json
from decimal import ROUND_DOWN, Decimal
from typing import Any

from django import template
from django.forms import BoundField
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.core.money import NANOS_PER_USD, TOKENS_PER_PRICE_UNIT, format_usd

register = template.Library()

_CONTROL_CLASSES = {"select": "select w-full", "checkbox": "checkbox", "textarea": "textarea w-full"}
_BRIEF_DIGITS = 4
_MINUS = "\N{MINUS SIGN}"
_DASH = "\N{EN DASH}"
_LETTERS = ["", "K", "M", "B", "T", "Q"]


@register.filter
def usd(nanos: int) -> str:
    """Exact, to the nano-dollar: `$0.000012345`."""
    amount = format_usd(abs(nanos))
    whole, _, fraction = amount.partition(".")
    return f"{_MINUS if nanos < 0 else ''}${int(whole):,}.{fraction}"


@register.filter
def usd_brief(nanos: int) -> str:
    """For headings, beside the exact sum: two places from a dollar up, four significant digits below."""
    if nanos == 0:
        return "$0.00"
    amount = Decimal(abs(nanos)) / NANOS_PER_USD
    places = 2 if amount >= 1 else min(9, _BRIEF_DIGITS - 1 - amount.adjusted())
    text = f"{amount:,.{places}f}"
    whole, _, fraction = text.partition(".")
    return f"{_MINUS if nanos < 0 else ''}${whole}.{fraction.rstrip('0').ljust(2, '0')}"


@register.filter
def usd_femtos(femtos: int) -> str:
    """A product of tokens and price before rounding, exact: nine places, up to fifteen where needed."""
    nanos, rest = divmod(abs(femtos), TOKENS_PER_PRICE_UNIT)
    return f"{_MINUS if femtos < 0 else ''}{usd(nanos)}" + f"{rest:06d}".rstrip("0")


@register.filter
def unit_price(nanos: int) -> str:
    """A price per million tokens, exact, with at least two places: `$0.15`, `$0.075`."""
    whole, _, fraction = format_usd(nanos).partition(".")
    return f"${int(whole):,}.{fraction.rstrip('0').ljust(2, '0')}"


@register.filter
def grouped(number: int) -> str:
    """1234567 as `1,234,567`."""
    return f"{number:,}"


@register.filter
def compact(number: int) -> str:
    """1234567 as `1.23M`, cut, not rounded; exact below ten thousand."""
    if number < 10_000:
        return f"{number:,}"
    thousands = (len(str(number)) - 1) // 3
    scaled = Decimal(number).scaleb(-3 * thousands)
    places = 2 - scaled.adjusted()
    return f"{scaled.quantize(Decimal(1).scaleb(-places), ROUND_DOWN)}{_LETTERS[thousands]}"


@register.filter
def milliseconds(duration_ms: int | None) -> str:
    """`840 ms`, `1.24 s`, `2 min 5 s`; a dash for none."""
    if duration_ms is None:
        return _DASH
    if duration_ms < 1_000:
        return f"{duration_ms} ms"
    if duration_ms < 60_000:
        return f"{Decimal(duration_ms) / 1000:.2f} s"
    minutes, rest_ms = divmod(duration_ms, 60_000)
    return f"{minutes} min {rest_ms // 1000} s"


@register.filter
def as_json(value: Any) -> str:
    """JSON for a data attribute; the template escapes its quotes."""
    return json.dumps(value, separators=(",", ":"))


@register.simple_tag
def icon(name: str, size: str = "size-5") -> SafeString:
    """A symbol of the sprite, hidden from screen readers: the words beside it say what it means."""
    return format_html(
        '<svg class="{} shrink-0" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round"'
        ' stroke-linejoin="round" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        size,
        static("img/icons.svg"),
        name,
    )


@register.inclusion_tag("portal/parts/field.html")
def field(bound: BoundField) -> dict[str, Any]:
    """A form field with label, help and errors, tied together for screen readers."""
    kind = getattr(bound.field.widget, "input_type", "textarea")
    classes = _CONTROL_CLASSES.get(kind, "input w-full")
    if bound.errors:
        classes += f" {classes.split()[0]}-error"
    attributes: dict[str, str | bool] = {"class": classes}
    if str(bound.field.widget.attrs.get("placeholder", "")).startswith(str(bound.label)):
        attributes["placeholder"] = ""  # it would only repeat the label
    return {"bound": bound, "kind": kind, "control": bound.as_widget(attrs=attributes)}
