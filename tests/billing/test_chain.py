"""The chain of hashes: every transaction is linked at COMMIT, and whatever a superuser changes afterwards is found."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from time import sleep

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction

from apps.accounts.models import Organization
from apps.billing import grants, ledger
from apps.billing.chain import read_ends, remember_ends
from apps.billing.ledger import Line
from apps.billing.models import OPERATOR_CHAIN, AccountKind, LedgerLink, LedgerTransaction, TransactionKind
from apps.billing.posting import post_batch
from apps.billing.proofs import CHAIN_IS_COMPLETE, CHAIN_IS_WHOLE
from apps.usage.recording import record
from tests import factories
from tests.billing import books
from tests.billing.test_proofs import tamper

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner() -> Organization:
    """Five transactions: two grants, usage, a charge and its refund."""
    owner = books.organization()
    books.credit(owner, 5_000)
    books.credit(owner, 1_000)
    record([books.used(owner, factories.stored_price())])
    post_batch()
    charged = grants.charge(owner.id, 700, idempotency_key="charge", reason="Used")
    grants.refund(charged.id, 300, idempotency_key="refund", reason="Because", actor="test")
    books.settle_constraints()
    return owner


def chained(chain: str) -> list[int]:
    return list(LedgerLink.objects.filter(chain=chain).order_by("position").values_list("position", flat=True))


def between_accounts(amount: int) -> LedgerTransaction:
    """A transaction of the operator, without an organization."""
    lines = [Line(AccountKind.CASH, amount), Line(AccountKind.BREAKAGE, -amount)]
    return ledger.post(
        TransactionKind.ADJUSTMENT, lines, organization_id=None, idempotency_key=books.key(), reason="Moved", actor="t"
    )


def test_every_wallet_has_a_chain_of_its_own_and_the_operator_another(owner: Organization) -> None:
    other = books.organization("Other")
    books.credit(other, 10)
    between_accounts(5)
    between_accounts(7)
    books.settle_constraints()
    assert chained(owner.id) == [1, 2, 3, 4, 5]
    assert chained(other.id) == [1]
    assert chained(OPERATOR_CHAIN) == [1, 2]
    assert books.failed_proofs() == []


# What each of these changes stays in balance: only the chain can tell.
TAMPERINGS = {
    "the reason of a charge": "UPDATE billing_ledgertransaction SET reason = 'Gift' WHERE kind = 'charge'",
    "who granted": "UPDATE billing_ledgertransaction SET actor = 'somebody' WHERE id ="
    " (SELECT min(id) FROM billing_ledgertransaction)",
    "when it happened": "UPDATE billing_ledgertransaction SET created_at = created_at - interval '1 month'"
    " WHERE kind = 'usage'",
    "both sides of a charge": "UPDATE billing_ledgerline SET amount_nanos = amount_nanos * 2 WHERE transaction_id ="
    " (SELECT id FROM billing_ledgertransaction WHERE kind = 'charge')",
    "an account": "UPDATE billing_ledgerline SET account_id = (SELECT id FROM billing_ledgeraccount WHERE kind ="
    " 'adjustments') WHERE account_id = (SELECT id FROM billing_ledgeraccount WHERE kind = 'revenue')",
    "a whole transaction that is gone": "WITH gone AS (SELECT id FROM billing_ledgertransaction WHERE kind = 'usage'),"
    " lines AS (DELETE FROM billing_ledgerline USING gone WHERE transaction_id = gone.id)"
    " DELETE FROM billing_ledgertransaction USING gone WHERE billing_ledgertransaction.id = gone.id",
    "a transaction that is gone with its link": "WITH gone AS (SELECT id FROM billing_ledgertransaction"
    " WHERE kind = 'usage'), lines AS (DELETE FROM billing_ledgerline USING gone WHERE transaction_id = gone.id),"
    " links AS (DELETE FROM billing_ledgerlink USING gone WHERE transaction_id = gone.id)"
    " DELETE FROM billing_ledgertransaction USING gone WHERE billing_ledgertransaction.id = gone.id",
    "a hash": "UPDATE billing_ledgerlink SET hash = sha256(hash) WHERE position = 2",
    "the order": "UPDATE billing_ledgerlink SET position = 7 - position WHERE position IN (3, 4)",
    "the chain": "UPDATE billing_ledgerlink SET chain = 'org_x' WHERE position = 5",
}


@pytest.mark.parametrize("change", TAMPERINGS)
def test_d27_what_a_superuser_changes_behind_the_triggers_is_found(owner: Organization, change: str) -> None:
    assert books.failed_proofs() == []
    if change == "the order":  # two links cannot swap places in one statement: the constraint is not deferred
        tamper("ALTER TABLE billing_ledgerlink DROP CONSTRAINT ledger_link_place_unique")
    tamper(TAMPERINGS[change])
    assert CHAIN_IS_WHOLE in [name for name, _ in books.failed_proofs()]


def test_a_replaced_function_does_not_hide_what_was_changed(owner: Organization) -> None:
    tamper(
        "CREATE OR REPLACE FUNCTION billing_link(linked varchar) RETURNS void LANGUAGE sql AS"
        " $$ INSERT INTO billing_ledgerlink SELECT linked, 'org', 1, '', '' $$"
    )
    books.credit(owner, 1)
    assert CHAIN_IS_WHOLE in [name for name, _ in books.failed_proofs()]


def test_an_end_that_was_cut_off_is_found_after_it_was_proved_once(owner: Organization) -> None:
    remember_ends(read_ends())
    assert books.failed_proofs() == []
    last = LedgerTransaction.objects.get(kind="refund").id
    for table, column in (
        ("ledgerlink", "transaction_id"),
        ("ledgerline", "transaction_id"),
        ("ledgertransaction", "id"),
    ):
        tamper(f"DELETE FROM billing_{table} WHERE {column} = %s", last)  # noqa: S608 - names of this test
    failed = dict(books.failed_proofs())
    assert CHAIN_IS_WHOLE not in failed
    assert failed[CHAIN_IS_COMPLETE] == (
        f"{owner.id} had 5 transactions when its chain was last proved, and the last of them is gone"
    )


def test_nothing_but_a_transaction_is_linked(owner: Organization) -> None:
    unknown = pytest.raises(IntegrityError, match="no ledger transaction txn_x")
    with unknown, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT billing_link('txn_x')")


@pytest.mark.parametrize("statement", ["UPDATE billing_ledgerlink SET position = 9", "DELETE FROM billing_ledgerlink"])
def test_links_can_only_be_added(owner: Organization, statement: str) -> None:
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
def test_many_writers_at_once_make_one_chain_without_gaps() -> None:
    owner = books.organization()
    jobs: list[Callable[[], object]] = [
        lambda: grants.charge(owner.id, 1, idempotency_key=books.key(), reason="Used") for _ in range(8)
    ]
    jobs += [lambda: between_accounts(3) for _ in range(4)]
    answers = books.at_once(jobs)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert chained(owner.id) == list(range(1, 9))
    assert chained(OPERATOR_CHAIN) == list(range(1, 5))
    assert books.failed_proofs() == []


@pytest.mark.django_db(transaction=True)
def test_what_is_written_while_the_chain_is_introduced_waits_and_is_linked() -> None:
    migration = import_module("apps.billing.migrations.0009_hash_chain")
    linking, trigger = migration.CHAIN.split("CREATE CONSTRAINT TRIGGER")
    owner = books.organization()
    books.credit(owner, 5_000)
    tamper("DELETE FROM billing_ledgerlink")
    with connection.cursor() as cursor:
        cursor.execute(migration.NO_CHAIN)
    with psycopg.connect(**_server()) as migrating, ThreadPoolExecutor(1) as pool:
        migrating.execute(linking)
        writing = pool.submit(_credit_apart, owner)
        sleep(0.5)
        was_waiting = not writing.done()
        migrating.execute(f"CREATE CONSTRAINT TRIGGER{trigger}")
        migrating.commit()
        writing.result(timeout=30)
    assert was_waiting
    assert chained(owner.id) == [1, 2]
    assert books.failed_proofs() == []


def _server() -> dict[str, str]:
    """Where a connection finds the database of the tests, as its owner."""
    where = connection.settings_dict
    return {"host": where["HOST"], "user": where["USER"], "dbname": where["NAME"]}


def _credit_apart(owner: Organization) -> None:
    """What another process does, with a connection of its own."""
    try:
        books.credit(owner, 6_000)
    finally:
        connection.close()
