"""The journal: what is written survives the writer, and nothing is freed too early."""

import errno
import os
import stat
from pathlib import Path

import pytest

from apps.usage.contracts import JournalEntry, RequestClosed, RequestOpened, RequestProgress
from apps.usage.journal import Journal, JournalFull, _frame, read_entries
from tests.factories import closed, opened

MANY = 1 << 30


def entries(journal: Journal) -> list[JournalEntry]:
    segments = sorted(journal.folder.glob("*.seg"))
    return [entry for segment in segments for entry, _ in read_entries(segment.read_bytes())]


def test_entries_come_back_as_they_were_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    first = opened()
    journal.open_request(first)
    journal.checkpoint(RequestProgress(first.request_id, 4))
    end = closed(first)
    journal.close_request(end)
    assert entries(journal) == [first, RequestProgress(first.request_id, 4), end]
    assert journal.open_requests == 0
    journal.close()


def test_a_torn_tail_is_ignored_at_every_byte_and_the_rest_is_read() -> None:
    folder_entries = [opened(), opened()]
    frames = []
    journal_bytes = b""
    for entry in folder_entries:
        with_frame = _frame(entry)
        frames.append(with_frame)
        journal_bytes += with_frame
    for cut in range(1, len(frames[1])):
        assert [entry for entry, _ in read_entries(journal_bytes[:-cut])] == folder_entries[:1]


def test_a_flipped_bit_is_never_read_as_an_entry() -> None:
    frame = bytearray(_frame(opened()))
    for position in range(8, len(frame), 7):
        damaged = bytes(frame[:position]) + bytes([frame[position] ^ 1]) + bytes(frame[position + 1 :])
        assert list(read_entries(damaged)) == []


def test_a_full_segment_is_followed_by_one_that_carries_what_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=MANY, segment_bytes=2_000)
    long_lived = opened()
    journal.open_request(long_lived)
    journal.checkpoint(RequestProgress(long_lived.request_id, 9))
    for _ in range(20):
        short = opened()
        journal.open_request(short)
        journal.close_request(closed(short))
    segments = sorted(journal.folder.glob("*.seg"))
    assert len(segments) > 3
    newest = [entry for entry, _ in read_entries(segments[-1].read_bytes())]
    assert newest[:2] == [long_lived, RequestProgress(long_lived.request_id, 9)]
    journal.close()


def test_at_its_cap_nothing_new_is_admitted_but_open_requests_still_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=600)
    admitted: list[RequestOpened] = []
    with pytest.raises(JournalFull):
        while True:
            entry = opened()
            journal.open_request(entry)
            admitted.append(entry)
    for entry in admitted:
        journal.close_request(closed(entry))
    assert sum(isinstance(entry, RequestClosed) for entry in entries(journal)) == len(admitted) > 0
    for segment in journal.folder.glob("*.seg"):
        segment.write_bytes(b"")  # what the shipper's work looks like from here
    journal.measure()
    journal.open_request(opened())
    journal.close()


def test_a_disk_that_refuses_loses_no_close_and_leaves_no_torn_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    entry = opened()
    journal.open_request(entry)
    real_write = os.write

    def half_a_write(descriptor: int, frame: bytes) -> int:
        return real_write(descriptor, frame[: len(frame) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half_a_write)
        journal.close_request(closed(entry))
        with pytest.raises(JournalFull):
            journal.open_request(opened())
    assert entries(journal) == [entry]
    journal.retry_unwritten()
    assert isinstance(entries(journal)[-1], RequestClosed)
    assert len(entries(journal)) == 2
    journal.close()


def test_behind_half_a_frame_that_cannot_be_cut_off_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    entry = opened()
    journal.open_request(entry)
    real_write = os.write

    def refuse(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, f"cannot cut {descriptor} to {length}")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, frame: real_write(descriptor, frame[: len(frame) // 2]))
        patch.setattr(os, "ftruncate", refuse)
        journal.close_request(closed(entry))
    journal.retry_unwritten()
    assert [type(entry) for entry in entries(journal)] == [RequestOpened, RequestOpened, RequestClosed]  # carried along
    journal.open_request(opened())
    assert len(list(journal.folder.glob("*.seg"))) == 2
    journal.close()


def test_a_segment_freed_while_it_is_measured_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    journal.open_request(opened())
    [segment] = journal.folder.glob("*.seg")
    gone = segment.with_name("00000000.seg")
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: [gone, segment])
    monkeypatch.setattr(Path, "exists", lambda path: True)  # it was there a moment ago
    assert journal.measure() == segment.stat().st_size > 0
    journal.close()


def test_a_closed_journal_writes_into_nobody_elses_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", max_bytes=MANY)
    late = opened()
    journal.open_request(late)
    journal.close()
    with (tmp_path / "one").open("wb"), (tmp_path / "two").open("wb"):  # these get the numbers that came free
        journal.close_request(closed(late))
        with pytest.raises(JournalFull):
            journal.open_request(opened())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == b""
    assert entries(journal) == [late]


def test_with_fsync_a_segment_has_its_name_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append(os.fstat(descriptor).st_ino)
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    journal = Journal(tmp_path, max_bytes=MANY, fsync=True, segment_bytes=1)
    folder = journal.folder.stat().st_ino
    assert synced == [tmp_path.stat().st_ino, folder]
    journal.open_request(opened())
    journal.open_request(opened())  # the segment is full
    assert synced[2:] == [folder]
    journal.close()


def test_a_segment_whose_name_was_not_synced_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, max_bytes=MANY, fsync=True, segment_bytes=1)
    first = opened()
    journal.open_request(first)

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "the folder cannot be synced")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse_folders)
        with pytest.raises(JournalFull):
            journal.open_request(opened())
    seen = {path.name: path.stat().st_ino for path in journal.folder.glob("*.seg")}  # by the shipper, too
    assert len(seen) == 2
    journal.open_request(opened())
    assert {path.name: path.stat().st_ino for path in journal.folder.glob("*.seg")}.items() > seen.items()
    journal.close()


def test_zeros_at_the_end_are_no_entry() -> None:
    """What a file system may leave of the last write when the power goes."""
    entry = opened()
    assert [found for found, _ in read_entries(_frame(entry) + bytes(100))] == [entry]
