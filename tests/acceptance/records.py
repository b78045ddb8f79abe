"""Usage as PostgreSQL has it, waited for and compared with what it must be."""

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import psycopg

from crun.sandbox.truth import TruthEntry
from tests.acceptance.installing import Installation
from tests.acceptance.upstream import PRICE, PROVIDER

MILLION = Decimal(1_000_000)
NANO = Decimal("0.000000001")
TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
ROLLED_UP = ("organization_id", "project_id", "key_id", "model", "provider")


@dataclass(frozen=True)
class Record:
    """One row of the usage records."""

    row: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.row[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def prompt_tokens(self) -> int:
        return int(self.input_tokens + self.cache_read_tokens + self.cache_write_tokens)

    @property
    def completion_tokens(self) -> int:
        return int(self.output_tokens + self.reasoning_tokens)


def records_since(installation: Installation, mark: str, *, provider: str = PROVIDER) -> dict[str, Record]:
    """Records of requests with an id above `mark` that went to `provider`, whoever sent them.

    Read without the primary key's help, so that a double would be seen; it fails here."""
    with installation.database() as database:
        rows = database.execute(
            "SELECT * FROM usage_usagerecord WHERE request_id > %s AND provider = %s", [mark, provider]
        ).fetchall()
    assert len({row["request_id"] for row in rows}) == len(rows), "a request has two records"
    return {str(row["request_id"]): Record(row) for row in rows}


def settled_records(
    installation: Installation, mark: str, wanted: Collection[str], *, limit_s: float = 60.0
) -> dict[str, Record]:
    """`records_since`, once all `wanted` request ids are among them and all of them are in the rollups."""
    deadline = time.monotonic() + limit_s
    missing: Collection[str] = wanted
    while time.monotonic() < deadline:
        with suppress(psycopg.OperationalError):  # it may have been away, and is coming back
            found = records_since(installation, mark)
            missing = set(wanted) - found.keys()
            if not missing and not unposted(installation):
                return found
        time.sleep(0.1)
    raise AssertionError(f"{len(missing)} of {len(wanted)} records are missing after {limit_s} s, or not posted")


def unposted(installation: Installation) -> int:
    """Records that wait for the rollups."""
    with installation.database() as database:
        row = database.execute("SELECT count(*) AS waiting FROM usage_unpostedusage").fetchone()
    assert row is not None
    return int(str(row["waiting"]))


def cost_usd(record: Record, price: Mapping[str, Decimal] = PRICE) -> Decimal:
    """What the record must cost by the price, calculated on its own: decimals, one rounding, half to even."""
    exact = (
        record.input_tokens * price["input"]
        + record.cache_read_tokens * price.get("cache_read", price["input"])
        + record.cache_write_tokens * price.get("cache_write", price["input"])
        + record.output_tokens * price["output"]
        + record.reasoning_tokens * price.get("reasoning", price["output"])
    ) / MILLION
    return exact.quantize(NANO, rounding=ROUND_HALF_EVEN)


def nanos(amount: Decimal) -> int:
    """An amount in USD as integer nano-USD; it must be one."""
    scaled = amount / NANO
    assert scaled == scaled.to_integral_value()
    return int(scaled)


def difference(record: Record, told: TruthEntry) -> dict[str, tuple[Any, Any]]:
    """Where the record of a completed request differs from what its upstream did: field -> (record, truth)."""
    cost = nanos(cost_usd(record))
    pairs = {
        "status": (record.status, "completed" if told.outcome == "complete" else told.outcome),
        "upstream_model": (record.upstream_model, told.model),
        "streamed": (record.streamed, told.stream),
        "prompt_tokens": (record.prompt_tokens, told.prompt_tokens),
        "completion_tokens": (record.completion_tokens, told.completion_tokens),
        "cached_tokens": (record.cache_read_tokens, told.cached_tokens),
        "reasoning_tokens": (record.reasoning_tokens, told.reasoning_tokens),
        "estimated": (record.estimated, False),
        "http_status": (record.http_status, 200),
        "cost_nanos": (record.cost_nanos, cost),
        "attempts": (1, told.attempts),
    }
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def rollup_differences(installation: Installation) -> list[tuple[Any, ...]]:
    """Rows in which the rollups of the whole installation are not the sums of its records; none is right."""
    sums = ", ".join(f"sum({name})::bigint" for name in (*TOKENS, "cost_nanos"))
    keys = ", ".join(ROLLED_UP)
    by_hand = (
        f"SELECT {keys}, date_trunc('hour', created_at, 'UTC'), count(*)::bigint,"  # noqa: S608 - constants
        " count(*) FILTER (WHERE status = 'failed')::bigint, count(*) FILTER (WHERE estimated)::bigint,"
        f" {sums} FROM usage_usagerecord GROUP BY {keys}, date_trunc('hour', created_at, 'UTC')"
    )
    stored = (
        f"SELECT {keys}, hour, requests, failed_requests, estimated_requests,"  # noqa: S608 - constants
        f" {', '.join((*TOKENS, 'cost_nanos'))} FROM usage_usagerollup"
    )
    with installation.database() as database:
        rows = database.execute(
            f"(({by_hand}) EXCEPT ALL ({stored})) UNION ALL (({stored}) EXCEPT ALL ({by_hand}))"
        ).fetchall()
    return [tuple(row.values()) for row in rows]


def rolled_up_nanos(installation: Installation, key_id: str) -> int:
    """What a key has cost in all by the rollups."""
    with installation.database() as database:
        row = database.execute(
            "SELECT sum(cost_nanos)::bigint AS nanos FROM usage_usagerollup WHERE key_id = %s", [key_id]
        ).fetchone()
    assert row is not None
    return int(str(row["nanos"]))
