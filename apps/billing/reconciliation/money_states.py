"""The proof that Redis says of every organization's money what PostgreSQL and the journals say. Only reads.

Requests go on meanwhile, so the truth is read between two looks at Redis. A request is closed in a journal before it
is settled in Redis, and its hold goes when it is settled. Therefore, while no rebuild comes between the looks:

    second balance - cost of what is counted as closed and still held  <=  truth  <=  first balance

With nothing under way all three are equal, to the nano-dollar. What does not fit is looked at again, because a
grant drops the state only just after it was committed; what still does not fit is a difference."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
from django.conf import settings
from django.db import connection, transaction

from apps.billing.balance_cache import money_key
from apps.billing.journals import read_journals
from apps.billing.ledger import balance_nanos, credit_limit_nanos
from apps.billing.proofs import SHOWN, Proof, failed
from apps.core.errors import Unavailable
from apps.core.ids import utc_day
from apps.core.redis import single_try_client

NAME: Final = "Redis equals PostgreSQL"
LOOKS: Final = 4
PAUSE_S: Final = 0.3
SETTLED_LATELY_MS: Final = 60_000
"""A request that another machine settled is recorded by then: its journal cannot be read here."""
_PATTERN: Final = money_key("*")
_SCRIPT: Final = (Path(__file__).parent.parent / "scripts" / "inspect.lua").read_text()

_UNPOSTED = """
SELECT coalesce(sum(record.cost_nanos), 0) FROM usage_unpostedusage
JOIN usage_usagerecord record USING (day, request_id) WHERE record.organization_id = %s AND NOT record.sandbox
"""
_COSTS = """
SELECT request_id, CASE WHEN sandbox THEN 0 ELSE cost_nanos END FROM usage_usagerecord
WHERE day = ANY(%s) AND request_id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class _State:
    """What Redis holds of one organization at one moment."""

    balance: int
    credit: int
    held: int
    generation: bytes
    holds: dict[str, int]
    settled_lately: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Truth:
    """What PostgreSQL and the journals of this machine say; `costs` of the requests that Redis named."""

    balance: int
    credit: int
    costs: dict[str, int]


def prove_money_states() -> Proof:
    """Compare every organization whose money Redis knows. One that is too busy to be compared counts as right.

    Raises Unavailable when Redis is away or a journal cannot be read, django.db.Error without PostgreSQL."""
    client = single_try_client()
    try:
        run_id = client.info("server")["run_id"]
        different, compared, busy = [], 0, 0
        for owner in _owners(client):
            found = _difference(client, run_id, owner)
            compared += 1
            busy += found is None
            if found:
                different.append(f"{owner} {found}")
    except redis.RedisError as error:
        raise Unavailable("the store of money and limits is away") from error
    finally:
        client.close()
    if different:
        return failed(NAME, different[:SHOWN], len(different))
    return Proof(NAME, holds=True, detail=f"{busy} of {compared} too busy to be compared" if busy else "")


def _owners(client: "redis.Redis") -> Iterator[str]:
    """The organizations whose money is in Redis, each once."""
    seen: set[str] = set()
    for name in client.scan_iter(match=_PATTERN, count=500):
        owner = name.decode().partition("{")[2].partition("}")[0]
        if owner not in seen:
            seen.add(owner)
            yield owner


def _difference(client: "redis.Redis", run_id: str, owner: str) -> str | None:
    """What is wrong, "" for nothing, None when it cannot be said: too much happens, or elsewhere."""
    said: str | None = ""
    for look in range(LOOKS):
        if look:
            time.sleep(PAUSE_S)
        before = _look(client, run_id, owner)
        if before is None:
            return ""
        if sum(before.holds.values()) != before.held:
            return f"holds {before.held} in Redis, its requests {sum(before.holds.values())}"
        truth = _truth(owner, {*before.holds, *before.settled_lately})
        after = _look(client, run_id, owner)
        said = _compare(before, truth, after)
        if said == "":
            return ""
    return said


def _compare(before: _State, truth: _Truth, after: _State | None) -> str | None:
    if after is None or after.generation != before.generation:
        return None
    if after.credit != truth.credit:
        return f"has the credit limit {after.credit} in Redis, {truth.credit} in PostgreSQL"
    unsettled = sum(truth.costs.get(request_id, 0) for request_id in after.holds)
    if after.balance - unsettled <= truth.balance <= before.balance:
        return ""
    if (after.settled_lately | before.settled_lately) - truth.costs.keys():
        return None
    there = f"{after.balance} in Redis" + (f" ({unsettled} of it not settled yet)" if unsettled else "")
    return f"has {there}, {truth.balance} in PostgreSQL and the journals"


def _look(client: "redis.Redis", run_id: str, owner: str) -> _State | None:
    answer: list[Any] = client.eval(_SCRIPT, 1, money_key(owner), run_id, SETTLED_LATELY_MS)
    if not answer:
        return None
    balance, credit, held, generation, holds, settled = answer
    return _State(
        int(balance),
        int(credit),
        int(held),
        generation,
        {holds[at].decode(): int(holds[at + 1].partition(b"|")[0]) for at in range(0, len(holds), 2)},
        frozenset(name.decode() for name in settled),
    )


def _truth(owner: str, named: set[str]) -> _Truth:
    """The journals first: whatever leaves them meanwhile is found in PostgreSQL, and counts there."""
    closed = read_journals(Path(settings.JOURNAL_DIR), [owner])[owner].closed
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.savepoint_ids == []:  # a transaction of our own: one snapshot for all statements
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        balance = balance_nanos(owner)
        credit = credit_limit_nanos(owner)
        cursor.execute(_UNPOSTED, [owner])
        balance -= int(cursor.fetchone()[0])
        wanted = sorted({*named, *closed})
        cursor.execute(_COSTS, [sorted({utc_day(request_id) for request_id in wanted}), wanted])
        costs = {request_id: int(cost) for request_id, cost in cursor.fetchall()}
    for request_id, entry in closed.items():
        if request_id not in costs:
            balance -= entry.charged_nanos
            costs[request_id] = entry.charged_nanos
    return _Truth(balance, credit, costs)
