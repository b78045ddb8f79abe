"""`GET /metrics`: figures of money and its proofs for Prometheus. Only with the token, or from this very machine.

Numbers of an installation are nobody else's business, so whoever may not see them finds no such page."""

import hmac
import ipaddress
import logging
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db import Error
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from apps.billing.reconciliation.figures import MoneyFigures, journal_bytes, read_money_figures
from apps.core.money import NANOS_PER_USD
from apps.core.worker_states import WorkerState, read_worker_states

PROXY_HEADERS = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
_WORKER_GAUGES = (
    ("crun_worker_shedding", "shedding", "0: nobody is sent away; 1: low priority; 2: ordinary requests too; 3: all."),
    ("crun_worker_shed_requests", "refused", "Requests that a worker has sent away for its load since it began."),
    ("crun_worker_waiting", "waiting", "Requests that wait at the doorway of a worker."),
    ("crun_worker_busy", "busy", "The share of a processor that the event loop of a worker uses."),
    ("crun_worker_late_seconds", "late_s", "How late a worker is for whoever has one request."),
)
log = logging.getLogger(__name__)


@require_GET
def metrics(request: HttpRequest) -> HttpResponse:
    """The figures in Prometheus' text format. PostgreSQL away: those that need it are missing, `crun_database_up` is 0.

    Raises Http404 for whoever may not see them."""
    if not _may_see(request):
        raise Http404
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MoneyCollector())
    answer = HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _may_see(request: HttpRequest) -> bool:
    """With a token set, who shows it. Without one, who calls this machine from itself, with no proxy in between."""
    if settings.METRICS_TOKEN:
        shown = request.headers.get("Authorization", "").encode("utf-8", "replace")
        return hmac.compare_digest(shown, f"Bearer {settings.METRICS_TOKEN}".encode())
    if any(name in request.headers for name in PROXY_HEADERS):
        return False
    return _is_loopback(request.META.get("REMOTE_ADDR", "")) and _is_loopback(_host_name(request))


def _host_name(request: HttpRequest) -> str:
    host = request.headers.get("Host", "")
    return host.rpartition(":")[0].strip("[]") if not host.endswith("]") and ":" in host else host.strip("[]")


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class MoneyCollector(Collector):
    """Reads everything when it is asked."""

    def collect(self) -> Iterator[Metric]:
        """All metrics. Money is in USD, as a float: nothing is computed from it."""
        backlog = journal_bytes(Path(settings.JOURNAL_DIR))
        yield _gauge("crun_journal_bytes", "Bytes in the usage journals of this machine.", backlog)
        yield from _workers(read_worker_states())
        try:
            figures = read_money_figures()
        except Error as error:
            log.warning("metrics without the database: %s", error)
            yield _gauge("crun_database_up", "Whether PostgreSQL answers.", 0)
            return
        yield _gauge("crun_database_up", "Whether PostgreSQL answers.", 1)
        yield from _proofs(figures)
        yield _gauge("crun_usage_unposted_rows", "Usage records that wait for posting.", figures.unposted_rows)
        yield _gauge(
            "crun_usage_oldest_unposted_seconds",
            "Age of the oldest record that waits for posting; 0 when none does.",
            figures.oldest_unposted_s or 0,
        )
        yield _gauge("crun_wallets_usd", "Sum of all wallets, debts included.", figures.wallets_total / NANOS_PER_USD)
        yield _gauge("crun_wallet_debts_usd", "Sum of the wallets below zero.", figures.debts_total / NANOS_PER_USD)


def _workers(states: dict[str, WorkerState]) -> Iterator[Metric]:
    for name, field, explanation in _WORKER_GAUGES:
        gauge = GaugeMetricFamily(name, explanation, labels=["worker"])
        for worker, state in states.items():
            gauge.add_metric([worker], getattr(state, field))
        yield gauge
    unstored = GaugeMetricFamily(
        "crun_worker_responses_not_stored",
        "Answers of /responses that a worker could not store since it began.",
        labels=["worker", "reason"],
    )
    for worker, state in states.items():
        for reason, count in state.not_stored.items():
            unstored.add_metric([worker, reason], count)
    yield unstored


def _proofs(figures: MoneyFigures) -> Iterator[Metric]:
    holds = GaugeMetricFamily("crun_proof_holds", "Whether a proof held in the last run.", labels=["proof"])
    took = GaugeMetricFamily("crun_proof_seconds", "How long a proof took in the last run.", labels=["proof"])
    totals = GaugeMetricFamily(
        "crun_ledger_usd", "Sum of all ledger lines by kind of account, in the last run.", labels=["account"]
    )
    for name, is_true in figures.proofs.items():
        holds.add_metric([name], float(is_true))
        took.add_metric([name], figures.proof_seconds[name])
    for kind, total in figures.account_totals.items():
        totals.add_metric([kind], total / NANOS_PER_USD)
    yield from (holds, took, totals)
    if figures.run_age_s is not None:
        yield _gauge("crun_reconciliation_age_seconds", "Time since the last run of all proofs.", figures.run_age_s)
        yield _gauge("crun_reconciliation_holds", "Whether all proofs held.", float(bool(figures.run_holds)))


def _gauge(name: str, explanation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, explanation, value=value)
