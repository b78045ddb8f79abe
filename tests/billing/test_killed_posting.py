"""A process that posts and is killed with SIGKILL leaves all of a batch or nothing of it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection, transaction

from apps.billing import ledger
from apps.billing.models import LedgerAccount, LedgerTransaction
from apps.billing.posting import post_batch
from apps.usage.models import UnpostedUsage, UsageRollup
from apps.usage.recording import record
from tests import factories
from tests.billing import books

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]
POST = """
import sys, django
django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
from apps.billing import posting
posting.BATCH_ROWS = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
while posting.post_batch():
    print("batch", flush=True)
"""


@contextmanager
def posting_process(batch_rows: int) -> Iterator["subprocess.Popen[str]"]:
    """Another process that posts, once `let_go` is called, until nothing waits."""
    name = str(connection.settings_dict["NAME"])
    command = [sys.executable, "-c", POST, name, str(batch_rows)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def let_go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def others(*, waiting: bool = False) -> int:
    """How many other connections to this database there are, perhaps only those that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # within a transaction the view stands still
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND (NOT %s OR wait_event_type = 'Lock')",
            [waiting],
        )
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("stop_at", ["the wallet", "the rollup"])
def test_killed_in_the_middle_of_a_batch_nothing_of_it_is_posted(stop_at: str) -> None:
    """The process is held at a lock before the first line, or after the last one, and killed there."""
    price = factories.stored_price()
    owner = books.organization()
    record([books.used(owner, price, project_id="p", key_id="k")])
    post_batch()
    entries = [books.used(owner, price, project_id="p", key_id="k") for _ in range(50)]
    record(entries)
    row = LedgerAccount.objects.for_organization(owner.id) if stop_at == "the wallet" else UsageRollup.objects
    with posting_process(batch_rows=50) as process:
        with transaction.atomic():
            list(row.select_for_update())
            let_go(process)
            wait_for(lambda: process.poll() is not None or others(waiting=True) == 1)
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
        wait_for(lambda: others() == 0)
    assert process.returncode == -signal.SIGKILL
    assert UnpostedUsage.objects.count() == 50
    assert LedgerTransaction.objects.count() == 1
    assert ledger.balance_nanos(owner.id) == -1_500
    assert books.failed_proofs() == []

    assert post_batch() == 50
    assert ledger.balance_nanos(owner.id) == -51 * 1_500
    assert books.failed_proofs() == []


@pytest.mark.parametrize("batches_before", [1, 3, 6])
def test_killed_at_any_moment_every_record_is_posted_once(batches_before: int) -> None:
    price = factories.stored_price()
    owners = [books.organization(f"Owner {number}") for number in range(3)]
    books.credit(owners[0], 100_000)
    entries = [books.used(owners[number % 3], price) for number in range(600)]
    record(entries)
    with posting_process(batch_rows=20) as process:
        assert process.stdout is not None
        let_go(process)
        for _ in range(batches_before):
            process.stdout.readline()
        time.sleep(0.003 * batches_before)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    wait_for(lambda: others() == 0)
    assert 0 < UnpostedUsage.objects.count() < 600
    assert books.failed_proofs() == []
    while post_batch():
        pass
    spent = sum(entry.cost_nanos for entry in entries)
    assert sum(ledger.balance_nanos(owner.id) for owner in owners) == 100_000 - spent
    assert books.failed_proofs() == []
