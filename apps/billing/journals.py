"""What the journals of this machine say about the requests of some organizations: which run, and which have ended."""

import logging
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from apps.core.errors import Unavailable
from apps.usage.contracts import RequestClosed, RequestOpened, RequestProgress, with_hold_of
from apps.usage.journal import SEGMENT_PATTERN, UNFINISHED_PREFIX, read_entries

TRIES: Final = 5
SITE_NAME: Final = "site"
log = logging.getLogger(__name__)


@dataclass(slots=True)
class JournalView:
    """The requests of one organization, by id."""

    opened: dict[str, RequestOpened] = field(default_factory=dict)
    closed: dict[str, RequestClosed] = field(default_factory=dict)


def site_of(root: Path) -> str:
    """A name for the journals under this folder, made once: who reads it knows all requests that bear it.

    Raises OSError when the folder cannot be written."""
    path = root / SITE_NAME
    with suppress(FileNotFoundError):
        return path.read_text()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = secrets.token_hex(4)
    fresh = root / f".{SITE_NAME}-{name}"
    fresh.write_text(name)
    with suppress(FileExistsError):  # somebody else was first
        os.link(fresh, path)
    fresh.unlink()
    return path.read_text()


def read_journals(root: Path, organization_ids: Collection[str]) -> dict[str, JournalView]:
    """The view of each organization. What ends or is shipped meanwhile may stand here as running, never the reverse.

    A segment that goes away while it is read was shipped: what ended in it is in PostgreSQL by now, and what runs was
    carried into a later segment, so its folder is read again. Raises Unavailable when that does not come to rest, and
    for a journal that cannot be read: whatever it says may be money."""
    views = {organization_id: JournalView() for organization_id in organization_ids}
    try:
        if root.is_dir():
            for folder in sorted(path for path in root.iterdir() if path.is_dir()):
                if not folder.name.startswith(UNFINISHED_PREFIX):
                    _read_folder(folder, views)
    except (OSError, msgspec.DecodeError) as error:
        log.error("the journals cannot be read: %s", error, extra={"journals": str(root)})
        raise Unavailable("the journals cannot be read") from error
    for view in views.values():
        for request_id in view.closed:
            view.opened.pop(request_id, None)
    return views


def _read_folder(folder: Path, views: dict[str, JournalView]) -> None:
    for _ in range(TRIES):
        try:
            for segment in sorted(folder.glob(SEGMENT_PATTERN)):
                _read_segment(segment.read_bytes(), views)
        except FileNotFoundError:
            continue
        return
    raise Unavailable("the journals change too fast to be read")


def _read_segment(content: bytes, views: dict[str, JournalView]) -> None:
    if not any(organization_id.encode() in content for organization_id in views):
        return
    owners: dict[str, str] = {}
    for entry, _ in read_entries(content):
        match entry:
            case RequestOpened(organization_id=owner) if owner in views:
                views[owner].opened[entry.request_id] = entry
                owners[entry.request_id] = owner
            case RequestProgress() if entry.request_id in owners and entry.hold_nanos is not None:
                opened = views[owners[entry.request_id]].opened
                opened[entry.request_id] = with_hold_of(opened[entry.request_id], entry)
            case RequestClosed() if entry.opened.organization_id in views:
                views[entry.opened.organization_id].closed[entry.opened.request_id] = entry
