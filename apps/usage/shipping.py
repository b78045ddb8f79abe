"""Shipping: closed requests go from the journals to PostgreSQL; only then is a segment freed."""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from apps.usage.contracts import RequestClosed, RequestOpened, RequestProgress
from apps.usage.journal import LOCK_NAME, SEGMENT_PATTERN, UNFINISHED_PREFIX, read_entries
from apps.usage.recording import record

BATCH_ROWS = 5_000
_SHIPPER_LOCK = "shipper.lock"
_POSITION = "shipped"
log = logging.getLogger(__name__)

CloseOrphan = Callable[[RequestOpened, int | None], RequestClosed]
"""Settles a request whose process died: what was opened, and the output tokens of its last checkpoint if any."""
OnRecorded = Callable[[Sequence[RequestClosed]], object]
"""Told of every batch that is in the database; a request may be told of again."""


@dataclass
class ShippingReport:
    """What one pass did."""

    recorded: int = 0
    recovered: int = 0


@dataclass
class _Segments:
    """The readable part of a folder: closed requests in order, and those still open."""

    closed: list[RequestClosed] = field(default_factory=list)
    open: dict[str, tuple[RequestOpened, int | None]] = field(default_factory=dict)


def nobody(closed: Sequence[RequestClosed]) -> None:
    """Nobody wants to know what was recorded."""


def ship(root: Path, *, close_orphan: CloseOrphan, on_recorded: OnRecorded = nobody) -> ShippingReport:
    """One pass over all journals under `root`. A second shipper at the same time does nothing.

    Raises django.db.Error when PostgreSQL is away: nothing is freed then, and the next pass goes on."""
    report = ShippingReport()
    if not root.is_dir():
        return report
    with _lock(root / _SHIPPER_LOCK) as is_ours:
        if not is_ours:
            return report
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            if not folder.name.startswith(UNFINISHED_PREFIX):
                _ship_folder(folder, close_orphan, report, on_recorded=on_recorded)
    return report


def _ship_folder(folder: Path, close_orphan: CloseOrphan, report: ShippingReport, *, on_recorded: OnRecorded) -> None:
    with _lock(folder / LOCK_NAME) as writer_is_gone:
        if writer_is_gone:
            _ship_dead(folder, close_orphan, report, on_recorded=on_recorded)
        else:
            _ship_live(folder, report, on_recorded=on_recorded)


def _ship_live(folder: Path, report: ShippingReport, *, on_recorded: OnRecorded) -> None:
    """Record what was closed since the last pass; drop segments that the writer has left behind."""
    segments = sorted(folder.glob(SEGMENT_PATTERN))
    name, offset = _position(folder)
    for segment in segments:
        start = offset if segment.name == name else 0
        if segment.name < name:
            segment.unlink()
            continue
        found = _Segments()
        end = _read(segment, start, found)
        report.recorded += _record(found.closed, on_recorded)
        if segment is not segments[-1]:
            _check_whole(segment, end)
            segment.unlink()
        elif end != start or segment.name != name:
            _save_position(folder, segment.name, end)


def _ship_dead(folder: Path, close_orphan: CloseOrphan, report: ShippingReport, *, on_recorded: OnRecorded) -> None:
    """Record what a dead writer closed, settle what it left open, and remove its folder."""
    found = _Segments()
    segments = sorted(folder.glob(SEGMENT_PATTERN))
    for segment in segments:
        end = _read(segment, 0, found)
        if segment is not segments[-1]:
            _check_whole(segment, end)
    report.recorded += _record(found.closed, on_recorded)
    orphans = [close_orphan(opened, progress) for opened, progress in found.open.values()]
    report.recovered += _record(orphans, on_recorded)
    if orphans:
        log.warning("settled %d requests of a process that died", len(orphans), extra={"journal": folder.name})
    shutil.rmtree(folder)


def _read(segment: Path, start: int, found: _Segments) -> int:
    """Add the entries from `start` on to `found`; returns the offset behind the last whole one."""
    end = start
    for entry, end in read_entries(segment.read_bytes(), start):  # noqa: B007 - the last offset is the result
        match entry:
            case RequestOpened():
                found.open.setdefault(entry.request_id, (entry, None))
            case RequestProgress():
                if entry.request_id in found.open:
                    found.open[entry.request_id] = (found.open[entry.request_id][0], entry.output_tokens)
            case RequestClosed():
                found.open.pop(entry.opened.request_id, None)
                found.closed.append(entry)
    return end


def _record(closed: list[RequestClosed], on_recorded: OnRecorded) -> int:
    recorded = 0
    for at in range(0, len(closed), BATCH_ROWS):
        batch = closed[at : at + BATCH_ROWS]
        recorded += record(batch)
        on_recorded(batch)
    return recorded


def _check_whole(segment: Path, end: int) -> None:
    """A finished segment must be readable to its end; what is not is kept aside for a human."""
    size = segment.stat().st_size
    if end != size:
        kept = segment.with_suffix(".damaged")
        shutil.copyfile(segment, segment.parent.parent / f"{segment.parent.name}-{kept.name}")
        log.error(
            "journal segment damaged at byte %d of %d; a copy is kept",
            end,
            size,
            extra={"segment": str(segment)},
        )


def _position(folder: Path) -> tuple[str, int]:
    try:
        name, _, offset = (folder / _POSITION).read_text().partition(" ")
    except FileNotFoundError:
        return "", 0
    return name, int(offset)


def _save_position(folder: Path, name: str, offset: int) -> None:
    fresh = folder / f"{_POSITION}.new"
    fresh.write_text(f"{name} {offset}")
    fresh.replace(folder / _POSITION)


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether the lock could be had, without waiting; held for the length of the block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
