"""`crun key`: streams, limits given and changed, exit codes."""

import pytest
from click.testing import CliRunner, Result

from apps.accounts.organizations import create_organization
from apps.core.errors import InvalidInput, NotFound
from apps.core.limits import Limits
from apps.keys.keyformat import is_well_formed
from apps.keys.models import ApiKey
from crun.cli.keys import key

pytestmark = pytest.mark.django_db

ALL = ("--budget-usd", "12.50", "--budget-period", "month", "--rpm", "60", "--tpm", "40000", "--rpd", "1000")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(key, arguments)


def create(*options: str) -> Result:
    return run("create", "--organization", "acme", "--name", "Backend", *options)


@pytest.fixture(autouse=True)
def organization() -> None:
    create_organization("Acme")


def test_standard_output_is_the_key_alone() -> None:
    result = create()
    assert result.exit_code == 0
    assert is_well_formed(result.stdout.strip())
    row = ApiKey.objects.get()
    assert result.stderr == f"id: {row.id}\n"
    assert row.limits == Limits()


def test_a_key_is_created_with_limits() -> None:
    assert create(*ALL, "--concurrency", "5").exit_code == 0
    assert ApiKey.objects.get().limits == Limits(60, 40_000, 1_000, 5, 12_500_000_000, "month")


def test_a_budget_is_for_a_lifetime_unless_it_has_a_period() -> None:
    assert create("--budget-usd", "1").exit_code == 0
    assert ApiKey.objects.get().limits == Limits(budget_nanos=1_000_000_000, budget_period="lifetime")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget-usd", "-1"), "cannot be negative"),
        (("--budget-usd", "0.0000000001"), "at most nine decimals"),
        (("--budget-usd", "ten"), "is not an amount in USD"),
        (("--budget-usd", "1", "--budget-period", "year"), "'year' is not one of"),
        (("--budget-period", "day"), "give --budget-usd"),
        (("--rpm", "0"), "0 is not in the range"),
        (("--tpm", "-5"), "-5 is not in the range"),
        (("--rpd", "1.5"), "not a valid integer"),
        (("--concurrency", "1000000001"), "not in the range"),
    ],
)
def test_limits_that_cannot_be_are_wrong_usage_and_make_no_key(options: tuple[str, ...], words: str) -> None:
    result = create(*options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert not ApiKey.objects.exists()


def test_limits_that_are_not_named_stay() -> None:
    create(*ALL)
    row = ApiKey.objects.get()
    result = run("limits", row.id, "--rpm", "120", "--budget-usd", "20")
    assert result.exit_code == 0
    row.refresh_from_db()
    assert row.limits == Limits(120, 40_000, 1_000, None, 20_000_000_000, "month")
    assert result.stdout.splitlines() == [
        "budget\t20.00 USD, month",
        "requests per minute\t120",
        "tokens per minute\t40000",
        "requests per day\t1000",
        "concurrency\tnone",
    ]


def test_none_lifts_a_limit_and_a_budget_takes_its_period_along() -> None:
    create(*ALL)
    row = ApiKey.objects.get()
    assert run("limits", row.id, "--budget-usd", "none", "--tpm", "none").exit_code == 0
    row.refresh_from_db()
    assert row.limits == Limits(60, None, 1_000)


def test_a_period_can_be_changed_alone_when_there_is_a_budget() -> None:
    create("--budget-usd", "1")
    row = ApiKey.objects.get()
    assert run("limits", row.id, "--budget-period", "week").exit_code == 0
    row.refresh_from_db()
    assert row.limits == Limits(budget_nanos=1_000_000_000, budget_period="week")
    refused = run("limits", row.id, "--budget-usd", "none", "--budget-period", "day")
    assert refused.exit_code == 2
    row.refresh_from_db()
    assert row.budget_period == "week"


def test_without_options_limits_are_shown_only() -> None:
    create("--budget-usd", "0")
    result = run("limits", ApiKey.objects.get().id)
    assert result.stdout.splitlines()[0] == "budget\t0.00 USD, lifetime"
    assert ApiKey.objects.get().limits == Limits(budget_nanos=0)


def test_a_sandbox_key_looks_like_one_and_has_no_budget() -> None:
    assert create("--sandbox", "--rpm", "5").stdout.startswith("ak_test")
    row = ApiKey.objects.get()
    assert row.sandbox
    assert run("list", "--organization", "acme").stdout.rstrip("\n").split("\t")[5:] == [
        "5 requests per minute",
        "sandbox",
    ]
    for refused in (create("--sandbox", "--budget-usd", "1"), run("limits", row.id, "--budget-usd", "1")):
        assert isinstance(refused.exception, InvalidInput)
    assert ApiKey.objects.count() == 1


def test_the_list_tells_limits_and_kind_in_its_last_columns() -> None:
    create(*ALL)
    line = run("list", "--organization", "acme").stdout.rstrip("\n").split("\t")
    assert line[4:] == [
        "active",
        "12.50 USD a month, 60 requests per minute, 40,000 tokens per minute, 1,000 requests per day",
        "live",
    ]


@pytest.mark.parametrize("command", [("limits", "key_nobody", "--rpm", "1"), ("revoke", "key_nobody")])
def test_a_key_that_is_not_there_is_not_found(command: tuple[str, ...]) -> None:
    assert isinstance(run(*command).exception, NotFound)


def test_a_revoked_key_says_so() -> None:
    create()
    row = ApiKey.objects.get()
    assert run("revoke", row.id).stdout == f"{row.id} is revoked\n"
    row.refresh_from_db()
    assert row.revoked_at is not None
    assert run("list", "--organization", "acme").stdout.split("\t")[4:] == ["revoked", "no limits", "live\n"]
