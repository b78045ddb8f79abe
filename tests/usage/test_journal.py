"""The journal: what is written survives the writer, and nothing is freed too early."""

import os
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
