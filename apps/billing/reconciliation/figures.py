"""The figures of money and its proofs that monitoring reads. Cheap: sums over the ledger are those of the last run."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from django.db import connection
from django.utils import timezone

from apps.billing.models import ReconciliationRun
from apps.core.ids import created_at
from apps.usage.journal import SEGMENT_PATTERN
from apps.usage.models import UnpostedUsage


@dataclass(frozen=True)
class MoneyFigures:
    """Ages in seconds, money in nano-USD. Ages are None before the first run, or with nothing waiting."""

    proofs: dict[str, bool] = field(default_factory=dict)
    proof_seconds: dict[str, float] = field(default_factory=dict)
    run_holds: bool | None = None
    run_age_s: float | None = None
    account_totals: dict[str, int] = field(default_factory=dict)
    wallets_total: int = 0
    debts_total: int = 0
    unposted_rows: int = 0
    oldest_unposted_s: float | None = None


_WALLETS = """
SELECT coalesce(sum(balance_nanos), 0), coalesce(-sum(balance_nanos) FILTER (WHERE balance_nanos < 0), 0)
FROM billing_ledgeraccount WHERE organization_id IS NOT NULL
"""


def read_money_figures() -> MoneyFigures:
    """The figures now. Raises django.db.Error when PostgreSQL is away."""
    run = ReconciliationRun.objects.filter(finished_at__isnull=False).order_by("-finished_at").first()
    results = list(run.results.all()) if run else []
    oldest = UnpostedUsage.objects.order_by("request_id").values_list("request_id", flat=True).first()
    with connection.cursor() as cursor:
        cursor.execute(_WALLETS)
        wallets, debts = cursor.fetchone()
    return MoneyFigures(
        proofs={result.name: result.holds for result in results},
        proof_seconds={result.name: result.seconds for result in results},
        run_holds=run.holds if run else None,
        run_age_s=(timezone.now() - run.finished_at).total_seconds() if run and run.finished_at else None,
        account_totals={kind: int(total) for kind, total in run.account_totals.items()} if run else {},
        wallets_total=int(wallets),
        debts_total=int(debts),
        unposted_rows=UnpostedUsage.objects.count(),
        oldest_unposted_s=max(0.0, time.time() - created_at(oldest).timestamp()) if oldest else None,
    )


def journal_bytes(root: Path) -> int:
    """What the journals of this machine hold, shipped or not: segments go when all that is in them was shipped."""
    return sum(_size(segment) for segment in root.glob(f"*/{SEGMENT_PATTERN}"))


def _size(segment: Path) -> int:
    try:
        return segment.stat().st_size
    except FileNotFoundError:  # just shipped
        return 0
