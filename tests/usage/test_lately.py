"""Finding one ended request in the journals of this machine."""

from pathlib import Path

from apps.core.ids import new_id
from apps.usage.contracts import RequestClosed, RequestProgress
from apps.usage.journal import Journal
from apps.usage.lately import find_closed
from tests.factories import closed


def test_a_request_is_found_once_it_has_ended_whoever_wrote_it(tmp_path: Path) -> None:
    journals = [Journal(tmp_path, max_bytes=1 << 20) for _ in range(2)]
    ends: list[RequestClosed] = [closed() for _ in range(6)]
    for number, end in enumerate(ends):
        journal = journals[number % 2]
        journal.open_request(end.opened)
        journal.checkpoint(RequestProgress(end.opened.request_id, 3))
        assert find_closed(tmp_path, end.opened.request_id) is None
        journal.close_request(end)
        assert find_closed(tmp_path, end.opened.request_id) == end
    assert all(find_closed(tmp_path, end.opened.request_id) == end for end in ends)
    assert find_closed(tmp_path, new_id("req")) is None


def test_a_request_of_an_earlier_segment_is_found(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1 << 20, segment_bytes=2_000)
    ends = [closed() for _ in range(30)]
    for end in ends:
        journal.open_request(end.opened)
        journal.close_request(end)
    assert len(list(journal.folder.glob("*.seg"))) > 3
    assert [find_closed(tmp_path, end.opened.request_id) for end in ends] == ends


def test_an_id_that_only_another_requests_usage_mentions_is_not_found(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1 << 20)
    wanted = new_id("req")
    other = closed(raw_usage=f'{{"id": "{wanted}"}}')
    journal.open_request(other.opened)
    journal.close_request(other)
    assert find_closed(tmp_path, wanted) is None


def test_a_machine_without_journals_has_found_nothing(tmp_path: Path) -> None:
    assert find_closed(tmp_path / "nowhere", new_id("req")) is None
