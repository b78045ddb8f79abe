"""Moments in the catalog document: ISO 8601 with a time zone, kept in UTC."""

import re
from datetime import UTC, datetime

from apps.catalog.nodes import Refusal, Scalar

_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
    r"(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def moment(written: Scalar) -> datetime:
    """The moment in UTC. Raises Refusal for one without a time zone, or none at all."""
    match = _MOMENT.fullmatch(written.text)
    if match and not match["zone"]:
        raise Refusal(
            'must name its time zone, as in "2026-01-01T00:00:00Z": without one, the moment would depend on the reader'
        )
    try:
        if match is None:
            raise ValueError
        return datetime.fromisoformat(written.text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refusal('must be an ISO 8601 moment with time zone, as in "2026-01-01T00:00:00Z"') from None


def moment_text(value: datetime) -> str:
    """The inverse: `2026-01-01T00:00:00Z`."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
