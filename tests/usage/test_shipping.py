"""From the journal into PostgreSQL: every request once, whoever dies."""

import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import IntegrityError, InternalError, connection, transaction
from pytest_django import Settings

from apps.billing import tasks
from apps.billing.posting import post_batch
from apps.billing.recovery import close_orphan
from apps.core.ids import created_at
from apps.usage import shipping
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts
from apps.usage.journal import Journal
from apps.usage.models import UnpostedUsage, UsageRecord, UsageRollup
from apps.usage.recording import record
from apps.usage.shipping import ship
from tests.dying_writer import write_and_die
from tests.factories import closed, opened, stored_price

MANY = 1 << 30
pytestmark = pytest.mark.django_db


@pytest.fixture
def settle(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The task on the journals in `tmp_path`, within the transaction of the test."""
    settings.JOURNAL_DIR = tmp_path
    monkeypatch.setattr(tasks, "close_old_connections", lambda: None)
    return tasks.settle_usage


def ids() -> set[str]:
    return set(UsageRecord.objects.values_list("request_id", flat=True))


def test_closed_requests_are_recorded_and_open_ones_wait(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    done, pending = opened(), opened()
    journal.open_request(done)
    journal.open_request(pending)
    journal.close_request(closed(done))
    assert ship(tmp_path, close_orphan=close_orphan).recorded == 1
    assert ids() == {done.request_id}
    journal.close_request(closed(pending))
    ship(tmp_path, close_orphan=close_orphan)
    assert ids() == {done.request_id, pending.request_id}
    journal.close()


def test_shipping_twice_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    entry = opened()
    journal.open_request(entry)
    journal.close_request(closed(entry))
    ship(tmp_path, close_orphan=close_orphan)
    (journal.folder / "shipped").unlink()  # a shipper that died after the commit and before it noted its position
    assert ship(tmp_path, close_orphan=close_orphan).recorded == 0
    assert UsageRecord.objects.count() == 1 and UnpostedUsage.objects.count() == 1
    journal.close()


def test_a_segment_that_is_shipped_is_freed_and_long_requests_survive_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=MANY, segment_bytes=2_000)
    long_lived = opened()
    journal.open_request(long_lived)
    for _ in range(30):
        short = opened()
        journal.open_request(short)
        journal.close_request(closed(short))
        ship(tmp_path, close_orphan=close_orphan)
    assert len(list(journal.folder.glob("*.seg"))) == 1
    journal.close()  # the process ends without a close for its long request
    assert ship(tmp_path, close_orphan=close_orphan).recovered == 1
    assert UsageRecord.objects.get(pk=long_lived.request_id).status == Outcome.INTERRUPTED
    assert UsageRecord.objects.count() == 31
    assert not journal.folder.exists()


def test_a_killed_writer_is_settled_by_whoever_comes_next(tmp_path: Path) -> None:
    with_output, without_output = opened(input_estimate=10), opened()
    process = multiprocessing.get_context("spawn").Process(
        target=write_and_die, args=(tmp_path, [with_output, without_output])
    )
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    ship(tmp_path, close_orphan=close_orphan)
    ship(tmp_path, close_orphan=close_orphan)
    billed = UsageRecord.objects.get(pk=with_output.request_id)
    assert (billed.status, billed.input_tokens, billed.output_tokens, billed.estimated) == ("interrupted", 10, 5, True)
    assert billed.cost_nanos == 10 * 150 + 5 * 600
    free = UsageRecord.objects.get(pk=without_output.request_id)
    assert (free.cost_nanos, free.estimated, free.output_tokens) == (0, False, 0)
    assert UsageRecord.objects.count() == 2


def test_a_living_writer_is_never_taken_for_dead(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    journal.open_request(opened())
    assert ship(tmp_path, close_orphan=close_orphan).recovered == 0
    assert journal.folder.exists()
    journal.close()


def test_one_record_that_the_database_refuses_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    good = [opened() for _ in range(6)]
    for entry in good:
        journal.open_request(entry)
        journal.close_request(closed(entry))
    bad = opened()
    journal.open_request(bad)
    journal.close_request(closed(bad, finish_reason="nul\x00"))
    ship(tmp_path, close_orphan=close_orphan)
    ship(tmp_path, close_orphan=close_orphan)
    assert ids() == {entry.request_id for entry in good}
    kept = (tmp_path / "refused.jsonl").read_text().splitlines()
    assert len(kept) == 1
    assert bad.request_id in kept[0]
    assert "refused" in caplog.text
    journal.close()


def test_of_a_dead_writer_no_more_than_a_segment_is_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, max_bytes=MANY, segment_bytes=2_000)
    for _ in range(30):
        short = opened()
        journal.open_request(short)
        journal.close_request(closed(short))
    segments = len(list(journal.folder.glob("*.seg")))
    assert segments > 5
    journal.close()
    held: list[int] = []

    def counted(entries: list[RequestClosed]) -> int:
        held.append(len(entries))
        return record(entries)

    monkeypatch.setattr(shipping, "record", counted)
    assert ship(tmp_path, close_orphan=close_orphan).recorded == 30
    assert sum(held) == 30
    assert max(held) <= 30 / segments * 2


def test_a_journal_that_cannot_be_read_holds_up_no_other_and_no_posting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settle: Callable[[], None]
) -> None:
    unreadable = tmp_path / "gw_0"  # before all others
    (unreadable / "00000001.seg").mkdir(parents=True)
    journal = Journal(tmp_path, max_bytes=MANY)
    entry = opened(price=stored_price())
    journal.open_request(entry)
    journal.close_request(closed(entry))
    settle()
    assert ids() == {entry.request_id}
    assert UsageRollup.objects.get().requests == 1
    assert f"{unreadable} not shipped" in caplog.text
    assert unreadable.exists()
    journal.close()


def test_what_is_recorded_is_posted_when_no_journal_can_be_read(tmp_path: Path, settle: Callable[[], None]) -> None:
    (tmp_path / "shipper.lock").mkdir()
    record([closed(opened(price=stored_price()))])
    with pytest.raises(IsADirectoryError):
        settle()
    assert UsageRollup.objects.get().requests == 1


@pytest.mark.parametrize(("end", "copies"), [("torn", 0), ("damaged", 1), ("zeros", 1)])
def test_the_unreadable_end_of_a_dead_writer_is_kept_unless_it_was_cut_off(
    tmp_path: Path, end: str, copies: int
) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    first, last = opened(), opened()
    journal.open_request(first)
    [segment] = journal.folder.glob("*.seg")
    whole = segment.stat().st_size
    journal.open_request(last)
    journal.close()
    content = segment.read_bytes()
    rest = content[whole:]
    damaged = rest[:20] + bytes([rest[20] ^ 1]) + rest[21:]
    segment.write_bytes(content[:whole] + {"torn": rest[:-1], "damaged": damaged, "zeros": bytes(len(rest))}[end])
    assert ship(tmp_path, close_orphan=close_orphan).recovered == 1
    assert ids() == {first.request_id}
    assert not journal.folder.exists()
    assert len(list(tmp_path.glob("*.damaged"))) == copies


def test_trouble_with_the_table_itself_frees_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, max_bytes=MANY)
    entry = opened()
    journal.open_request(entry)
    journal.close_request(closed(entry))
    monkeypatch.setattr("apps.usage.recording.ensure_partitions", lambda days: None)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS usage_record_{created_at(entry.request_id):%Y%m%d}")
    with pytest.raises(IntegrityError), transaction.atomic():
        ship(tmp_path, close_orphan=close_orphan)
    assert not (tmp_path / "refused.jsonl").exists()
    monkeypatch.undo()
    assert ship(tmp_path, close_orphan=close_orphan).recorded == 1
    journal.close()


def test_the_same_request_in_one_batch_and_again_later_is_one_record() -> None:
    entry = closed()
    assert record([entry, entry]) == 1
    assert record([entry]) == 0
    assert UnpostedUsage.objects.count() == 1


def test_records_cannot_be_changed_or_deleted() -> None:
    record([closed()])
    for statement in ("UPDATE usage_usagerecord SET cost_nanos = 0", "DELETE FROM usage_usagerecord"):
        with pytest.raises((InternalError, IntegrityError)), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert UsageRecord.objects.get().cost_nanos == 2_850


def test_posting_adds_every_record_to_its_hour_once() -> None:
    price = stored_price()
    tokens = TokenCounts(input=7, output=3)
    record([closed(opened(price=price), tokens=tokens) for _ in range(3)])
    record([closed(opened(price=price), outcome=Outcome.FAILED, tokens=TokenCounts(), cost_nanos=0)])
    assert post_batch() == 4
    assert post_batch() == 0
    sums = UsageRollup.objects.values("requests", "failed_requests", "input_tokens", "output_tokens", "cost_nanos")
    total = {name: sum(row[name] for row in sums) for name in sums[0]}
    assert total == {"requests": 4, "failed_requests": 1, "input_tokens": 21, "output_tokens": 9, "cost_nanos": 8_550}


def test_a_cost_that_its_price_version_does_not_give_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    record([closed(opened(price=stored_price()), cost_nanos=1)])
    post_batch()
    assert "cost differs from its price version" in caplog.text


def test_a_record_whose_price_version_is_gone_is_posted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    record([closed(opened(price=stored_price()), cost_nanos=2_850), closed()])
    assert post_batch() == 2
    assert "price version of a record does not exist" in caplog.text
    assert sum(UsageRollup.objects.values_list("cost_nanos", flat=True)) == 5_700
