"""Windows of maintenance in the console: their fields, and one in words."""

from datetime import datetime
from typing import Final

from django import forms
from unfold.widgets import UnfoldAdminSplitDateTimeVerticalWidget

from apps.catalog.models import Maintained, Route
from apps.console.figures import moment

MAINTENANCE_FIELDS: Final = ("maintenance_from", "maintenance_until", "maintenance_note")


class RouteForm(forms.ModelForm):
    """A route in a row of a table: date and time stand one below the other."""

    maintenance_from = forms.SplitDateTimeField(required=False, widget=UnfoldAdminSplitDateTimeVerticalWidget)
    maintenance_until = forms.SplitDateTimeField(required=False, widget=UnfoldAdminSplitDateTimeVerticalWidget)

    class Meta:
        model = Route
        fields = (
            "provider",
            "upstream_model",
            "weight",
            "canary_percent",
            "shadow_percent",
            "enabled",
            "quantization",
            *MAINTENANCE_FIELDS,
        )


def maintenance_words(row: Maintained, now: datetime) -> str:
    """Which window the row is in, or the next one; "" without one that is not over."""
    start, end = row.maintenance_from, row.maintenance_until
    if start is None or end is None or end <= now:
        return ""
    return f"in maintenance until {moment(end)}" if start <= now else f"maintenance from {moment(start)}"
