"""Proofs over the whole ledger: each is one statement, so one consistent view, that looks for what breaks a rule."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from apps.billing.chain import BROKEN_LINKS, LOST_ENDS
from apps.usage.models import TOKEN_COLUMNS

CHAIN_IS_WHOLE = "the chain of hashes is whole"
CHAIN_IS_COMPLETE = "no chain of hashes lost its end"
SHOWN = 5
"""How many offenders the detail of a failed proof names."""


@dataclass(frozen=True)
class Proof:
    """Whether a rule holds, and what breaks it: the first offenders and how many there are."""

    name: str
    holds: bool
    detail: str


_UNBALANCED = """
SELECT entry.id, 'sums to ' || coalesce(sum(line.amount_nanos), 0)
FROM billing_ledgertransaction entry LEFT JOIN billing_ledgerline line ON line.transaction_id = entry.id
GROUP BY entry.id HAVING coalesce(sum(line.amount_nanos), 0) <> 0
"""
_ONE_SIDED = """
SELECT entry.id, 'has ' || count(line.id) || ' lines'
FROM billing_ledgertransaction entry LEFT JOIN billing_ledgerline line ON line.transaction_id = entry.id
GROUP BY entry.id HAVING count(line.id) < 2
"""
_TOTAL = """
SELECT 'all lines', 'sum to ' || sum(amount_nanos) FROM billing_ledgerline HAVING sum(amount_nanos) <> 0
"""
_BALANCES = """
SELECT account.organization_id, 'has ' || account.balance_nanos || ', its lines say ' || coalesce(sum(amount_nanos), 0)
FROM billing_ledgeraccount account LEFT JOIN billing_ledgerline line ON line.account_id = account.id
WHERE account.organization_id IS NOT NULL
GROUP BY account.id HAVING account.balance_nanos IS DISTINCT FROM coalesce(sum(amount_nanos), 0)
"""
_GRANTS = """
SELECT credit.id, 'rest ' || credit.remaining_nanos || ' of ' || credit.amount_nanos || ', its lines say '
    || coalesce(sum(line.amount_nanos), 0)
FROM billing_grant credit LEFT JOIN billing_ledgerline line ON line.grant_id = credit.id
GROUP BY credit.id
HAVING credit.remaining_nanos <> coalesce(sum(line.amount_nanos), 0)
    OR coalesce(sum(line.amount_nanos), 0) NOT BETWEEN 0 AND credit.amount_nanos
    OR coalesce(sum(line.amount_nanos) FILTER (
        WHERE line.transaction_id = credit.transaction_id AND line.amount_nanos > 0), 0) <> credit.amount_nanos
"""
_DEBTS = """
SELECT account.organization_id,
    'owes ' || sum(credit.remaining_nanos) - account.balance_nanos || ' beside unused credit'
FROM billing_ledgeraccount account JOIN billing_grant credit USING (organization_id)
GROUP BY account.id
HAVING sum(credit.remaining_nanos) > 0 AND sum(credit.remaining_nanos) > account.balance_nanos
"""
_REFUNDS = """
SELECT charge.id, 'was given back more than once: ' || sum(line.amount_nanos) || ' are left of the charge'
FROM billing_ledgertransaction charge
JOIN billing_ledgertransaction entry ON entry.id = charge.id OR entry.reverses_id = charge.id
JOIN billing_ledgerline line ON line.transaction_id = entry.id
JOIN billing_ledgeraccount account ON account.id = line.account_id AND account.organization_id IS NOT NULL
WHERE charge.id IN (SELECT reverses_id FROM billing_ledgertransaction WHERE reverses_id IS NOT NULL)
GROUP BY charge.id HAVING sum(line.amount_nanos) > 0
"""
_POSTED = """
usage_usagerecord record WHERE NOT EXISTS (
    SELECT FROM usage_unpostedusage waiting
    WHERE (waiting.day, waiting.request_id) = (record.day, record.request_id))
"""
_CHARGES = f"""
SELECT coalesce(used.organization_id, charged.organization_id),
    'posted usage costs ' || coalesce(used.cost, 0) || ', charged were ' || coalesce(charged.cost, 0)
FROM (SELECT organization_id, sum(cost_nanos) AS cost FROM {_POSTED} AND NOT sandbox
      GROUP BY organization_id) used
