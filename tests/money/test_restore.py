"""A dump that is taken while usage is posted, restored into an empty database: every rule holds there, too."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection, connections

from apps.billing.posting import post_batch
from apps.usage.models import UnpostedUsage, UsageRecord
from apps.usage.recording import record
from crun.embedded.binaries import find_postgres
from crun.home import BASE_DIR
from tests import factories
from tests.billing import books

pytestmark = pytest.mark.django_db(transaction=True)
RESTORED = "restored"
OWNERS, REQUESTS, BATCH, PAUSE_S = 5, 400, 10, 0.1
LOOK = """
import django
django.setup()
from django.conf import settings
from apps.billing import posting, proofs
from apps.usage.models import UnpostedUsage, UsageRecord
def broken():
    return [proof.name for proof in proofs.verify() if not proof.holds and "Redis" not in proof.name]
waiting = UnpostedUsage.objects.count()
print(UsageRecord.objects.count(), waiting, broken())
while posting.post_batch():
    pass
print(UsageRecord.objects.count(), UnpostedUsage.objects.count(), broken())
"""


def tool(name: str, *arguments: str) -> None:
    """A program of PostgreSQL, on the server of the tests."""
    program = find_postgres().postgres.with_name(name)
    environment = {**os.environ, "PGHOST": str(connection.settings_dict["HOST"]), "PGUSER": "crun"}
    subprocess.run([program, *arguments], env=environment, check=True, capture_output=True, timeout=60)


@pytest.fixture
def empty_database() -> Iterator[str]:
    name = f"{connection.settings_dict['NAME']}_{RESTORED}"
    tool("createdb", name)
    yield name
    tool("dropdb", "--force", name)


def post_slowly(begun: threading.Event, dumped: threading.Event) -> None:
    """Batch by batch, with a pause after each until the dump is there."""
    try:
        while post_batch():
            begun.set()
            dumped.wait(PAUSE_S)
    finally:
        connections.close_all()


def test_d30_a_dump_from_the_middle_of_posting_keeps_every_rule(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.billing.posting.BATCH_ROWS", BATCH)
    price = factories.stored_price()
    owners = [books.organization(f"Owner {number}") for number in range(OWNERS)]
    books.credit(owners[0], 100_000)
    record([books.used(owners[number % OWNERS], price) for number in range(REQUESTS)])
    begun, dumped = threading.Event(), threading.Event()
    posting = threading.Thread(target=post_slowly, args=(begun, dumped))
    posting.start()
    assert begun.wait(timeout=20)
    dump = str(tmp_path / "crun.dump")
    tool("pg_dump", "--format", "custom", "--file", dump, str(connection.settings_dict["NAME"]))
    dumped.set()
    posting.join(timeout=30)
    tool("pg_restore", "--dbname", empty_database, "--exit-on-error", dump)

    url = f"postgres://crun@/{empty_database}?host={connection.settings_dict['HOST']}"
    environment = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "crun.settings"}
    looked = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, last = looked.stdout.splitlines()
    records, waiting, broken = first.split(maxsplit=2)
    assert (records, broken) == (str(REQUESTS), "[]")
    assert 0 < int(waiting) < REQUESTS, "the dump was not taken in the middle"
    assert last == f"{REQUESTS} 0 []"
    assert (UsageRecord.objects.count(), UnpostedUsage.objects.count()) == (REQUESTS, 0)
