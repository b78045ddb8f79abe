"""`crun invoice`: the list, and a month by hand."""

import pytest
from click.testing import CliRunner, Result
from django.utils import timezone

from apps.billing.models import Invoice
from apps.core.errors import ConfigurationError, Conflict
from crun.cli.invoices import invoice
from tests.billing.invoices import documents

pytestmark = pytest.mark.django_db


def run(*words: str) -> Result:
    return CliRunner().invoke(invoice, list(words))


def test_a_month_is_issued_once_and_listed() -> None:
    documents.seller()
    owner = documents.on_credit()
    last = documents.this_month().previous()
    documents.use(owner, last.start, 5 * 10**9)
    asked = ("issue-month", "--organization", owner.slug, "--month", str(last))
    assert (run(*asked).output, run(*asked).output) == ("INV-000001\n", "")
    made = Invoice.objects.get()
    assert run("list", "--organization", owner.slug).output == "\t".join(
        ["INV-000001", f"{timezone.now():%Y-%m-%d}", "usage", str(last), "issued", "5.00", f"{made.id}\n"]
    )


def test_payments_are_issued_at_once() -> None:
    documents.seller()
    documents.paid(documents.on_credit())
    assert run("issue-payments").output == "1\n"


def test_it_says_why_it_cannot() -> None:
    owner = documents.on_credit()
    documents.use(owner, documents.this_month().previous().start, 5 * 10**9)
    asked = ("issue-month", "--organization", owner.slug, "--month")
    assert isinstance(run(*asked, str(documents.this_month())).exception, Conflict)
    assert isinstance(run(*asked, str(documents.this_month().previous())).exception, ConfigurationError)
    assert "is no month" in run(*asked, "2026-13").output


def test_a_month_that_runs_is_not_over() -> None:
    owner = documents.on_credit()
    month = documents.this_month()
    result = run("issue-month", "--organization", owner.slug, "--month", str(month))
    assert isinstance(result.exception, Conflict)
    assert str(result.exception) == f"{month.name} is not over: it ends at {month.end:%Y-%m-%d} 00:00 UTC"
