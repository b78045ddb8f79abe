"""`/metrics`: what Prometheus finds there, and who finds nothing."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from apps.api import metrics
from apps.billing.models import ReconciliationRun, RunCause
from apps.billing.reconciliation.running import all_proofs, reconcile
from apps.core.redis import single_try_client
from apps.core.worker_states import KEY, WorkerState
from apps.usage.journal import Journal
from apps.usage.models import UnpostedUsage
from apps.usage.partitions import ensure_upcoming_partitions
from apps.usage.recording import record
from tests import factories
from tests.billing import books
from tests.billing.test_proofs import tamper

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("empty_store")]
HERE = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8000"}


def read(**request: Any) -> dict[tuple[str, ...], float]:
    """Name and label values -> value."""
    answer = Client().get("/metrics", **(HERE | request))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.content.decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_a_new_installation_has_figures_without_a_run(settings: Any, tmp_path: Path) -> None:
    settings.JOURNAL_DIR = tmp_path
    found = read()
    assert found[("crun_database_up",)] == 1
    assert found[("crun_usage_unposted_rows",)] == found[("crun_usage_oldest_unposted_seconds",)] == 0
    assert found[("crun_journal_bytes",)] == 0
    assert ("crun_reconciliation_age_seconds",) not in found


def test_proofs_totals_and_backlog_are_told(settings: Any, tmp_path: Path) -> None:
    settings.JOURNAL_DIR = tmp_path
    ensure_upcoming_partitions()
    owner = books.organization()
    books.credit(owner, 5_000_000_000)
    books.settle_constraints()
    journal = Journal(tmp_path, max_bytes=1 << 20)
    ending = books.used(owner, factories.stored_price())
    journal.open_request(ending.opened)
    record([ending])
    tamper("UPDATE billing_grant SET remaining_nanos = 0")
    run = reconcile(RunCause.NIGHTLY, actor="system")
    ReconciliationRun.objects.filter(pk=run.pk).update(finished_at=run.asked_at - timedelta(hours=1))
    found = read()
    journal.close()
    proofs = {name[1]: value for name, value in found.items() if name[0] == "crun_proof_holds"}
    assert proofs == {name: float(name != "grants equal their lines and are never overdrawn") for name in all_proofs()}
    assert found[("crun_reconciliation_holds",)] == 0
    assert 3600 <= found[("crun_reconciliation_age_seconds",)] < 3700
    assert found[("crun_ledger_usd", "wallet")] == found[("crun_wallets_usd",)] == 5.0
    assert found[("crun_ledger_usd", "adjustments")] == -5.0
    assert found[("crun_usage_unposted_rows",)] == UnpostedUsage.objects.count() == 1
    assert 0 <= found[("crun_usage_oldest_unposted_seconds",)] < 60
    assert found[("crun_journal_bytes",)] > 100


def test_debts_are_told_apart() -> None:
    books.credit(books.organization(), 2_000_000_000)
    books_owner = books.organization("Other")
    books.credit(books_owner, 1)
    tamper("UPDATE billing_ledgeraccount SET balance_nanos = -3000000000 WHERE organization_id = %s", books_owner.id)
    found = read()
    assert (found[("crun_wallets_usd",)], found[("crun_wallet_debts_usd",)]) == (-1.0, 3.0)


def test_without_the_database_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OperationalError("away")

    monkeypatch.setattr(metrics, "read_money_figures", away)
    found = read()
    assert found[("crun_database_up",)] == 0
    assert ("crun_journal_bytes",) in found


def test_answers_that_were_not_stored_are_told_by_worker_and_reason() -> None:
    state = WorkerState(shedding=0, refused=0, waiting=0, busy=0.1, late_s=0.0, not_stored={"busy": 2, "database": 1})
    older = {"shedding": 0, "refused": 0, "waiting": 0, "busy": 0.1, "late_s": 0.0}  # of a worker before an upgrade
    store = single_try_client()
    for name, told in (("one", state), ("two", older)):
        store.set(KEY.format(name=name), msgspec.json.encode(told))
    store.close()
    found = {name[1:]: value for name, value in read().items() if name[0] == "crun_worker_responses_not_stored"}
    assert found == {("busy", "one"): 2, ("database", "one"): 1}


STRANGERS: list[dict[str, str]] = [
    {"REMOTE_ADDR": "10.0.0.7"},
    {"REMOTE_ADDR": "2001:db8::1"},
    {"REMOTE_ADDR": ""},
    {"HTTP_HOST": "testserver"},
    {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
    {"HTTP_X_FORWARDED_PROTO": "https"},
    {"HTTP_X_REAL_IP": "127.0.0.1"},
    {"HTTP_FORWARDED": "for=127.0.0.1"},
    {"HTTP_VIA": "1.1 proxy"},
]


@pytest.mark.parametrize("request_of_a_stranger", STRANGERS)
def test_without_a_token_only_this_machine_sees_them(request_of_a_stranger: dict[str, str]) -> None:
    assert Client().get("/metrics", **(HERE | request_of_a_stranger)).status_code == 404


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:9", "[::1]:8000", "[::1]"])
def test_this_machine_has_several_names(host: str) -> None:
    assert read(HTTP_HOST=host)


def test_with_a_token_everybody_who_shows_it_sees_them_and_nobody_else(settings: Any) -> None:
    settings.METRICS_TOKEN = "sésame"
    elsewhere = {"REMOTE_ADDR": "10.0.0.7", "HTTP_HOST": "localhost"}
    assert read(HTTP_AUTHORIZATION="Bearer sésame", **elsewhere)
    for shown in ("Bearer ses", "Bearer", "sésame", ""):
        assert Client().get("/metrics", **(HERE | {"HTTP_AUTHORIZATION": shown})).status_code == 404


def test_only_reading_is_offered() -> None:
    assert Client().post("/metrics", **HERE).status_code == 405
