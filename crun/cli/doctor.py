"""`crun doctor`: examines an installation and says how to mend what is wrong."""

import os
import resource
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import click
import redis
from django.conf import settings
from django.core.checks import run_checks
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from apps.billing.invoices import printing
from apps.billing.models import EventStatus, WebhookInbox
from apps.billing.payments.stripe import is_live_key
from apps.catalog.snapshot import load_snapshot
from apps.core.errors import DomainError
from apps.core.redis import sync_client
from apps.keys.issuing import unknown_peppers
from crun.embedded import EmbeddedServerError
from crun.embedded.binaries import find_postgres, find_valkey
from crun.embedded.places import abandoned_folders
from crun.home import Home, current_home

OLDEST_POSTGRES = 140_000  # as PostgreSQL numbers itself
MAX_CLOCK_OFFSET_S = 5.0
LEAST_FREE_BYTES = 256 << 20
COMFORTABLE_FREE_BYTES = 2 << 30
FEW_DESCRIPTORS = 4096
"""A request that is served takes two: fewer than 2 000 streams at a time."""
BACKLOG_WARNING_SHARE = 0.5
MIB = 1 << 20


class Verdict(StrEnum):
    """How grave a finding is."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the examination; `mend` says what to do about it."""

    verdict: Verdict
    subject: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:<5}{self.subject:<12}{self.text}"
        return f"{line}\n{'':17}-> {self.mend}" if self.mend else line


@click.command()
def doctor() -> None:
    """Check servers, migrations, secrets, clock, catalog, journal, PDFs, descriptors and disk; say how to mend them.

    Exit code 1 when anything is FAIL.
    """
    failures = 0
    for finding in examine(current_home()):
        click.echo(str(finding))
        failures += finding.verdict is Verdict.FAIL
    if failures:
        click.echo(f"\n{failures} to mend.")
        sys.exit(1)
    click.echo("\nCRUN is well.")


def examine(home: Home) -> Iterator[Finding]:
    """All findings, in the order in which they should be mended."""
    yield from binaries()
    yield from configuration()
    yield from secrets(home)
    database = list(postgres())
    yield from database
    if all(finding.verdict is not Verdict.FAIL for finding in database):
        yield from clock()
        unapplied = list(migrations())
        yield from unapplied
        if all(finding.verdict is Verdict.OK for finding in unapplied):
            yield from peppers()
            yield from catalog()
            yield from payments()
    yield from valkey()
    yield from journal(Path(settings.JOURNAL_DIR), max_bytes=settings.JOURNAL_MAX_BYTES)
    yield from pdfs()
    yield from descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    yield from disk({home.path, Path(settings.JOURNAL_DIR), home.postgres})
    yield from left_behind()


def binaries() -> Iterator[Finding]:
    """Whether the embedded servers could be started, where they are to be used."""
    finders: list[tuple[str, Callable[[], str]]] = [
        ("DATABASE_URL", lambda: f"PostgreSQL {(found := find_postgres()).version} in {found.folder}"),
        ("REDIS_URL", lambda: f"Valkey {find_valkey()}"),
    ]
    for variable, find in finders:
        if os.environ.get(variable):
            yield Finding(Verdict.OK, "Binaries", f"not needed: {variable} is set")
            continue
        try:
            yield Finding(Verdict.OK, "Binaries", find())
        except EmbeddedServerError as error:
            yield Finding(Verdict.FAIL, "Binaries", str(error), "Install the locked packages again: make run")


def configuration() -> Iterator[Finding]:
    """Django's system checks, ours among them."""
    problems = [message for message in run_checks() if message.is_serious()]
    for problem in problems:
        yield Finding(
            Verdict.FAIL, "Settings", f"{problem.msg} ({problem.id})", problem.hint or "See docs/configuration.md"
        )
    if not problems:
        yield Finding(Verdict.OK, "Settings", "no contradictions")


def secrets(home: Home) -> Iterator[Finding]:
    """The generated secrets must be readable by their owner alone."""
    path = home.secrets_file
    if not path.exists():
        if settings.SECRET_KEY and settings.KEY_PEPPERS and settings.ENCRYPTION_KEYS:
            yield Finding(Verdict.OK, "Secrets", "from the environment")
        else:
            mend = "Run `crun up` once, or set CRUN_SECRET_KEY, CRUN_KEY_PEPPERS and CRUN_ENCRYPTION_KEYS."
            yield Finding(Verdict.FAIL, "Secrets", f"{path} does not exist", mend)
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            Verdict.FAIL,
            "Secrets",
            f"{path} has mode {mode:04o}: others may use it",
            f"chmod 600 {shlex.quote(str(path))}",
        )
    else:
        yield Finding(Verdict.OK, "Secrets", f"{path}, mode {mode:04o}")


