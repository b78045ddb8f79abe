"""From the journal into PostgreSQL: every request once, whoever dies."""

import multiprocessing
import signal
from pathlib import Path

import pytest
from django.db import IntegrityError, InternalError, connection, transaction

from apps.billing.posting import post_batch
from apps.billing.recovery import close_orphan
from apps.usage.contracts import Outcome, TokenCounts
from apps.usage.journal import Journal
from apps.usage.models import UnpostedUsage, UsageRecord, UsageRollup
from apps.usage.recording import record
from apps.usage.shipping import ship
from tests.dying_writer import write_and_die
from tests.factories import closed, opened, stored_price

MANY = 1 << 30
pytestmark = pytest.mark.django_db


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
