"""The journal: append-only segments of framed entries, one folder a process, which outlive `kill -9` of it.

A frame is length (4 bytes), CRC-32 (4 bytes), MessagePack of one entry. A folder is locked (flock) for as long as its
process lives, so whoever gets the lock knows that the writer is gone. A segment that is full is followed by a new one,
into which the entries of all requests still open are carried: a segment whose closed requests are shipped can go.
"""

import errno
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from apps.core.errors import Unavailable
from apps.core.ids import new_id
from apps.usage.contracts import JournalEntry, RequestClosed, RequestOpened, RequestProgress, ShadowMade

SEGMENT_BYTES: Final = 8 << 20
SEGMENT_PATTERN: Final = "*.seg"
LOCK_NAME: Final = "lock"
UNFINISHED_PREFIX: Final = ".new-"
_FRAME: Final = struct.Struct("<II")
_MAX_ENTRY_BYTES: Final = 1 << 20
_CLOSED: Final = -1

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[JournalEntry] = msgspec.msgpack.Decoder(JournalEntry)
log = logging.getLogger(__name__)


class JournalFull(Unavailable):
    """No entry can be written: the journal reached its cap, or the disk refused."""

    code = "journal_full"


class Journal:
    """The writer of one process. Not thread-safe: the event loop owns it."""

    def __init__(self, root: Path, *, max_bytes: int, fsync: bool = False, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Make and lock a new folder under `root`. `max_bytes` caps all segments of this writer together."""
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._open: dict[str, tuple[bytes, bytes]] = {}
        self._unwritten: list[tuple[str, bytes, Callable[[], None] | None]] = []
        self._number = 0
        self._size = 0
        self._stored_bytes = 0
        self._is_torn = False  # half a frame ends the segment: nothing behind it could be read
        self.folder, self._lock = _make_locked_folder(root, fsync=fsync)
        self._file = self._new_segment()

    @property
    def open_requests(self) -> int:
        """How many requests are open: opened here and not closed yet."""
        return len(self._open)

    def open_request(self, entry: RequestOpened) -> None:
        """Write the intent, before the upstream is called. Raises JournalFull: then nothing may be sent upstream."""
        if self._stored_bytes >= self._max_bytes:
            raise JournalFull("the usage journal is full; new requests wait until it is drained")
        frame = _frame(entry)
        try:
            self.retry_unwritten()
            self._append(frame)
        except OSError as error:
            raise JournalFull("the usage journal cannot be written") from error
        self._open[entry.request_id] = (frame, b"")

    def checkpoint(self, entry: RequestProgress) -> bool:
        """Write how far an open request got; whether it stands there. A failure is logged only: the next one, or the
        close, says more."""
        opened = self._open.get(entry.request_id)
        if opened is None:
            return False
        frame = _frame(entry)
        self._open[entry.request_id] = (opened[0], frame)
        try:
            self._append(frame)
        except OSError as error:
            log.warning("checkpoint not written: %s", error)
            return False
        return True

    def close_request(self, entry: RequestClosed, *, then: Callable[[], None] | None = None) -> None:
        """Write the end of a request. When the disk refuses it is kept in memory and written as soon as it can be.

        `then` is called once the end stands in the journal, now or later; until then the request is open for everybody
        who reads it."""
        self._unwritten.append((entry.opened.request_id, _frame(entry), then))
        try:
            self.retry_unwritten()
        except OSError as error:
            log.error("close kept in memory, the journal cannot be written: %s", error)

    def note(self, entry: ShadowMade) -> None:
        """Write what is worth to know and belongs to no open request. A failure is logged only."""
        if self._stored_bytes >= self._max_bytes:
            return
        try:
            self._append(_frame(entry))
        except OSError as error:
            log.warning("a copy of a request is not recorded: %s", error)

    def retry_unwritten(self) -> None:
        """Write what the disk refused earlier. Raises OSError when it still refuses."""
        while self._unwritten:
            request_id, frame, then = self._unwritten[0]
            self._append(frame)
            del self._unwritten[0]
            self._open.pop(request_id, None)
            if then is not None:
                then()

    def measure(self) -> int:
        """Look at the disk: bytes in segments that are not shipped yet. Called about once a second."""
        stored_bytes = 0
        for path in list(self.folder.glob(SEGMENT_PATTERN)):
            with suppress(FileNotFoundError):  # the shipper frees segments meanwhile
                stored_bytes += path.stat().st_size
        self._stored_bytes = stored_bytes
        return stored_bytes

    def close(self) -> None:
        """Let the shipper take the folder over. Requests that are still open will be closed by recovery."""
        file, lock = self._file, self._lock
        self._file = self._lock = _CLOSED  # the numbers will be those of other files and sockets
        os.close(file)
        os.close(lock)

    def _append(self, frame: bytes) -> None:
        if self._file == _CLOSED:
            raise OSError(errno.EBADF, "the journal is closed")
        if self._size >= self._segment_bytes or self._is_torn:
            self._rotate()
        self._write(frame)

    def _write(self, frames: bytes) -> None:
        try:
            written = os.write(self._file, frames)
            if written != len(frames):
                raise OSError(f"only {written} of {len(frames)} bytes written")
            if self._fsync:
                os.fdatasync(self._file)
        except OSError:
            self._is_torn = True
            os.ftruncate(self._file, self._size)
            self._is_torn = False
            raise
        self._size += len(frames)
        self._stored_bytes += len(frames)

    def _rotate(self) -> None:
        previous = self._file
        self._file = self._new_segment(b"".join(opened + progress for opened, progress in self._open.values()))
        self._is_torn = False
        os.close(previous)

    def _new_segment(self, carried: bytes = b"") -> int:
        """A segment that starts with the open requests; it gets its name only when they stand in it."""
        path = self.folder / f"{self._number + 1:08d}.seg"
        unfinished = path.with_suffix(".new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)
        try:
            if os.write(descriptor, carried) != len(carried):
                raise OSError("the open requests do not fit on the disk")
            if self._fsync:
                os.fsync(descriptor)
            unfinished.rename(path)
            self._number += 1  # the name is given: whatever fails from here on, the next attempt takes another
            if self._fsync:
                _sync_folder(self.folder)
        except OSError:
            os.close(descriptor)
            raise
        self._size = len(carried)
        self._stored_bytes += len(carried)
        return descriptor


def read_entries(content: bytes, start: int = 0) -> Iterator[tuple[JournalEntry, int]]:
    """The whole entries from `start` on, each with the offset behind it; ends at a torn or damaged frame."""
    offset = start
    while offset + _FRAME.size <= len(content):
        length, checksum = _FRAME.unpack_from(content, offset)
        end = offset + _FRAME.size + length
        payload = content[offset + _FRAME.size : end]
        if not 0 < length <= _MAX_ENTRY_BYTES or len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield _decoder.decode(payload), end
        offset = end


def entries_naming(content: bytes, word: bytes) -> Iterator[JournalEntry]:
    """The whole entries in which these bytes occur. All others are skipped unread: this is a search, not a check."""
    if word not in content:
        return
    offset = 0
    while offset + _FRAME.size <= len(content):
        end = offset + _FRAME.size + _FRAME.unpack_from(content, offset)[0]
        if content.find(word, offset, end) >= 0:
            yield from (entry for entry, _ in read_entries(content[offset:end]))
        offset = end


def is_torn_frame(rest: bytes) -> bool:
    """Whether the unreadable rest of a segment is the beginning of one frame: its writer died while writing it."""
    if len(rest) < _FRAME.size:
        return True
    length: int = _FRAME.unpack_from(rest)[0]
    return len(rest) < _FRAME.size + length <= _FRAME.size + _MAX_ENTRY_BYTES


def _frame(entry: JournalEntry) -> bytes:
    payload = _encoder.encode(entry)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _make_locked_folder(root: Path, *, fsync: bool) -> tuple[Path, int]:
    """A new folder whose lock is held before anybody can see it under its final name."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = new_id("gw")
    hidden = root / f"{UNFINISHED_PREFIX}{name}"
    hidden.mkdir(mode=0o700)
    lock = os.open(hidden / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    final = root / name
    hidden.rename(final)
    if fsync:
        _sync_folder(root)
    return final, lock


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: a synced file without a name is lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