FULL JOIN (
    SELECT account.organization_id, -sum(line.amount_nanos) AS cost
    FROM billing_ledgertransaction entry
    JOIN billing_ledgerline line ON line.transaction_id = entry.id
    JOIN billing_ledgeraccount account ON account.id = line.account_id AND account.organization_id IS NOT NULL
    WHERE entry.kind = 'usage' GROUP BY account.organization_id
) charged USING (organization_id)
WHERE coalesce(used.cost, 0) <> coalesce(charged.cost, 0)
"""  # noqa: S608 - only constants of this file
_RERATED = """
SELECT key, 'corrected requests sum to ' || coalesce(said.total, 0) || ', the ledger says '
    || coalesce(written.total, 0)
FROM (SELECT 'rerate:' || rerating_id || ':' || organization_id AS key, sum(delta_nanos) AS total
      FROM billing_reratedusage GROUP BY 1) said
FULL JOIN (
    SELECT entry.idempotency_key AS key, -sum(line.amount_nanos) AS total
    FROM billing_ledgertransaction entry
    JOIN billing_ledgerline line ON line.transaction_id = entry.id
    JOIN billing_ledgeraccount account ON account.id = line.account_id
        AND account.organization_id = entry.organization_id
    WHERE entry.idempotency_key LIKE 'rerate:%' GROUP BY 1
) written USING (key)
WHERE coalesce(said.total, 0) <> coalesce(written.total, 0)
"""
_ROLLUP_KEY = "organization_id, hour, project_id, key_id, model, provider, sandbox, byok"
_SUMMED = (*TOKEN_COLUMNS, "cost_nanos", "saved_nanos")
_ROLLUP_SUMS = ("requests", "failed_requests", "estimated_requests", "cached_requests", *_SUMMED)
_ROLLUPS = f"""
SELECT organization_id, 'hour ' || to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24') || 'h, model ' || model
FROM (
    SELECT organization_id, date_trunc('hour', created_at, 'UTC') AS hour, project_id, key_id, model, provider,
        sandbox, credential_id <> '' AS byok,
        count(*) AS requests, count(*) FILTER (WHERE status = 'failed') AS failed_requests,
        count(*) FILTER (WHERE estimated) AS estimated_requests, count(cache_share_ppm) AS cached_requests,
        {", ".join(f"sum({name}) AS {name}" for name in _SUMMED)}
    FROM {_POSTED} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
) raw
FULL JOIN usage_usagerollup rollup USING ({_ROLLUP_KEY})
WHERE ({", ".join(f"raw.{name}" for name in _ROLLUP_SUMS)})
    IS DISTINCT FROM ({", ".join(f"rollup.{name}" for name in _ROLLUP_SUMS)})
"""  # noqa: S608 - only constants of this file
_UNPOSTED = """
SELECT waiting.request_id, 'waits for posting without a record'
FROM usage_unpostedusage waiting
WHERE NOT EXISTS (SELECT FROM usage_usagerecord record
                  WHERE (record.day, record.request_id) = (waiting.day, waiting.request_id))
"""

PROOFS = {
    "every transaction sums to zero": _UNBALANCED,
    "every transaction has two lines or more": _ONE_SIDED,
    "all lines together sum to zero": _TOTAL,
    "balances equal their lines": _BALANCES,
    "grants equal their lines and are never overdrawn": _GRANTS,
    "no debt stands beside unused credit": _DEBTS,
    "refunds are never more than their charge": _REFUNDS,
    "posted usage equals its charges": _CHARGES,
    "re-ratings equal the requests that they corrected": _RERATED,
    "rollups equal the posted records": _ROLLUPS,
    "what waits for posting has a record": _UNPOSTED,
    CHAIN_IS_WHOLE: BROKEN_LINKS,
    CHAIN_IS_COMPLETE: LOST_ENDS,
}
"""Rule -> the statement that finds (offender, what is wrong with it)."""


def verify() -> list[Proof]:
    """Check every rule now, in the order of PROOFS. Reads the whole ledger and all usage: for the night, not for pages.

    Safe beside running work. Raises django.db.Error when PostgreSQL is away."""
    return [prove(name, query) for name, query in PROOFS.items()]


def prove(name: str, query: str) -> Proof:
    """Run one statement that finds (offender, what is wrong with it). Raises django.db.Error."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT offence.*, count(*) OVER () FROM ({query}) offence (who, what) LIMIT {SHOWN}")  # noqa: S608 - only constants of this file
        rows = cursor.fetchall()
    if not rows:
        return Proof(name, holds=True, detail="")
    return failed(name, [f"{who} {what}" for who, what, _ in rows], rows[0][2])


def failed(name: str, offences: Sequence[str], total: int) -> Proof:
    """A proof that does not hold: the first offences, and how many there are in all."""
    shown = "; ".join(offences[:SHOWN])
    more = total - min(len(offences), SHOWN)
    return Proof(name, holds=False, detail=f"{shown}; and {more} more" if more else shown)
