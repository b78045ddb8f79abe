"""`crun doctor`: what it finds, how it says it, and its exit code."""

import os
import resource
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from apps.catalog.models import Model, PriceVersion, Provider, Route
from crun.cli import doctor as doctor_module
from crun.cli.doctor import (
    Finding,
    Verdict,
    catalog,
    clock,
    descriptors,
    disk,
    doctor,
    journal,
    migrations,
    postgres,
    secrets,
    valkey,
)
from crun.home import Home


def verdicts(findings: Iterable[Finding]) -> list[str]:
    return [f"{finding.verdict}: {finding.text}" for finding in findings]


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


@pytest.fixture
def model(db: None) -> Model:
    provider = Provider.objects.create(id="local", name="Local", base_url="http://127.0.0.1:9/v1")
    made = Model.objects.create(id="m", name="M", vendor="V", context_length=1000, max_output_tokens=100)
    Route.objects.create(model=made, provider=provider, upstream_model="m")
    return made


def priced(model: Model) -> None:
    PriceVersion.objects.create(model=model, starts_at=timezone.now(), input=1, output=2)


def test_secrets_that_others_can_read_are_a_failure(home: Home) -> None:
    home.path.mkdir()
    home.secrets_file.write_text("CRUN_SECRET_KEY=x\n")
    home.secrets_file.chmod(0o644)
    finding = only(secrets(home))
    assert finding.verdict is Verdict.FAIL
    assert finding.mend == f"chmod 600 {home.secrets_file}"
    home.secrets_file.chmod(0o600)
    assert only(secrets(home)).verdict is Verdict.OK


def test_missing_secrets_are_a_failure(home: Home, settings: pytest.FixtureRequest) -> None:
    assert only(secrets(home)).text == "from the environment"
    settings.KEY_PEPPERS = {}  # type: ignore[attr-defined]  # pytest-django's settings take any name
    assert only(secrets(home)).verdict is Verdict.FAIL


def test_a_filling_journal_is_a_warning(tmp_path: Path) -> None:
    writer = tmp_path / "journal" / "w1"
    writer.mkdir(parents=True)
    (writer / "000001.seg").write_bytes(b"x" * 600)
    assert only(journal(tmp_path / "journal", max_bytes=10_000)).verdict is Verdict.OK
    finding = only(journal(tmp_path / "journal", max_bytes=1_000))
    assert finding.verdict is Verdict.WARN
    assert "worker.log" in finding.mend


def test_damaged_segments_are_named(tmp_path: Path) -> None:
    (tmp_path / "w1-000001.damaged").touch()
    assert [finding.verdict for finding in journal(tmp_path, max_bytes=1_000)] == [Verdict.OK, Verdict.WARN]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_journal_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert only(journal(tmp_path / "journal", max_bytes=1_000)).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("hard", "verdict"), [(1_024, Verdict.WARN), (65_536, Verdict.OK), (resource.RLIM_INFINITY, Verdict.OK)]
)
def test_few_descriptors_are_a_warning(hard: int, verdict: Verdict) -> None:
    assert only(descriptors(hard)).verdict is verdict


def test_a_full_disk_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "LEAST_FREE_BYTES", 1 << 60)
    monkeypatch.setattr(doctor_module, "COMFORTABLE_FREE_BYTES", 1 << 60)
    assert only(disk({tmp_path, tmp_path / "not" / "yet"})).verdict is Verdict.FAIL


@pytest.mark.django_db
def test_a_healthy_database_passes() -> None:
    findings = [*postgres(), *clock(), *migrations()]
    assert [finding.subject for finding in findings if finding.verdict is Verdict.OK] == [
        "PostgreSQL",
        "Clock",
        "Migrations",
    ]


@pytest.mark.django_db
def test_a_database_that_is_not_durable_is_a_warning() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert "WARN: synchronous_commit is off: a crash can lose what was committed" in verdicts(postgres())


@pytest.mark.django_db
def test_a_clock_that_is_off_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000.0)
    assert only(clock()).verdict is Verdict.FAIL


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_is_not_applied_is_a_failure() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sessions' AND name = '0001_initial'")
    try:
        finding = only(migrations())
    finally:
        call_command("migrate", "sessions", fake=True, verbosity=0)
    assert finding.verdict is Verdict.FAIL
    assert finding.text == "1 not applied, the first is sessions.0001_initial"


def test_a_model_with_route_and_price_makes_a_catalog(model: Model) -> None:
    priced(model)
    assert verdicts(catalog()) == ["OK: 1 models can be called"]


def test_a_model_without_a_price_is_named(model: Model) -> None:
    assert [finding.verdict for finding in catalog()] == [Verdict.FAIL, Verdict.WARN]
    assert "m" in list(catalog())[1].text


def test_a_model_whose_provider_has_no_credential_is_not_for_sale(model: Model) -> None:
    priced(model)
    Provider.objects.update(api_key_env="NO_SUCH_VARIABLE_HERE")
    assert only(catalog()).verdict is Verdict.FAIL


def test_valkey_answers() -> None:
    assert verdicts(valkey())[0].startswith("OK: Valkey ")


def test_servers_that_are_away_are_failures_with_a_way_out(
    settings: pytest.FixtureRequest, django_db_blocker: DjangoDbBlocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    settings.REDIS_URL = "unix:///no/such/valkey.sock"  # type: ignore[attr-defined]  # as above
    assert only(valkey()).mend == "Start it: crun up"
    with django_db_blocker.unblock():
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "HOST", "/no/such/folder")
        try:
            assert only(postgres()).mend == "Start it: crun up"
        finally:
            connection.close()


@pytest.mark.parametrize(("verdict", "exit_code"), [(Verdict.OK, 0), (Verdict.WARN, 0), (Verdict.FAIL, 1)])
def test_the_exit_code_tells_whether_something_must_be_mended(
    verdict: Verdict, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_module, "examine", lambda home: iter([Finding(verdict, "Disk", "text", "do this")]))
    result = CliRunner().invoke(doctor, [])
    assert result.exit_code == exit_code
    assert "-> do this" in result.output
