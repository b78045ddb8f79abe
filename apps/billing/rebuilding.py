"""Rebuilding the money state of organizations in Redis from the truth: journals, then one snapshot of PostgreSQL.

Why it is exact although requests go on meanwhile: a request moves one way only, from open to closed in a journal, to a
record, into the ledger and the rollups. The journals are read first, so every request is seen in its place or in a
later one, and a record outweighs what a journal says. What is settled in Redis from then on waits in `pending` until
`install` knows whether the snapshot contained it. Synchronous; the gateway calls it through its bridge.
"""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import redis
from django.db import connection, transaction

from apps.billing.admission import HOLD_MS, INSTALL, key_prefix, period_starts, starts_of_hour
from apps.billing.balance_cache import money_key
from apps.billing.holding import worst_cost_nanos
from apps.billing.journals import JournalView, read_journals
from apps.billing.ledger import balance_nanos
from apps.billing.models import BillingAccount
from apps.core.errors import Unavailable
from apps.core.ids import created_at, new_id, utc_day
from apps.core.redis import single_try_client
from apps.core.scripts import NEW_STORE_KEY, NEW_STORE_MS, Argument, mark_of_store
from apps.usage.contracts import RequestOpened

LONGEST_MS: Final = 5_000
"""A rebuild that takes longer is given up for dead, and the next one may begin."""
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
_RECORDED = "SELECT request_id FROM usage_usagerecord WHERE day = ANY(%s) AND request_id = ANY(%s)"


@dataclass(frozen=True, slots=True)
class _Found:
    """The money of one organization, and which requests it contains."""

    balance_nanos: int
    credit_nanos: int
    running: list[RequestOpened]
    counted: list[str]
    examined: list[str]
    spend: Counter[str]


@dataclass(frozen=True, slots=True)
class _Site:
    """One rebuild: its connection, the server it began on, and the token that says it is still wanted."""

    client: "redis.Redis"
    run_id: str
    token: str

    def step(self, owner: str, name: str, *arguments: Argument) -> Any:
        return self.client.eval(INSTALL.text, 1, money_key(owner), self.run_id, name, self.token, *arguments)


def rebuild(organization_ids: Sequence[str], journal_root: Path) -> None:
    """Make the money states of these organizations be there; those that are stay as they are.

    Raises Unavailable when Redis does not answer or the journals cannot be read, django.db.Error without PostgreSQL."""
    client = single_try_client()
    try:
        site = _Site(client, client.info("server")["run_id"], new_id("build"))
        wanted = [owner for owner in organization_ids if site.step(owner, "begin", LONGEST_MS) == 2]
        if wanted:
            _wait_for_unopened(site)
            views = read_journals(journal_root, wanted)
            for owner in wanted:
                _rebuild_one(site, owner, views[owner])
        _wait_for_others(client, set(organization_ids) - set(wanted))
    except redis.RedisError as error:
        log.warning("a rebuild was broken off: %s", error)
        raise Unavailable("the store of money and limits is away") from error
    finally:
        client.close()


@transaction.atomic
def _rebuild_one(site: _Site, owner: str, view: JournalView) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    found = _find(site.client, owner, view)
    content = orjson.dumps(
        {
            "open": [[entry.request_id, _packed(entry)] for entry in found.running],
            "counted": found.counted,
            "examined": found.examined,
            "spend": {field: str(nanos) for field, nanos in found.spend.items()},
        }
    )
    answer = site.step(owner, "install", found.balance_nanos, found.credit_nanos, HOLD_MS, content)
    if answer[0] != 1:
        log.info("the money changed while it was rebuilt", extra={"organization": owner})
        return
    if twice := sorted(_recorded(request_id.decode() for request_id in answer[1:])):
        site.step(owner, "correct", orjson.dumps(twice))


def _find(client: redis.Redis, owner: str, view: JournalView) -> _Found:
    """Read the truth. The first statement fixes the snapshot; what Redis remembers is read after it."""
    balance = balance_nanos(owner) - _unposted_nanos(owner)
    credit = BillingAccount.objects.filter(organization_id=owner).values_list("credit_limit_nanos", flat=True).first()
    spend = _spend(owner)
    prefix = key_prefix(owner)
    remembered = {name.decode() for name in client.hkeys(f"{prefix}pending")}  # type: ignore[union-attr]  # sync here
    held = {name.decode() for name in client.hkeys(f"{prefix}holds")}  # type: ignore[union-attr]  # sync here
    recorded = _recorded({*remembered, *held, *view.opened, *view.closed})
    for request_id, entry in view.closed.items():
        if request_id not in recorded:
            balance -= entry.charged_nanos
            _add(spend, entry.opened, entry.charged_nanos)
    lately = time.time() - SETTLED_LATELY_S
    counted = {
        request_id
        for request_id in recorded | view.closed.keys()
        if request_id in remembered
        or request_id in held
        or request_id not in recorded
        or created_at(request_id).timestamp() > lately
    }
    return _Found(
        balance_nanos=balance,
        credit_nanos=credit or 0,
        running=[entry for request_id, entry in view.opened.items() if request_id not in recorded],
        counted=sorted(counted),
        examined=sorted(remembered),
        spend=spend,
    )


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
    return spend


def _end(period: str, start: int) -> int:
    """The first second after a period: 32 days are in the next month, 8 in the next week, of every start."""
    beyond = {"day": 1, "week": 8, "month": 32}[period] * 86_400
    return starts_of_hour((start + beyond) // 3600)[("day", "week", "month").index(period)]


def _add(spend: Counter[str], opened: RequestOpened, nanos: int) -> None:
    day, week, month = period_starts(opened.request_id)
    for name in (f"k:{opened.key_id}", f"p:{opened.project_id}", "o"):
        for field in (f"day|{day}", f"week|{week}", f"month|{month}", "lifetime|0"):
            spend[f"{name}|{field}"] += nanos


def _recorded(request_ids: Iterable[str]) -> set[str]:
    """Those of the requests that have a record."""
    wanted = list(request_ids)
    if not wanted:
        return set()
    days = sorted({utc_day(request_id) for request_id in wanted})
    with connection.cursor() as cursor:
        cursor.execute(_RECORDED, [days, wanted])
        return {request_id for (request_id,) in cursor.fetchall()}


def _packed(opened: RequestOpened) -> str:
    """A hold as the scripts write it. One that an older version opened holds the price of a generous guess."""
    nanos = 0 if opened.sandbox else opened.hold_nanos
    if nanos is None:
        nanos = worst_cost_nanos(opened.input_estimate, opened.input_estimate, opened.price)
    return f"{nanos}|0|0||{opened.key_id}|{opened.project_id}"


def _wait_for_unopened(site: _Site) -> None:
    """A store that was just emptied has forgotten holds whose `open` may not be written yet: wait until it is."""
    site.client.execute_command(*mark_of_store(site.run_id))  # type: ignore[no-untyped-call]  # redis-py
    left_ms = site.client.pttl(NEW_STORE_KEY.format(run_id=site.run_id))
    age_s = (NEW_STORE_MS - left_ms) / 1000
    if age_s < 2 * UNOPENED_S:
        time.sleep(1.2 * UNOPENED_S)


def _wait_for_others(client: redis.Redis, organization_ids: Collection[str]) -> None:
    """Return when the states that somebody else rebuilds are there, or after a second: who asks will see."""
    deadline = time.monotonic() + 1.0
    waiting = set(organization_ids)
    while waiting and time.monotonic() < deadline:
        waiting = {owner for owner in waiting if not client.hexists(money_key(owner), "balance")}
        if waiting:
            time.sleep(0.01)