def peppers() -> Iterator[Finding]:
    """Whether the API keys in use were made with the secrets that are here; after a restore they may not be."""
    if lost := unknown_peppers():
        mend = "Put the secrets.env of this installation back, or revoke those keys and make new ones."
        yield Finding(Verdict.FAIL, "API keys", f"made with peppers that are not here: {', '.join(sorted(lost))}", mend)


def postgres() -> Iterator[Finding]:
    """Whether the database answers, is new enough and writes durably."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version'), current_setting('server_version_num')::int")
            version, number = cursor.fetchone()
            durability = ("fsync", "synchronous_commit", "full_page_writes")
            cursor.execute("SELECT name FROM pg_settings WHERE name = ANY(%s) AND setting = 'off'", [list(durability)])
            switched_off = [name for (name,) in cursor.fetchall()]
    except OperationalError as error:
        mend = "Check DATABASE_URL and its server." if os.environ.get("DATABASE_URL") else "Start it: crun up"
        yield Finding(Verdict.FAIL, "PostgreSQL", f"does not answer: {str(error).splitlines()[0]}", mend)
        return
    if number < OLDEST_POSTGRES:
        yield Finding(Verdict.FAIL, "PostgreSQL", f"{version} is too old", "Use PostgreSQL 14 or newer.")
    else:
        yield Finding(
            Verdict.OK, "PostgreSQL", f"{version} at {connection.settings_dict['HOST'] or 'the local socket'}"
        )
    for name in switched_off:
        mend = f"ALTER SYSTEM SET {name} = 'on'; then restart PostgreSQL. Usage and money depend on it."
        yield Finding(Verdict.WARN, "PostgreSQL", f"{name} is off: a crash can lose what was committed", mend)


def clock() -> Iterator[Finding]:
    """Whether this machine and the database agree on the time: prices and days of records depend on it."""
    before = time.time()
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        (database,) = cursor.fetchone()
    offset_s = database - (before + time.time()) / 2
    if abs(offset_s) > MAX_CLOCK_OFFSET_S:
        mend = "Synchronize both machines' clocks (chrony, systemd-timesyncd)."
        yield Finding(Verdict.FAIL, "Clock", f"the database is {offset_s:+.1f} s away from this machine", mend)
    else:
        yield Finding(Verdict.OK, "Clock", f"within {abs(offset_s):.3f} s of the database")


def migrations() -> Iterator[Finding]:
    """Whether the database has the shape that this version of CRUN expects."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        first = f"{plan[0][0].app_label}.{plan[0][0].name}"
        mend = "crun up applies them; or run: python manage.py migrate"
        yield Finding(Verdict.FAIL, "Migrations", f"{len(plan)} not applied, the first is {first}", mend)
    else:
        yield Finding(Verdict.OK, "Migrations", "all applied")


def catalog() -> Iterator[Finding]:
    """Whether anything can be sold: a model with a usable route and a price in force."""
    models = load_snapshot().models.values()
    unpriced = sorted(model.id for model in models if model.price_at(time.time()) is None)
    sold = len(models) - len(unpriced)
    if sold:
        yield Finding(Verdict.OK, "Catalog", f"{sold} models can be called")
    else:
        mend = "In the console, enable a provider, give it a credential and one of its models a price."
        yield Finding(Verdict.FAIL, "Catalog", "no model has an enabled provider, a credential and a price", mend)
    if unpriced:
        listed = ", ".join(unpriced[:5]) + (", ..." if unpriced[5:] else "")
        mend = "Add a price version that has begun: without one every call is refused."
        yield Finding(Verdict.WARN, "Catalog", f"no price in force for {listed}", mend)


def payments() -> Iterator[Finding]:
    """Whether customers can pay, with which kind of money, and whether an event waits for a person."""
    if not settings.STRIPE_SECRET_KEY:
        yield Finding(Verdict.OK, "Payments", "by card: off; credit and bank transfers in the console")
        return
    mode = "live" if is_live_key(settings.STRIPE_SECRET_KEY) else "test"
    yield Finding(Verdict.OK, "Payments", f"Stripe, {mode} mode; its webhook is {settings.PUBLIC_URL}/webhooks/stripe")
    left = WebhookInbox.objects.filter(status__in=[EventStatus.REFUSED, EventStatus.GIVEN_UP]).count()
    if left:
        mend = "Look at them in the console (Incoming events); `crun payments replay EVENT` tries one again."
        yield Finding(Verdict.WARN, "Payments", f"{left} events were refused or given up", mend)


