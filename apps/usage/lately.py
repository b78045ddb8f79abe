"""The end of one request, looked up in the journals of this machine: what has ended and is not shipped yet."""

from pathlib import Path

from apps.usage.contracts import RequestClosed
from apps.usage.journal import SEGMENT_PATTERN, UNFINISHED_PREFIX, entries_naming


def find_closed(root: Path, request_id: str) -> RequestClosed | None:
    """The request's end; None when no journal here has it: it runs, is shipped, was elsewhere, or never was.

    A segment that goes away meanwhile was shipped, so its requests are in PostgreSQL. Raises OSError for a journal
    that cannot be read."""
    if not root.is_dir():
        return None
    for folder in root.iterdir():
        if folder.is_dir() and not folder.name.startswith(UNFINISHED_PREFIX):
            for segment in sorted(folder.glob(SEGMENT_PATTERN), reverse=True):
                try:
                    content = segment.read_bytes()
                except FileNotFoundError:
                    continue
                if found := _closed_in(content, request_id):
                    return found
    return None


def _closed_in(content: bytes, request_id: str) -> RequestClosed | None:
    for entry in entries_naming(content, request_id.encode()):
        if isinstance(entry, RequestClosed) and entry.opened.request_id == request_id:
            return entry
    return None
