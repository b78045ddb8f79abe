"""Windows of maintenance in the catalog document: `maintenance: {from: ..., until: ..., note: ...}`. Pure."""

import json
from dataclasses import dataclass
from datetime import datetime

from apps.catalog.moments import moment, moment_text
from apps.catalog.nodes import Key, Spot, read_table, scalar, text

MAX_NOTE_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class MaintenanceEntry:
    """A time in which no new request goes somewhere: `starts_at` is in it, `ends_at` is not."""

    starts_at: datetime
    ends_at: datetime
    note: str = ""


def read_maintenance(spot: Spot) -> MaintenanceEntry | None:
    """One window; a problem is noted at the spot."""
    values = read_table(spot, _KEYS)
    if values is None:
        return None
    if values["ends_at"] <= values["starts_at"]:
        spot.refuse("ends before it begins: until must be after from")
        return None
    return MaintenanceEntry(**values)


def render_maintenance(entry: MaintenanceEntry) -> str:
    """The pair that `read_maintenance` reads."""
    note = f", note: {json.dumps(entry.note, ensure_ascii=False)}" if entry.note else ""
    return f'maintenance: {{from: "{moment_text(entry.starts_at)}", until: "{moment_text(entry.ends_at)}"{note}}}'


_KEYS = {
    "from": Key(scalar(moment), "starts_at", required=True),
    "until": Key(scalar(moment), "ends_at", required=True),
    "note": Key(scalar(text(MAX_NOTE_CHARACTERS, may_be_empty=True)), "note"),
}
