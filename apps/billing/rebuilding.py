"""Rebuilding the money state of organizations in Redis from the truth: journals, then one snapshot of PostgreSQL.

Why it is exact although requests go on meanwhile: a request moves one way only, from open to closed in a journal, to
settled in Redis, to a record, into the ledger and the rollups. (One whose process died is settled after its record.)
The places are read in the order settled, journals, snapshot, and a record outweighs what the others say: so every
request is seen in its place or in a later one. Settled requests of other machines, whose journals cannot be read here,
stand in `unrecorded` until they have records. What is settled after the rebuild began waits in `pending` until
`install` knows whether the snapshot contained it. Synchronous; the gateway calls it through its bridge.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import redis
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from apps.billing.admission import HOLD_MS, INSTALL, key_prefix, packed_cost, starts_of_hour
from apps.billing.balance_cache import money_key
from apps.billing.holding import worst_cost_nanos
from apps.billing.journals import JournalView, read_journals, site_of
from apps.billing.ledger import balance_nanos
from apps.billing.models import BillingAccount
from apps.billing.unrecorded import add_packed, read_unrecorded, recorded_among
from apps.core.errors import Unavailable
from apps.core.ids import created_at, new_id
from apps.core.redis import single_try_client
from apps.core.scripts import NEW_STORE_KEY, NEW_STORE_MS, Argument, mark_of_store
from apps.usage.contracts import RequestOpened

LONGEST_MS: Final = 5_000
"""A rebuild that gives no sign for so long is given up for dead, and the next one may begin."""
LONGEST_S: Final = 120
"""So long a rebuild may give signs."""
GOOD_FOR_MS: Final = 86_400_000
"""After a day the money is counted again: the sums of periods that have ended go, and so would any mistake."""
MARGIN_S: Final = 120
"""So much longer than its upstream may take a request is taken to run on a machine that was cut off."""
PART: Final = 2_000
UNOPENED_S: Final = 0.5
"""So long after its admission a request may still write its `open`; later ones are given up (apps/gateway)."""
SETTLED_LATELY_S: Final = 120
EDGE_S: Final = 3600
"""Around the border of a period both are counted: requests of the old one are still being admitted."""
log = logging.getLogger(__name__)

_SUMS = """
SELECT key_id, project_id, {sums} FROM (
    SELECT key_id, project_id, hour AS moment, cost_nanos FROM usage_usagerollup
    WHERE organization_id = %(owner)s AND NOT sandbox
    UNION ALL
    SELECT record.key_id, record.project_id, record.created_at, record.cost_nanos
    FROM usage_unpostedusage JOIN usage_usagerecord record USING (day, request_id)
    WHERE record.organization_id = %(owner)s AND NOT record.sandbox
) spent GROUP BY key_id, project_id
"""
_UNPOSTED = """
SELECT coalesce(sum(record.cost_nanos), 0) FROM usage_unpostedusage
JOIN usage_usagerecord record USING (day, request_id)
WHERE record.organization_id = %s AND NOT record.sandbox
"""
_CORRECTED = "SELECT coalesce(sum(delta_nanos), 0) FROM billing_reratedusage WHERE organization_id = %s"


class RebuildFailed(Unavailable):
    """Some organizations could not be rebuilt, for reasons of their own."""

    def __init__(self, owners: Collection[str]) -> None:
        super().__init__("the money of your organization cannot be counted right now")
        self.owners = frozenset(owners)


@dataclass(frozen=True, slots=True)
class _Found:
    """The money of one organization, and which requests it contains."""

    balance_nanos: int
    credit_nanos: int
    running: list[RequestOpened]
    recorded: list[str]
    """Requests in the balance by their records, of which Redis may not know that they have ended."""
    closed: list[tuple[str, str]]
    """The same by what a journal says, with their packed costs."""
    lost: list[str]
    kept: list[tuple[str, int]]
    """Holds that expired and that another machine may still know, with the moment (ms) when they are lost."""
    examined: list[str]
    spend: Counter[str]


@dataclass(frozen=True, slots=True)
class _Site:
    """One rebuild: its connection, the server it began on, the token that says it is still wanted, and the site of the
    journals that it can read."""

    client: "redis.Redis"
    run_id: str
    token: str
    journals: str

    def step(self, owner: str, name: str, *arguments: Argument) -> Any:
        return self.client.eval(INSTALL.text, 1, money_key(owner), self.run_id, name, self.token, *arguments)


def rebuild(organization_ids: Sequence[str], journal_root: Path) -> None:
    """Make the money states of these organizations be there; those that are stay as they are.

    Raises Unavailable when Redis does not answer or the journals cannot be read, RebuildFailed when only some of the
    organizations cannot be rebuilt, django.db.Error without PostgreSQL."""
    client = single_try_client()
    try:
        site = _Site(client, client.info("server")["run_id"], new_id("build"), site_of(journal_root))
        wanted = [owner for owner in organization_ids if site.step(owner, "begin", LONGEST_MS) == 2]
        if wanted:
            _wait_for_unopened(site)
            with _going_on(site, wanted):
                _rebuild_all(site, wanted, journal_root)
        _wait_for_others(client, set(organization_ids) - set(wanted))
    except redis.RedisError as error:
        log.warning("a rebuild was broken off: %s", error)
        raise Unavailable("the store of money and limits is away") from error
    finally:
        client.close()


def _rebuild_all(site: _Site, owners: Sequence[str], journal_root: Path) -> None:
    unrecorded = {owner: read_unrecorded(site.client, owner) for owner in owners}
    views = read_journals(journal_root, owners)
    failed = []
    for owner in owners:
        try:
            _rebuild_one(site, owner, views[owner], unrecorded=unrecorded[owner])
        except (redis.RedisError, OperationalError, InterfaceError):
            raise
        except Exception:  # whatever one organization's rows bring about, the others' money is still counted
            log.exception("the money of an organization cannot be rebuilt", extra={"organization": owner})
            failed.append(owner)
    if failed:
        raise RebuildFailed(failed)


@transaction.atomic
def _rebuild_one(site: _Site, owner: str, view: JournalView, *, unrecorded: dict[str, str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    found = _find(site, owner, view, unrecorded)
    _tell_what_ended(site, owner, found)
    content = orjson.dumps(
        {
            "open": [[entry.request_id, _packed(entry, site.journals)] for entry in found.running],
            "kept": found.kept,
            "examined": found.examined,
            "spend": {field: str(nanos) for field, nanos in found.spend.items()},
        }
    )
    answer = site.step(owner, "install", found.balance_nanos, found.credit_nanos, HOLD_MS, content, GOOD_FOR_MS)
    if answer[0] != 1:
        log.info("the money changed while it was rebuilt", extra={"organization": owner})
        return
    if twice := sorted(recorded_among(request_id.decode() for request_id in answer[1:])):
        site.step(owner, "correct", orjson.dumps(twice))


def _tell_what_ended(site: _Site, owner: str, found: _Found) -> None:
    """In parts, because the store serves nobody else during one."""
    lists: dict[str, Sequence[object]] = {"recorded": found.recorded, "closed": found.closed, "lost": found.lost}
    nothing: dict[str, Sequence[object]] = dict.fromkeys(lists, ())
    for name, entries in lists.items():
        for at in range(0, len(entries), PART):
            site.step(owner, "ended", orjson.dumps(nothing | {name: entries[at : at + PART]}))


def _find(site: _Site, owner: str, view: JournalView, unrecorded: dict[str, str]) -> _Found:
    """Read the truth. The first statement fixes the snapshot; what Redis holds and has pending is read after it."""
    balance = balance_nanos(owner) - _unposted_nanos(owner)
    credit = BillingAccount.objects.filter(organization_id=owner).values_list("credit_limit_nanos", flat=True).first()
    spend = _spend(owner)
    client: Any = site.client
    prefix = key_prefix(owner)
    remembered = {name.decode() for name in client.hkeys(f"{prefix}pending")}
    held = {name.decode() for name in client.hkeys(f"{prefix}holds")}
    recorded = recorded_among({*remembered, *held, *view.opened, *view.closed, *unrecorded})
    closed = {name: packed_cost(entry) for name, entry in view.closed.items() if name not in recorded}
    elsewhere = unrecorded.keys() - recorded - closed.keys() - remembered
    for packed in (*closed.values(), *(unrecorded[name] for name in elsewhere)):
        if packed:
            balance -= add_packed(spend, packed)
    lately = time.time() - SETTLED_LATELY_S
    told = unrecorded.keys() - remembered - held
    known = {*recorded, *closed, *view.opened}
    lost, kept = _expired(site, prefix, known)
    return _Found(
        balance_nanos=balance,
        credit_nanos=credit or 0,
        running=[entry for request_id, entry in view.opened.items() if request_id not in recorded],
        recorded=sorted(
            name
            for name in recorded
            if name in remembered or name in held or name in unrecorded or created_at(name).timestamp() > lately
        ),
        closed=sorted((name, packed) for name, packed in closed.items() if name not in told),
        lost=lost,
        kept=kept,
        examined=sorted(remembered),
        spend=spend,
    )


def _expired(site: _Site, prefix: str, known: Collection[str]) -> tuple[list[str], list[tuple[str, int]]]:
    """Holds that nobody renewed and of which nothing is known: those that are lost, and those that another machine may
    still know, with the moment (ms) until which a request can run."""
    client: Any = site.client
    seconds, micros = client.time()
    now_ms = seconds * 1000 + micros // 1000
    names = [name.decode() for name in client.zrangebyscore(f"{prefix}expiry", "-inf", now_ms)]
    unknown = [name for name in names if name not in known]
    lost, kept = [], []
    for name, packed in zip(unknown, client.hmget(f"{prefix}holds", unknown) if unknown else (), strict=True):
        until_ms = int((created_at(name).timestamp() + settings.UPSTREAM_TOTAL_TIMEOUT_S + MARGIN_S) * 1000)
        is_ours = packed is None or _site_of_hold(packed.decode()) in ("", site.journals)
        if is_ours or until_ms <= now_ms:
            lost.append(name)
        else:
            kept.append((name, until_ms))
    return lost, kept


def _site_of_hold(packed: str) -> str:
    """The last of its eight parts; holds of older versions have fewer."""
    parts = packed.split("|")
    return parts[7] if len(parts) > 7 else ""


def _unposted_nanos(owner: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_UNPOSTED, [owner])
        return int(cursor.fetchone()[0])


def _spend(owner: str) -> Counter[str]:
    """What keys, projects and the organization spent in each period around now, by the field of the spend hash."""
    now = time.time()
    names = sorted(
        {
            (period, start)
            for moment in (now - EDGE_S, now, now + EDGE_S)
            for period, start in zip(("day", "week", "month"), starts_of_hour(int(moment) // 3600), strict=True)
        }
    )
    windows = [(period, start, _end(period, start)) for period, start in names]
    sums = ["coalesce(sum(cost_nanos), 0)"]
    values: dict[str, Any] = {"owner": owner}
    for number, (_, start, end) in enumerate(windows):
        sums.append(
            f"coalesce(sum(cost_nanos) FILTER (WHERE moment >= %(from{number})s AND moment < %(to{number})s), 0)"
        )
        values |= {f"from{number}": datetime.fromtimestamp(start, UTC), f"to{number}": datetime.fromtimestamp(end, UTC)}
    spend: Counter[str] = Counter()
    fields = [("lifetime", 0), *names]
    with connection.cursor() as cursor:
        cursor.execute(_SUMS.format(sums=", ".join(sums)), values)
        for key, project, *amounts in cursor.fetchall():
            for (period, start), nanos in zip(fields, amounts, strict=True):
                for name in (f"k:{key}", f"p:{project}", "o"):
                    spend[f"{name}|{period}|{start}"] += int(nanos)
        cursor.execute(_CORRECTED, [owner])
        spend["o|corrected"] = int(cursor.fetchone()[0])  # apart: budgets count what was recorded
    return spend


def _end(period: str, start: int) -> int:
    """The first second after a period: 32 days are in the next month, 8 in the next week, of every start."""
    beyond = {"day": 1, "week": 8, "month": 32}[period] * 86_400
    return starts_of_hour((start + beyond) // 3600)[("day", "week", "month").index(period)]


def _packed(opened: RequestOpened, site: str) -> str:
    """A hold as the scripts write it. One that an older version opened holds the price of a generous guess."""
    nanos = 0 if opened.sandbox else opened.hold_nanos
    if nanos is None:
        nanos = worst_cost_nanos(opened.input_estimate, opened.input_estimate, opened.price)
    return f"{nanos}|0|0||{opened.key_id}|{opened.project_id}||{site}"


def _wait_for_unopened(site: _Site) -> None:
    """A store that was just emptied has forgotten holds whose `open` may not be written yet: wait until it is."""
    site.client.execute_command(*mark_of_store(site.run_id))  # type: ignore[no-untyped-call]  # redis-py gives it no types
    left_ms = site.client.pttl(NEW_STORE_KEY.format(run_id=site.run_id))
    age_s = (NEW_STORE_MS - left_ms) / 1000
    if age_s < 2 * UNOPENED_S:
        time.sleep(1.2 * UNOPENED_S)


@contextmanager
def _going_on(site: _Site, owners: Sequence[str]) -> Iterator[None]:
    """Give signs that the rebuild of these organizations is under way, from a thread: a statement may take long."""
    is_done = threading.Event()

    def give_signs() -> None:
        client = single_try_client()
        until = time.monotonic() + LONGEST_S
        with suppress(redis.RedisError), closing(client):
            while not is_done.wait(LONGEST_MS / 4000) and time.monotonic() < until:
                for owner in owners:
                    replace(site, client=client).step(owner, "go_on", LONGEST_MS)

    thread = threading.Thread(target=give_signs, name="rebuild goes on", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _wait_for_others(client: redis.Redis, organization_ids: Collection[str]) -> None:
    """Return when the states that somebody else rebuilds are there, or after a second: who asks will see."""
    deadline = time.monotonic() + 1.0
    waiting = set(organization_ids)
    while waiting and time.monotonic() < deadline:
        waiting = {owner for owner in waiting if not client.hexists(money_key(owner), "balance")}
        if waiting:
            time.sleep(0.01)
