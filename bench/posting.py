"""`python -m bench.posting`: usage records a second that a whole CRUN ships from a journal and posts to the ledger."""

import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import psycopg

from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Price
from apps.core.ids import created_ms, new_id
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, TokenCounts
from apps.usage.journal import Journal
from bench.children import BenchFailed, scratch_folder
from bench.installation import MODEL, Installation, crun, installation
from crun.supervisor.listening import free_port

ORGANIZATIONS: Final = 10
KEYS: Final = 5
LIMIT_S: Final = 300.0
LOOK_S: Final = 0.05
JOURNAL_BYTES: Final = 1 << 34
_WAITING: Final = "SELECT count(*) FROM usage_unpostedusage"
_RECORDS: Final = "SELECT count(*) FROM usage_usagerecord"
_CHARGED: Final = """
SELECT coalesce(sum(line.amount_nanos), 0) FROM billing_ledgerline line
JOIN billing_ledgertransaction entry ON entry.id = line.transaction_id
JOIN billing_ledgeraccount account ON account.id = line.account_id
WHERE entry.kind = 'usage' AND account.kind = 'revenue'
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--records", default=200_000, show_default=True, type=click.IntRange(1), help="Usage records.")
@click.option("--age-s", default=1_800, show_default=True, type=click.IntRange(0), help="How old they are.")
def main(*, records: int, age_s: int) -> None:
    """Put a journal of a dead process into a running CRUN and wait until everything is in the ledger.

    Old records are a backlog, as after an outage of PostgreSQL: their gateway settled them long ago. With `--age-s 0`
    the store has heard of none of them, and each is settled on the way. Celery worker, beat, PostgreSQL (durable) and
    Valkey are those of `crun up`."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    try:
        with scratch_folder() as folder, installation(folder, upstream_port=free_port(0)) as installed:
            shipped_s, posted_s, charged = measure(installed, records=records, age_s=age_s)
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{records} records of {ORGANIZATIONS} organizations, {KEYS} keys each")
    click.echo(f"shipped after {shipped_s:.1f} s: {records / shipped_s:,.0f} a second")
    click.echo(f"posted after  {posted_s:.1f} s: {records / posted_s:,.0f} a second, {charged} nano-USD charged")


def measure(installed: Installation, *, records: int, age_s: int) -> tuple[float, float, int]:
    """Seconds until everything was shipped, until everything was posted, and what was charged. Raises BenchFailed."""
    with psycopg.connect(host=str(installed.home.sockets), dbname="crun", user="crun", autocommit=True) as database:
        entries = list(_requests(records, _version(database), _organizations(installed), age_s=age_s))
        expected = sum(entry.cost_nanos for entry in entries)
        ready = _write(installed.home.path / "prepared", entries)
        began = time.monotonic()
        ready.rename(installed.home.journal / ready.name)
        shipped_s = _wait_until(database, _RECORDS, records) - began
        posted_s = _wait_until(database, _WAITING, 0) - began
        charged = _number(database, _CHARGED)
    if charged != expected:
        raise BenchFailed(f"{charged} nano-USD were charged for usage of {expected}")
    return shipped_s, posted_s, charged


def _organizations(installed: Installation) -> list[str]:
    """The ids of fresh organizations."""
    for number in range(ORGANIZATIONS):
        crun(installed.environment, "org", "create", f"Bench {number}", "--slug", f"bench-{number}")
    with psycopg.connect(host=str(installed.home.sockets), dbname="crun", user="crun") as database:
        rows = database.execute("SELECT id FROM accounts_organization WHERE slug LIKE 'bench-%' ORDER BY id").fetchall()
    return [str(row[0]) for row in rows]


def _requests(records: int, version_id: int, organizations: list[str], *, age_s: int) -> Iterator[RequestClosed]:
    """Closed requests as a gateway writes them, in the order of their ids."""
    chance = random.Random(1)
    price = Price(
        version_id=version_id,
        starts_at=0.0,
        input=150_000_000,
        output=600_000_000,
        cache_read=75_000_000,
        cache_write=150_000_000,
        reasoning=600_000_000,
    )
    owners = [(name, new_id("proj"), [new_id("key") for _ in range(KEYS)]) for name in organizations]
    for _ in range(records):
        organization_id, project_id, keys = chance.choice(owners)
        tokens = TokenCounts(
            input=chance.randrange(4000), cache_read=chance.randrange(400), output=chance.randrange(900)
        )
        opened = RequestOpened(
            request_id=_older("req", age_s),
            organization_id=organization_id,
            project_id=project_id,
            key_id=chance.choice(keys),
            model=MODEL,
            provider="bench",
            upstream_model="gpt-4o-mini",
            streamed=chance.random() < 0.5,
            price=price,
            input_estimate=tokens.input,
            hold_nanos=10**9,
        )
        cost = cost_nanos(tokens, price)
        yield RequestClosed(opened, Outcome.COMPLETED, 200, tokens, cost, estimated=False, duration_ms=800)


def _older(prefix: str, age_s: int) -> str:
    """An id as it would have been made so long ago."""
    fresh = new_id(prefix)
    return f"{prefix}_{created_ms(fresh) - age_s * 1000:012x}{fresh[-20:]}"


def _write(folder: Path, entries: list[RequestClosed]) -> Path:
    """A journal that its writer has left: its folder, with opened and closed entries."""
    folder.mkdir()
    journal = Journal(folder, max_bytes=JOURNAL_BYTES)
    for entry in entries:
        journal.open_request(entry.opened)
        journal.close_request(entry)
    written = journal.folder
    journal.close()
    return written


def _version(database: "psycopg.Connection[tuple[object, ...]]") -> int:
    return _number(database, "SELECT id FROM catalog_priceversion WHERE model_id = 'bench-model'")


def _number(database: "psycopg.Connection[tuple[object, ...]]", query: str) -> int:
    row = database.execute(query.encode()).fetchone()
    if row is None:
        raise BenchFailed(f"no answer: {query}")
    return int(str(row[0]))


def _wait_until(database: "psycopg.Connection[tuple[object, ...]]", query: str, wanted: int) -> float:
    """When the query had the wanted answer. Raises BenchFailed after LIMIT_S."""
    deadline = time.monotonic() + LIMIT_S
    while (found := _number(database, query)) != wanted:
        if time.monotonic() > deadline:
            raise BenchFailed(f"{found} instead of {wanted} after {LIMIT_S:.0f} s: {query}")
        time.sleep(LOOK_S)
    return time.monotonic()


if __name__ == "__main__":
    main()
