"""Shipping: closed requests go from the journals to PostgreSQL; only then is a segment freed."""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from django.db import DataError

from apps.core.crash_points import crash_point
from apps.usage.contracts import RequestClosed, RequestOpened, RequestProgress, ShadowMade, with_hold_of
from apps.usage.journal import LOCK_NAME, SEGMENT_PATTERN, UNFINISHED_PREFIX, is_torn_frame, read_entries
from apps.usage.recording import record, record_shadows

BATCH_ROWS = 5_000
REFUSED_NAME = "refused.jsonl"
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
    shadows: list[ShadowMade] = field(default_factory=list)


def nobody(closed: Sequence[RequestClosed]) -> None:
    """Nobody wants to know what was recorded."""


def ship(root: Path, *, close_orphan: CloseOrphan, on_recorded: OnRecorded = nobody) -> ShippingReport:
    """One pass over all journals under `root`. A second shipper at the same time does nothing.

    A journal that cannot be read or freed is reported in the log and holds up no other.
    Raises django.db.Error when PostgreSQL is away: nothing is freed then, and the next pass goes on."""
    report = ShippingReport()
    if not root.is_dir():
        return report
    with _lock(root / _SHIPPER_LOCK) as is_ours:
        if not is_ours:
            return report
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            if folder.name.startswith(UNFINISHED_PREFIX):
                continue
            try:
                _ship_folder(folder, close_orphan, report, on_recorded=on_recorded)
            except (OSError, msgspec.DecodeError) as error:
                log.error("journal %s not shipped, it stays where it is: %s", folder, error)
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
        report.recorded += _record(folder, found.closed, on_recorded)
        record_shadows(found.shadows)
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
        _check_whole(segment, end, may_be_torn=segment is segments[-1])
        report.recorded += _record(folder, found.closed, on_recorded)
        record_shadows(found.shadows)
        found.shadows.clear()
        found.closed.clear()  # a full journal is a gigabyte: never all of it at once
    orphans = [close_orphan(opened, progress) for opened, progress in found.open.values()]
    report.recovered += _record(folder, orphans, on_recorded)
    if orphans:
        log.warning("settled %d requests of a process that died", len(orphans), extra={"journal": folder.name})
    shutil.rmtree(folder)


def _read(segment: Path, start: int, found: _Segments) -> int:
    """Add the entries from `start` on to `found`; returns the offset behind the last whole one."""
    end = start
    for entry, end in read_entries(segment.read_bytes(), start):  # noqa: B007 - the last offset is the result
        match entry:
            case RequestOpened():
                known = found.open.get(entry.request_id)
                if known is None or known[0].model != entry.model:  # a segment repeats those that are carried over
                    found.open[entry.request_id] = (entry, None)
            case RequestProgress():
                if entry.request_id in found.open:
                    opened = with_hold_of(found.open[entry.request_id][0], entry)
                    found.open[entry.request_id] = (opened, entry.output_tokens or None)
            case RequestClosed():
                found.open.pop(entry.opened.request_id, None)
                found.closed.append(entry)
            case ShadowMade():
                found.shadows.append(entry)
    return end


def _record(folder: Path, closed: list[RequestClosed], on_recorded: OnRecorded) -> int:
    """Write them in batches. A value that the database cannot hold must not hold up all others.

    Anything else it objects to, such as a missing partition or column, would hit every record: that is raised, and
    the journal keeps them all."""
    recorded = 0
    for at in range(0, len(closed), BATCH_ROWS):
        batch = closed[at : at + BATCH_ROWS]
        crash_point("P13")
        try:
            recorded += record(batch)
        except DataError as error:
            recorded += _record_apart(folder, batch, error)
        crash_point("P14")
        on_recorded(batch)
    return recorded


def _record_apart(folder: Path, batch: list[RequestClosed], error: DataError) -> int:
    """Halve the batch until the refused entry stands alone; that one is kept in a file for a human."""
    if len(batch) > 1:
        middle = len(batch) // 2
        return _record(folder, batch[:middle], nobody) + _record(folder, batch[middle:], nobody)
    descriptor = os.open(folder.parent / REFUSED_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        file.write(msgspec.json.encode(batch[0]) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    log.error("a usage record was refused: %s", error, extra={"request_id": batch[0].opened.request_id})
    return 0


def _check_whole(segment: Path, end: int, *, may_be_torn: bool = False) -> None:
    """A finished segment must be readable to its end; what is not is kept aside for a human."""
    size = segment.stat().st_size
    if end != size and not (may_be_torn and is_torn_frame(segment.read_bytes()[end:])):
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
