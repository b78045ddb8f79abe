"""One run of all proofs: kept with its results, and told to the operator when something does not hold."""

import logging
import time
from collections.abc import Callable
from functools import partial

from django.db import connection, transaction
from django.utils import timezone

from apps.billing.alerts.raising import raise_alert
from apps.billing.chain import ChainEnd, read_ends, remember_ends
from apps.billing.models import AlertKind, ProofResult, ReconciliationRun, RunCause
from apps.billing.models.reconciliation import DETAIL_LENGTH
from apps.billing.proofs import CHAIN_IS_COMPLETE, CHAIN_IS_WHOLE, PROOFS, Proof, prove
from apps.billing.reconciliation import partitions
from apps.billing.reconciliation.money_states import NAME as REDIS_PROOF
from apps.billing.reconciliation.money_states import prove_money_states
from apps.core.errors import Unavailable

_TOTALS = """
SELECT account.kind, coalesce(sum(line.amount_nanos), 0)::text
FROM billing_ledgeraccount account LEFT JOIN billing_ledgerline line ON line.account_id = account.id
GROUP BY account.kind
"""
log = logging.getLogger(__name__)


def all_proofs() -> dict[str, Callable[[], Proof]]:
    """Every proof by its name, in the order in which they are run."""
    statements = {**PROOFS, **partitions.PROOFS}
    return {name: partial(prove, name, query) for name, query in statements.items()} | {REDIS_PROOF: _prove_redis}


def reconcile(cause: RunCause, *, actor: str) -> ReconciliationRun:
    """Run all proofs now and keep what they found. Each that fails is an error in the log; all of them, one alert.

    Safe beside traffic and beside another run. Reads the whole ledger and all usage. Raises django.db.Error when
    PostgreSQL is away; then the run stays without an end."""
    return _run(ReconciliationRun.objects.create(cause=cause, actor=actor, started_at=timezone.now()))


def ask_for_run(actor: str) -> ReconciliationRun:
    """Leave the wish for a run where the worker finds it, within seconds; returns the run to come."""
    return ReconciliationRun.objects.create(cause=RunCause.CONSOLE, actor=actor)


def run_asked() -> int:
    """Do the runs that somebody asked for, each once however many workers there are; returns how many."""
    done = 0
    while run := _claim():
        _run(run)
        done += 1
    return done


@transaction.atomic
def _claim() -> ReconciliationRun | None:
    waiting = ReconciliationRun.objects.select_for_update(skip_locked=True).filter(started_at=None)
    run: ReconciliationRun | None = waiting.order_by("id").first()
    if run is not None:
        run.started_at = timezone.now()
        run.save(update_fields=["started_at"])
    return run


def _run(run: ReconciliationRun) -> ReconciliationRun:
    results = []
    ends = read_ends()  # before the proofs: what is written while they run was not proven
    for place, (name, proof) in enumerate(all_proofs().items()):
        began = time.monotonic()
        found = proof()
        seconds = round(time.monotonic() - began, 3)
        detail = found.detail[:DETAIL_LENGTH]
        results.append(ProofResult(run=run, place=place, name=name, holds=found.holds, detail=detail, seconds=seconds))
        if not found.holds:
            log.error("ledger proof failed: %s", name, extra={"detail": detail, "run": run.id})
    with connection.cursor() as cursor:
        cursor.execute(_TOTALS)
        run.account_totals = dict(cursor.fetchall())
    _keep(run, results, ends)
    return run


@transaction.atomic
def _keep(run: ReconciliationRun, results: list[ProofResult], ends: list[ChainEnd]) -> None:
    broken = [result for result in results if not result.holds]
    run.holds, run.finished_at = not broken, timezone.now()
    run.save(update_fields=["holds", "finished_at", "account_totals"])
    ProofResult.objects.bulk_create(results)
    if not {result.name for result in broken} & {CHAIN_IS_WHOLE, CHAIN_IS_COMPLETE}:
        remember_ends(ends)
    if broken:
        raise_alert(
            None,
            AlertKind.LEDGER_PROOF_FAILED,
            key=f"ledger.proof_failed:{run.id}",
            subject=f"{len(broken)} of {len(results)} proofs of the books failed",
            text="; ".join(f"{result.name}: {result.detail}" for result in broken),
            details={"run": run.id, "proofs": [result.name for result in broken]},
        )


def _prove_redis() -> Proof:
    """A store that is away has nothing that could be wrong; what it forgot is rebuilt before it is used."""
    try:
        return prove_money_states()
    except Unavailable as error:
        return Proof(REDIS_PROOF, holds=True, detail=f"not compared: {error.message}")
