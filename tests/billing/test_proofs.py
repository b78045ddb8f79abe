"""The proofs: silent on a good ledger, and each finds what it is there to find."""

import logging

import pytest
from django.db import connection

from apps.accounts.models import Organization
from apps.billing import grants
from apps.billing.posting import post_batch
from apps.billing.proofs import PROOFS, verify
from apps.billing.tasks import expire_grants, prove_ledger
from apps.core.ids import new_id
from apps.usage.partitions import ensure_upcoming_partitions
from apps.usage.recording import record
from tests import factories
from tests.billing import books

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("empty_store")]


@pytest.fixture
def owner() -> Organization:
    """An organization with a bit of everything in its books."""
    owner = books.organization()
    price = factories.stored_price()
    books.credit(owner, 5_000)
    record([books.used(owner, price), books.used(owner, price)])
    post_batch()
    record([books.used(owner, price)])
    charged = grants.charge(owner.id, 700, idempotency_key="charge", reason="Used")
    grants.refund(charged.id, 300, idempotency_key="refund", reason="Because", actor="test")
    books.settle_constraints()
    return owner


def tamper(statement: str, *values: object) -> None:
    """What nobody can do in a running installation: write past triggers and checks of the database."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        try:
            cursor.execute(statement, values)
        finally:
            cursor.execute("SET session_replication_role = DEFAULT")


def test_a_good_ledger_holds_every_proof(owner: Organization) -> None:
    proofs = verify()
    assert [proof.name for proof in proofs] == list(PROOFS)
    assert [(proof.holds, proof.detail) for proof in proofs] == [(True, "")] * len(PROOFS)


def test_an_empty_installation_holds_every_proof() -> None:
    assert books.failed_proofs() == []


TAMPERINGS = {
    "every transaction sums to zero": "UPDATE billing_ledgerline SET amount_nanos = amount_nanos + 1"
    " WHERE id IN (SELECT min(id) FROM billing_ledgerline)",
    "every transaction has two lines or more": "INSERT INTO billing_ledgertransaction"
    " (id, kind, idempotency_key, content_digest, reason, actor) VALUES ('txn_x', 'charge', 'x', '', 'x', 'x')",
    "all lines together sum to zero": "UPDATE billing_ledgerline SET amount_nanos = amount_nanos * 2"
    " WHERE id IN (SELECT max(id) FROM billing_ledgerline)",
    "balances equal their lines": "UPDATE billing_ledgeraccount SET balance_nanos = balance_nanos + 1"
    " WHERE organization_id IS NOT NULL",
    "grants equal their lines and are never overdrawn": "UPDATE billing_grant SET remaining_nanos = 0",
    "no debt stands beside unused credit": "UPDATE billing_ledgeraccount SET balance_nanos = 1"
    " WHERE organization_id IS NOT NULL",
    "refunds are never more than their charge": "UPDATE billing_ledgerline SET amount_nanos = amount_nanos * 3"
    " WHERE transaction_id = (SELECT id FROM billing_ledgertransaction WHERE kind = 'refund')",
    "posted usage equals its charges": "DELETE FROM billing_ledgerline WHERE transaction_id ="
    " (SELECT id FROM billing_ledgertransaction WHERE kind = 'usage')",
    "re-ratings equal the requests that they corrected": "INSERT INTO billing_rerating"
    " (id, model, starts_at, ends_at, reason, status, created_at, created_by)"
    " VALUES ('rerate_x', 'm', now(), now() + interval '1 hour', 'x', 'applied', now(), 'x');"
    " INSERT INTO billing_reratedusage"
    " (rerating_id, organization_id, request_id, delta_nanos, price_version_id, price_rule_id)"
    " SELECT 'rerate_x', id, 'req_x', 1, 1, '' FROM accounts_organization LIMIT 1",
    "rollups equal the posted records": "UPDATE usage_usagerollup SET output_tokens = output_tokens + 1",
    "what waits for posting has a record": "INSERT INTO usage_unpostedusage (request_id, day)"
    " VALUES ('req_nobody', '2026-01-01')",
    "the chain of hashes is whole": "UPDATE billing_ledgertransaction SET reason = 'Nothing' WHERE kind = 'charge'",
    "no chain of hashes lost its end": "INSERT INTO billing_ledgeranchor (chain, position, hash, seen_at)"
    " SELECT chain, max(position) + 1, '', now() FROM billing_ledgerlink GROUP BY chain",
}


@pytest.mark.parametrize("rule", list(PROOFS))
def test_d2_every_rule_that_is_broken_is_found(owner: Organization, rule: str) -> None:
    tamper(TAMPERINGS[rule])
    assert rule in [name for name, _ in books.failed_proofs()]


def test_d20_rollups_without_records_and_records_without_rollups_are_found(owner: Organization) -> None:
    tamper("DELETE FROM usage_usagerollup")
    [(name, detail)] = books.failed_proofs()
    assert name == "rollups equal the posted records"
    assert detail.startswith(f"{owner.id} hour 20")


def test_usage_posted_but_never_charged_is_found(owner: Organization) -> None:
    tamper("DELETE FROM usage_unpostedusage")
    assert ("posted usage equals its charges", f"{owner.id} posted usage costs 4500, charged were 3000") in (
        books.failed_proofs()
    )


def test_of_many_offenders_some_are_named_and_all_counted() -> None:
    for number in range(8):
        tamper("INSERT INTO usage_unpostedusage (request_id, day) VALUES (%s, '2026-01-01')", f"req_{number}")
    [(_, detail)] = books.failed_proofs()
    assert detail.count("without a record") == 5
    assert detail.endswith("; and 3 more")


@pytest.mark.django_db(transaction=True)  # the tasks close old connections
def test_the_nightly_task_reports_what_is_broken(owner: Organization, caplog: pytest.LogCaptureFixture) -> None:
    ensure_upcoming_partitions()
    with caplog.at_level(logging.INFO):
        prove_ledger()
        assert caplog.records == []
        tamper("INSERT INTO usage_unpostedusage (request_id, day) VALUES (%s, '2026-01-01')", new_id("req"))
        prove_ledger()
    [line] = caplog.records
    assert (line.levelname, line.getMessage()) == (
        "ERROR",
        "ledger proof failed: what waits for posting has a record",
    )


@pytest.mark.django_db(transaction=True)  # the tasks close old connections
def test_the_hourly_task_expires_what_has_ended(owner: Organization) -> None:
    ended = books.credit(owner, 50, expires_at=books.START)
    staying = books.credit(owner, 50)
    expire_grants()
    expire_grants()
    assert books.rest_of(ended, staying) == [0, 50]
    assert books.account_total("breakage") == 50
