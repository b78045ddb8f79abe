"""`crun catalog import` and `crun catalog export`: exit codes, messages, streams."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from apps.catalog.models import Model, PriceVersion, Provider
from crun.cli.catalog import catalog

pytestmark = pytest.mark.django_db

GOOD = """\
providers:
  - {id: local, dialect: openai, base_url: "http://127.0.0.1:9101/v1", api_key: sk-very-secret}
models:
  - id: bench-model
    context_length: 128000
    max_output_tokens: 16384
    routes: [{provider: local, upstream_model: gpt-4o-mini}]
    prices: [{from: "2026-01-01T00:00:00Z", input: "0.15", output: "0.60"}]
"""


def run(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(catalog, arguments, input=text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(GOOD)
    return path


def test_an_import_says_what_it_did(file: Path) -> None:
    result = run("import", str(file))

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "providers 1 created, 0 updated, 0 unchanged",
        "models    1 created, 0 updated, 0 unchanged",
        "routes    1 created, 0 updated, 0 unchanged",
        "prices    1 created, 0 updated, 0 unchanged",
    ]
    assert PriceVersion.objects.get().created_by == "crun catalog import"


def test_a_dash_reads_standard_input() -> None:
    result = run("import", "-", text=GOOD)

    assert result.exit_code == 0
    assert Model.objects.get().id == "bench-model"


def test_export_writes_what_import_reads_without_the_api_key(file: Path) -> None:
    run("import", str(file))

    exported = run("export")
    again = run("import", "-", text=exported.stdout)

    assert (exported.exit_code, exported.stderr) == (0, "")
    assert "bench-model" in exported.stdout
    assert "sk-very-secret" not in exported.stdout
    assert again.stdout.count("1 unchanged") == 4


def test_standard_input_is_named_in_messages() -> None:
    assert run("import", "-", text="models: 3").stderr.startswith("<stdin>:1: models: must be a list")


def test_a_bad_document_is_refused_with_its_lines_on_standard_error(file: Path) -> None:
    file.write_text(GOOD.replace('"0.15"', "abc").replace("context_length: 128000", "context_lenght: 128000"))

    result = run("import", str(file))

    assert (result.exit_code, result.stdout) == (1, "")
    first, second, third, *rest = result.stderr.splitlines()
    assert first.startswith(f"{file}:4: models[0].context_length: is required")
    assert second.startswith(f'{file}:5: models[0].context_lenght: unknown key; did you mean "context_length"?')
    assert third.startswith(f"{file}:8: models[0].prices[0].input: must be a decimal number")
    assert rest == ["Nothing was imported."]
    assert not Provider.objects.exists()


def test_text_in_another_encoding_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes(GOOD.encode() + b"# caf\xe9\n")

    result = run("import", str(file))

    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, f"{file}:9: is not UTF-8 text")


def test_a_byte_order_mark_is_no_problem() -> None:
    assert run("import", "-", text=b"\xef\xbb\xbf" + GOOD.encode()).exit_code == 0


def test_a_price_in_conflict_is_an_error(file: Path) -> None:
    run("import", str(file))
    file.write_text(GOOD.replace("0.60", "0.70"))

    result = run("import", str(file))

    assert (result.exit_code, result.stdout) == (1, "")
    assert "bench-model: the price from 2026-01-01T00:00:00Z is stored as input 0.15, output 0.6" in result.stderr


def test_warnings_and_notes_go_to_standard_error(file: Path) -> None:
    run("import", str(file))
    moved = GOOD.replace("9101", "9999").replace(", api_key: sk-very-secret", "").partition("    prices")[0]
    file.write_text(moved)

    result = run("import", str(file))

    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"warning: {file}:4: models[0] (bench-model): has no price: requests are refused until it has one",
        "note: provider local moved to another host: its stored API key was dropped",
    ]


def test_routes_may_name_a_stored_provider() -> None:
    run("import", "-", text=GOOD)
    only_models = "models:" + GOOD.partition("models:")[2].replace("bench-model", "second")

    assert run("import", "-", text=only_models).exit_code == 0
    assert Model.objects.count() == 2


@pytest.mark.parametrize("arguments", [["import"], ["import", "no-such-file.yaml"], ["import", "a", "b"], ["exprot"]])
def test_wrong_usage_has_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
