"""`crun credit` and `crun ledger`: what they print, what they refuse, exit codes."""

from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result
from django.db import connection

from apps.accounts.models import Organization
from apps.accounts.organizations import create_organization
from apps.billing.grants import charge
from apps.billing.models import Grant, ReconciliationRun
from apps.billing.reconciliation.running import all_proofs
from apps.core.errors import Conflict, InvalidInput, NotFound
from apps.usage.partitions import ensure_upcoming_partitions
from crun.cli.credit import credit
from crun.cli.ledger import ledger
from crun.seeding import seed

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("empty_store")]


@pytest.fixture(autouse=True)
def acme() -> Organization:
    return create_organization("Acme", slug="acme")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(credit, arguments)


def grant(*arguments: str) -> Result:
    return run("grant", "--organization", "acme", "--reason", "A gift", *arguments)


def balance() -> str:
    return run("balance", "--organization", "acme").stdout


def test_a_grant_is_made_and_its_id_printed() -> None:
    result = grant("--amount-usd", "10.000000001")
    assert result.exit_code == 0
    made = Grant.objects.get()
    assert result.stdout == f"{made.id}\n"
    assert (made.amount_nanos, made.source, made.expires_at) == (10_000_000_001, "manual", None)
    assert (made.transaction.reason, made.transaction.actor) == ("A gift", "crun credit grant")
    assert balance() == "10.000000001\n"


def test_the_same_key_grants_once() -> None:
    first = grant("--amount-usd", "10", "--idempotency-key", "once")
    assert grant("--amount-usd", "10", "--idempotency-key", "once").stdout == first.stdout
    assert isinstance(grant("--amount-usd", "11", "--idempotency-key", "once").exception, Conflict)
    assert balance() == "10.000000000\n"
    grant("--amount-usd", "1")
    grant("--amount-usd", "1")
    assert balance() == "12.000000000\n"


def test_the_list_is_in_the_order_of_use(acme: Organization) -> None:
    grant("--amount-usd", "10", "--source", "purchased")
    grant("--amount-usd", "2", "--source", "promotional", "--expires-at", "2099-01-31")
    grant("--amount-usd", "1", "--source", "promotional", "--expires-at", "2099-01-30T12:00:00+01:00")
    charge(acme.id, 1_500_000_000, idempotency_key="used", reason="Used")
    lines = [line.split("\t")[1:] for line in run("list", "--organization", "acme").stdout.splitlines()]
    assert lines == [
        ["promotional", "0.000000000", "1.000000000", "2099-01-30T11:00:00Z", "A gift"],
        ["promotional", "1.500000000", "2.000000000", "2099-01-31T00:00:00Z", "A gift"],
        ["purchased", "10.000000000", "10.000000000", "never", "A gift"],
    ]
    assert Grant.objects.get(source="promotional", remaining_nanos=0).expires_at == datetime(
        2099, 1, 30, 11, tzinfo=UTC
    )


def test_a_debt_is_below_zero(acme: Organization) -> None:
    charge(acme.id, 1, idempotency_key="used", reason="Used")
    assert balance() == "-0.000000001\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ["--amount-usd", "ten"],
        ["--amount-usd", "٣"],
        ["--amount-usd", "1_000"],
        ["--amount-usd", "1e3"],
        ["--amount-usd", "NaN"],
        ["--amount-usd", "0.0000000001"],
        ["--amount-usd", "1", "--source", "found"],
        ["--amount-usd", "1", "--expires-at", "tomorrow"],
        ["--amount-usd", "1", "--expires-at", "2020-01-01"],
        [],
    ],
)
def test_wrong_usage_has_exit_code_2(wrong: list[str]) -> None:
    assert grant(*wrong).exit_code == 2
    assert not Grant.objects.exists()


@pytest.mark.parametrize("amount", ["0", "-5", "1000000000000"])
def test_amounts_out_of_range_are_refused(amount: str) -> None:
    assert isinstance(grant("--amount-usd", amount).exception, InvalidInput)


@pytest.mark.parametrize("command", [["balance"], ["list"], ["grant", "--amount-usd", "1", "--reason", "x"]])
def test_an_unknown_organization_is_named(command: list[str]) -> None:
    result = run(*command, "--organization", "nobody")
    assert isinstance(result.exception, NotFound)
    assert "nobody" in str(result.exception)


def test_the_books_are_proven() -> None:
    ensure_upcoming_partitions()
    grant("--amount-usd", "10")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")  # as at COMMIT
    result = CliRunner().invoke(ledger, ["verify"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"ok      {name}" for name in all_proofs()]
    assert ReconciliationRun.objects.get().cause == "shell"


def test_books_that_do_not_add_up_have_exit_code_1() -> None:
    ensure_upcoming_partitions()
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO usage_unpostedusage (request_id, day) VALUES ('req_nobody', '2026-01-01')")
    result = CliRunner().invoke(ledger, ["verify"])
    assert result.exit_code == 1
    assert (
        "FAILED  what waits for posting has a record: req_nobody waits for posting without a record"
        in result.stdout.splitlines()
    )
    assert result.stdout.count("ok      ") == len(all_proofs()) - 1


def test_the_first_organization_starts_with_promotional_credit() -> None:
    Organization.objects.get().projects.all().delete()
    Organization.objects.all().delete()
    assert seed(sandbox_url=None, environment={})["first_start"]
    assert run("balance", "--organization", "demo").stdout == "25.000000000\n"
    assert Grant.objects.get().source == "promotional"
    assert not seed(sandbox_url=None, environment={})["first_start"]
    assert Grant.objects.count() == 1
