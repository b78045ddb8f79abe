"""A run of all proofs: what is kept of it, whom it tells, and what it finds beyond the ledger."""

import logging
from datetime import UTC, datetime

import pytest
from django.db import connection

from apps.accounts.models import Organization, User
from apps.billing import grants
from apps.billing.models import Alert, AlertEmail, LedgerAnchor, LedgerLink, ReconciliationRun, RunCause
from apps.billing.posting import post_batch
from apps.billing.proofs import PROOFS, Proof
from apps.billing.reconciliation import running
from apps.billing.reconciliation.running import all_proofs, ask_for_run, reconcile, run_asked
from apps.billing.tasks import reconcile_asked
from apps.usage.partitions import ensure_upcoming_partitions
from apps.usage.recording import record
from tests import factories
from tests.billing import books
from tests.billing.test_proofs import tamper

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("empty_store")]


@pytest.fixture
def owner() -> Organization:
    ensure_upcoming_partitions()
    owner = books.organization()
    User.objects.create_superuser("operator@example.com", "a long password")
    books.credit(owner, 5_000)
    record([books.used(owner, factories.stored_price())])
    post_batch()
    return owner


def broken(run: ReconciliationRun) -> dict[str, str]:
    return dict(run.results.filter(holds=False).values_list("name", "detail"))


def test_a_run_keeps_every_proof_and_the_sums_of_the_books(owner: Organization) -> None:
    run = reconcile(RunCause.SHELL, actor="ada")
    run.refresh_from_db()
    assert run.holds is True
    assert run.finished_at is not None
    assert list(run.results.values_list("name", flat=True)) == list(all_proofs())
    assert len(all_proofs()) == len(PROOFS) + 3
    assert run.account_totals == {"wallet": "3500", "adjustments": "-5000", "revenue": "1500"}
    assert not Alert.objects.exists()


def test_what_fails_is_kept_logged_and_told_to_the_operator_once(
    owner: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    tamper("UPDATE billing_ledgeraccount SET balance_nanos = 1 WHERE organization_id IS NOT NULL")
    with caplog.at_level(logging.ERROR):
        run = reconcile(RunCause.NIGHTLY, actor="system")
    assert run.holds is False
    assert broken(run)["balances equal their lines"] == f"{owner.id} has 1, its lines say 3500"
    assert {line.getMessage() for line in caplog.records} == {f"ledger proof failed: {name}" for name in broken(run)}
    alert = Alert.objects.get()
    assert (alert.organization_id, alert.kind) == (None, "ledger.proof_failed")
    assert "balances equal their lines" in alert.text
    assert AlertEmail.objects.get().recipient == "operator@example.com"


def test_ends_of_chains_are_remembered_only_while_the_chain_is_whole(owner: Organization) -> None:
    reconcile(RunCause.NIGHTLY, actor="system")
    assert LedgerAnchor.objects.get(chain=owner.id).position == 2
    grants.charge(owner.id, 5, idempotency_key=books.key(), reason="Used")
    tamper("UPDATE billing_ledgertransaction SET reason = 'Nothing' WHERE kind = 'charge'")
    assert list(broken(reconcile(RunCause.NIGHTLY, actor="system"))) == ["the chain of hashes is whole"]
    assert LedgerAnchor.objects.get(chain=owner.id).position == 2


def test_what_is_written_while_the_proofs_run_is_not_remembered_as_proven(
    owner: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prove_and_let_others_write() -> Proof:
        grants.charge(owner.id, 5, idempotency_key=books.key(), reason="Used meanwhile")
        return Proof("Redis equals PostgreSQL", holds=True, detail="")

    monkeypatch.setattr(running, "_prove_redis", prove_and_let_others_write)
    assert reconcile(RunCause.NIGHTLY, actor="system").holds
    assert LedgerLink.objects.filter(chain=owner.id).count() == 3
    assert LedgerAnchor.objects.get(chain=owner.id).position == 2


def test_a_run_on_demand_names_who_wanted_it(owner: Organization) -> None:
    ask_for_run("operator@example.com")
    reconcile_asked()
    reconcile_asked()
    run = ReconciliationRun.objects.get()
    assert (run.cause, run.actor, run.holds) == ("console", "operator@example.com", True)


def test_a_run_that_was_asked_for_is_done_once_however_many_workers_there_are(owner: Organization) -> None:
    for _ in range(3):
        ask_for_run("operator@example.com")
    assert sum(books.at_once([run_asked] * 4)) == 3
    assert set(ReconciliationRun.objects.values_list("holds", flat=True)) == {True}


def test_a_day_without_a_partition_is_found(owner: Organization) -> None:
    today = datetime.now(UTC).date()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE usage_usagerecord DETACH PARTITION usage_record_{today:%Y%m%d}")
    try:
        assert broken(reconcile(RunCause.NIGHTLY, actor="system"))["the coming days have partitions"] == (
            f"{today} has no partition"
        )
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE usage_record_{today:%Y%m%d}")


def test_a_record_in_the_partition_of_another_day_is_found(owner: Organization) -> None:
    wrong = "2020-01-02"
    with connection.cursor() as cursor:
        cursor.execute("SELECT usage_make_partition(%s)", [wrong])
    tamper("UPDATE usage_usagerecord SET day = %s", wrong)
    found = broken(reconcile(RunCause.NIGHTLY, actor="system"))
    assert "lies in usage_record_20200102" in found["records lie in the partition of their id"]
