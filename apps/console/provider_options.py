"""The options of a provider as a field of a form: a name and its value on each line."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.catalog.dialects import OPTIONS, Option


def _described(name: str, option: Option) -> str:
    return f"{name} ({'required' if option.required else option.default or 'empty'})"


def _help() -> str:
    told = "; ".join(
        f"{dialect}: {', '.join(_described(name, option) for name, option in known.items())}"
        for dialect, known in OPTIONS.items()
        if known
    )
    return f"One name: value a line. What each dialect knows, with what holds when it is left out: {told}."


class OptionsField(forms.CharField):
    """Lines of `name: value` on the page, a mapping for the model. Which names fit the dialect, the form knows."""

    def __init__(self, **kwargs: Any) -> None:
        attributes = {"rows": 2, "spellcheck": "false", "class": "font-mono", "placeholder": "region: eu-central-1"}
        super().__init__(
            widget=UnfoldAdminTextareaWidget(attributes), help_text=_help(), max_length=2_000, strip=True, **kwargs
        )

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return "\n".join(f"{name}: {text}" for name, text in sorted(value.items()))

    def to_python(self, value: Any) -> Any:
        options: dict[str, str] = {}
        for line in (super().to_python(self.prepare_value(value)) or "").splitlines():
            name, colon, text = (part.strip() for part in line.partition(":"))
            if not line.strip():
                continue
            if not colon or not name or not text:
                raise forms.ValidationError("Write each option as name: value, on a line of its own.")
            if name in options:
                raise forms.ValidationError(f"{name} stands there twice.")
            options[name] = text
        return options

    def run_validators(self, value: Any) -> None:
        super().run_validators(self.prepare_value(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool((initial or {}) != self.to_python(data))
        except forms.ValidationError:
            return True
