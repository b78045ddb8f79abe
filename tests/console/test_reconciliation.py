"""Reconciliation in the console: the latest run, one at a wish, and vendors' files with what they differ in."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.forms import modelform_factory
from django.test import Client

from apps.accounts.models import User
from apps.billing.models import ReconciliationRun, RunCause, VendorCost, VendorReport
from apps.billing.reconciliation.running import all_proofs, reconcile
from apps.billing.reconciliation.vendor_costs import ReadFile, import_report, keep_file
from apps.catalog.models import Provider
from apps.console import reconciliation
from apps.console.figures import exact_usd
from apps.console.reconciliation import VendorReportForm
from apps.usage.partitions import ensure_upcoming_partitions
from tests.billing.books import settle_constraints
from tests.billing.test_proofs import tamper
from tests.console.cast import Rows
from tests.console.conftest import made_rows

RUNS = "/console/billing/reconciliationrun/"
REPORTS = "/console/billing/vendorreport/"
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)

pytestmark = pytest.mark.usefixtures("empty_store")


@pytest.fixture
def rows(customer: User) -> Rows:
    """Made anew: one of these tests is about an installation without any."""
    return made_rows(customer)


def costs(value: float, line_item: str = "small-upstream, input") -> bytes:
    start = int(datetime(YESTERDAY.year, YESTERDAY.month, YESTERDAY.day, tzinfo=UTC).timestamp())
    result = {"amount": {"value": value, "currency": "usd"}, "line_item": line_item}
    return json.dumps({"data": [{"start_time": start, "end_time": start + 86_400, "results": [result]}]}).encode()


def upload(console: Client, content: bytes, *, provider: str = "local", name: str = "costs.json") -> str:
    fields = {"provider": provider, "file": SimpleUploadedFile(name, content)}
    return console.post(f"{REPORTS}add/", fields, follow=True).content.decode()


def test_before_the_first_run_the_page_says_when_it_comes(console: Client, db: None) -> None:
    content = console.get(RUNS).content.decode()
    assert "have not been run yet" in content
    assert "03:17 UTC" in content


def test_the_latest_run_stands_above_all_others(console: Client, rows: Rows) -> None:
    ensure_upcoming_partitions()
    tamper("DELETE FROM usage_usagerecord")
    settle_constraints()
    good = reconcile(RunCause.NIGHTLY, actor="system")
    assert good.holds
    content = console.get(RUNS).content.decode()
    assert f"All {len(all_proofs())} proofs hold." in content
    tamper("UPDATE billing_ledgeraccount SET balance_nanos = 7 WHERE organization_id IS NOT NULL")
    bad = reconcile(RunCause.SHELL, actor="ada")
    content = console.get(RUNS).content.decode()
    assert "The books do not add up." in content
    assert f"{rows.organization.pk} has 7, its lines say 5000000000" in content
    page = console.get(f"{RUNS}{bad.pk.replace('_', '_5F')}/change/").content.decode()
    wallets = exact_usd(int(bad.account_totals["wallet"]))
    for shown in ("has 7, its lines say", f"wallet {wallets}", "ada"):
        assert shown in page


def test_a_run_can_be_asked_for(console: Client, operator: User, db: None) -> None:
    content = console.post(f"{RUNS}run-now/", follow=True).content.decode()
    assert "A run is under way or about to begin." in content
    run = ReconciliationRun.objects.get()
    assert (run.cause, run.actor, run.started_at) == ("console", operator.email, None)
    assert console.get(f"{RUNS}run-now/").status_code == 405


def test_runs_can_only_be_looked_at(console: Client, rows: Rows) -> None:
    for page in ("change", "delete"):
        address = f"{RUNS}{rows.run.pk.replace('_', '_5F')}/{page}/"
        assert console.post(address, {"holds": "on", "post": "yes"}).status_code == 403
    assert console.post(f"{RUNS}add/", {}).status_code == 403


def test_a_file_is_uploaded_and_compared(console: Client, operator: User, rows: Rows) -> None:
    content = upload(console, costs(3))
    assert "costs.json: 1 new, 0 changed and 0 known rows." in content
    assert "the vendor charges 3.000000000 USD, customers were charged 0.000000000 USD" in content
    assert VendorReport.objects.exclude(pk=rows.vendor_report.pk).get().imported_by == operator.email
    assert VendorCost.objects.get().provider_id == "local"


def test_the_same_file_again_changes_nothing(console: Client, rows: Rows) -> None:
    upload(console, costs(3))
    assert "This file was imported before: nothing changed." in upload(console, costs(3))
    assert VendorReport.objects.count() == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"day,cost\n", "The file is neither OpenAI"),
        (b"{", "The file is no JSON"),
        (b"", "The submitted file is empty."),
    ],
)
def test_what_is_not_understood_is_said_beside_the_file(console: Client, rows: Rows, content: bytes, said: str) -> None:
    assert said in upload(console, content)
    assert not VendorCost.objects.exists()


def test_checking_the_form_imports_nothing(rows: Rows) -> None:
    form_class = modelform_factory(VendorReport, form=VendorReportForm)
    form = form_class({"provider": "local"}, {"file": SimpleUploadedFile("costs.json", costs(3))})
    assert form.is_valid(), form.errors
    assert not VendorCost.objects.exists()


def test_a_file_that_another_provider_took_meanwhile_is_refused(
    console: Client, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = costs(3)

    def taken_meanwhile(file: ReadFile, *, name: str, actor: str) -> tuple[VendorReport, bool]:
        import_report("sandbox", content, name="theirs.json", actor="ada")
        return keep_file(file, name=name, actor=actor)

    Provider.objects.get_or_create(id="sandbox", defaults={"name": "Sandbox", "base_url": "http://127.0.0.1:9/v1"})
    monkeypatch.setattr(reconciliation, "keep_file", taken_meanwhile)
    assert "This file was imported for the provider sandbox already." in upload(console, content)
    assert not VendorCost.objects.filter(provider="local").exists()


def test_a_file_without_a_provider_is_not_imported(console: Client, rows: Rows) -> None:
    assert "This field is required." in upload(console, costs(3), provider="")
    assert not VendorCost.objects.exists()


def test_without_any_file_the_page_says_what_to_import(console: Client, db: None) -> None:
    assert "No vendor has said anything yet" in console.get(REPORTS).content.decode()
