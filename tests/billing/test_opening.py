"""Usage from before the ledger: the migration that opens the books accounts for it, and nobody starts with a debt."""

import importlib

import pytest
from django.db import connection

from apps.billing import ledger
from apps.billing.models import LedgerTransaction
from apps.billing.posting import post_batch
from apps.usage.models import UnpostedUsage, UsageRecord
from apps.usage.recording import record
from apps.usage.rollups import add_to_rollups
from tests import factories
from tests.billing import books

migration = importlib.import_module("apps.billing.migrations.0003_usage_before_the_ledger")


@pytest.mark.django_db(transaction=True)
def test_posted_usage_is_charged_and_written_off_when_the_books_open() -> None:
    price = factories.stored_price()
    owners = [books.organization(name) for name in ("Acme", "Beta")]
    record([books.used(owners[number % 2], price, tokens=10 + number) for number in range(6)])
    add_to_rollups(
        {**row, "byok": False} for row in UsageRecord.objects.values()
    )  # what posting did before it knew of money
    UnpostedUsage.objects.all().delete()
    record([books.used(owners[0], price)])
    assert "posted usage equals its charges" in [name for name, _ in books.failed_proofs()]

    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(migration.OPEN_THE_BOOKS)
        cursor.execute("COMMIT")

    assert books.failed_proofs() == []
    assert [ledger.balance_nanos(owner.id) for owner in owners] == [0, 0]
    assert books.account_total("revenue", owners[1]) == -books.account_total("write_offs", owners[1]) > 0
    assert LedgerTransaction.objects.count() == 4

    post_batch()
    assert ledger.balance_nanos(owners[0].id) == -1_500
    assert books.failed_proofs() == []
