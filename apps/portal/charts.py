"""Series of usage in the form that static/js/charts.js draws."""

from typing import Any

from apps.portal.templatetags.portal import usd
from apps.usage.reports import Point, Step

_LABELS = {Step.HOUR: "%b %d, %H:00", Step.DAY: "%b %d"}


def chart_of(points: list[Point], step: Step) -> dict[str, Any]:
    """Labels and values, oldest first. Bars are drawn from floats; readers are told the exact text."""
    return {
        "labels": [point.start.strftime(_LABELS[step]) for point in points],
        "cost": [point.sums.cost_nanos / 1e9 for point in points],
        "cost_text": [usd(point.sums.cost_nanos) for point in points],
        "requests": [point.sums.requests for point in points],
        "failed": [point.sums.failed_requests for point in points],
    }
