"""The `crun` command as a shell sees it: exit codes, what goes to standard output and what to standard error."""

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.asking import Answer, caller
from tests.acceptance.installing import Installation

pytestmark = pytest.mark.installation

BAD_CATALOG = """models:
  - id: broken
    context_length: many
    max_output_tokens: 100
    prices: [{from: "2026-01-01T00:00:00Z", input: "-1", output: "1"}]
"""
REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "an unknown command": (("frobnicate",), 2, "No such command 'frobnicate'"),
    "an unknown format": (("usage", "export", "--organization", "demo", "--format", "xml"), 2, "'xml' is not one of"),
    "a file that is not there": (("catalog", "import", "/no/such/file.yaml"), 2, "/no/such/file.yaml"),
    "an unknown organization": (("usage", "export", "--organization", "nobody"), 1, "no organization with the slug"),
    "an unknown key": (("key", "revoke", "key_nowhere"), 1, "no key with the id 'key_nowhere'"),
    "a slug that is taken": (("org", "create", "Demo again", "--slug", "demo"), 1, "demo"),
    "a catalog with mistakes": (("catalog", "import", "-"), 1, "<stdin>:3: "),
}


@pytest.fixture(scope="module")
def refusals(installation: Installation) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each refused command said; two at a time."""
    with ThreadPoolExecutor(2) as pool:
        runs = {
            name: pool.submit(installation.crun, *arguments, stdin=BAD_CATALOG)
            for name, (arguments, _, _) in REFUSED.items()
        }
        return {name: run.result() for name, run in runs.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_an_exit_code_and_a_sentence(
    refusals: dict[str, subprocess.CompletedProcess[str]], name: str
) -> None:
    _, code, message = REFUSED[name]
    said = refusals[name]
    assert said.returncode == code, said.stderr
    assert message in said.stderr
    assert said.stdout == ""
    assert "Traceback" not in said.stderr


def test_every_mistake_of_a_catalog_is_named_with_its_line(
    refusals: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    said = refusals["a catalog with mistakes"].stderr
    assert "<stdin>:3: models[0].context_length" in said
    assert "<stdin>:5: models[0].prices[0].input" in said
    assert said.strip().endswith("Nothing was imported.")


def test_an_organization_and_its_key_are_made_in_the_shell_and_work(installation: Installation) -> None:
    made = installation.crun("org", "create", "Shell & Söhne GmbH")
    assert made.returncode == 0, made.stderr
    slug = made.stdout.strip()
    assert made.stdout == f"{slug}\n"
    key = installation.crun("key", "create", "--organization", slug, "--name", "from the shell")
    secret, key_id = key.stdout.strip(), key.stderr.removeprefix("id: ").strip()
    assert key.stdout == f"{secret}\n"
    assert secret.startswith("ak_")
    assert len(secret) == 35
    listed = installation.crun("key", "list", "--organization", slug).stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == [key_id]
    assert secret not in listed

    async def ask() -> Answer:
        async with caller(installation, secret) as asking:
            return await asking.ask("truth-echo")

    without_credit = asyncio.run(ask())
    assert without_credit.status == 429
    granted = installation.crun("credit", "grant", "--organization", slug, "--amount-usd", "1", "--reason", "a gift")
    assert granted.returncode == 0, granted.stderr

    assert asyncio.run(ask()).is_whole


def test_an_export_of_the_catalog_imports_without_any_change(installation: Installation) -> None:
    exported = installation.crun("catalog", "export")
    assert exported.returncode == 0
    imported = installation.crun("catalog", "import", "-", stdin=exported.stdout)
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.count("0 created, 0 updated") == 4
    assert "removed" not in imported.stdout


def test_a_healthy_installation_is_well_by_its_doctor(installation: Installation) -> None:
    said = installation.crun("doctor")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "FAIL" not in said.stdout
    assert said.stdout.strip().endswith("CRUN is well.")


def test_without_its_database_a_command_says_so_and_fails(installation: Installation) -> None:
    elsewhere = Installation(installation.home.path / "nobody-lives-here")
    said = elsewhere.crun("key", "list", "--organization", "demo")
    assert said.returncode == 1
    assert "PostgreSQL cannot be reached" in said.stderr
    assert "Traceback" not in said.stderr
    assert not elsewhere.home.path.exists()