def valkey() -> Iterator[Finding]:
    """Whether Redis or Valkey answers, and never drops what it was given."""
    try:
        with sync_client() as client:
            server = client.info("server")
            policy = client.info("memory").get("maxmemory_policy", "noeviction")
    except redis.RedisError as error:
        mend = "Check REDIS_URL and its server." if os.environ.get("REDIS_URL") else "Start it: crun up"
        yield Finding(Verdict.FAIL, "Valkey", f"does not answer: {error}", mend)
        return
    name, version = (
        ("Valkey", server["valkey_version"]) if "valkey_version" in server else ("Redis", server["redis_version"])
    )
    yield Finding(Verdict.OK, "Valkey", f"{name} {version}")
    if policy != "noeviction":
        mend = "CONFIG SET maxmemory-policy noeviction, and in its configuration file."
        yield Finding(Verdict.WARN, "Valkey", f"maxmemory-policy is {policy}: holds and queued tasks may vanish", mend)


def journal(folder: Path, *, max_bytes: int) -> Iterator[Finding]:
    """Whether usage can be written down, and how much of it waits to be shipped."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        mend = f"Give {nearest} to the user of the gateway, or set CRUN_JOURNAL_DIR."
        yield Finding(Verdict.FAIL, "Journal", f"{nearest} is not writable: every request is refused", mend)
        return
    backlog = max((_size(writer) for writer in _folders(folder)), default=0)
    text = f"{folder}, at most {backlog / MIB:.1f} of {max_bytes / MIB:.0f} MiB used by a worker"
    if backlog > max_bytes * BACKLOG_WARNING_SHARE:
        mend = f"Is the Celery worker running, and PostgreSQL? See {current_home().logs}/worker.log"
        yield Finding(Verdict.WARN, "Journal", text, mend)
    else:
        yield Finding(Verdict.OK, "Journal", text)
    if damaged := sorted(folder.glob("*.damaged")):
        mend = "Keep the file: it holds usage that could not be read, for the support."
        yield Finding(Verdict.WARN, "Journal", f"{len(damaged)} damaged segments, such as {damaged[0]}", mend)


def pdfs() -> Iterator[Finding]:
    """Whether invoices and statements can be made as PDF; their pages need nothing."""
    try:
        printing.check()
    except DomainError as error:
        mend = "apt-get install libpangoft2-1.0-0 libharfbuzz-subset0 fonts-liberation, or your system's Pango."
        yield Finding(Verdict.WARN, "PDF", error.message, mend)
    else:
        yield Finding(Verdict.OK, "PDF", "invoices and statements can be made as PDF")


def descriptors(hard: int) -> Iterator[Finding]:
    """How many streams an ASGI worker can have at a time, by the hard limit of what is started from here."""
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        mend = "LimitNOFILE=65536 in the systemd unit, --ulimit nofile=65536 for a container, or limits.conf."
        yield Finding(Verdict.WARN, "Descriptors", f"at most {hard} for each process: two for each stream", mend)
    else:
        text = "as many as wanted" if hard == resource.RLIM_INFINITY else f"at most {hard} for each process"
        yield Finding(Verdict.OK, "Descriptors", text)


def disk(places: set[Path]) -> Iterator[Finding]:
    """Free space where data grows; one line a file system."""
    seen: set[int] = set()
    for place in sorted(places):
        nearest = next(path for path in (place.resolve(), *place.resolve().parents) if os.access(path, os.F_OK))
        device = nearest.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(nearest).free
        text = f"{free / MIB / 1024:.1f} GiB free at {nearest}"
        if free < COMFORTABLE_FREE_BYTES:
            verdict = Verdict.FAIL if free < LEAST_FREE_BYTES else Verdict.WARN
            yield Finding(verdict, "Disk", text, "Make room, or move CRUN_HOME to a larger disk.")
        else:
            yield Finding(Verdict.OK, "Disk", text)


def left_behind() -> Iterator[Finding]:
    """Data that PostgreSQL's user keeps outside of homes which are gone."""
    for folder in abandoned_folders():
        text = f"{folder} belongs to no home any more"
        yield Finding(Verdict.WARN, "Leftovers", text, f"When you are sure: rm -r {folder}")


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.seg"))
