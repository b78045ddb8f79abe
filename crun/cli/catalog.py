"""`crun catalog`: the catalog as a YAML document, in and out."""

import sys
from typing import BinaryIO, NoReturn

import click

from apps.catalog.document import CatalogDocument, CatalogDocumentError, parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import ImportReport, Tally, import_catalog
from apps.catalog.models import Provider
from apps.core.errors import Conflict, InvalidInput

ACTOR = "crun catalog import"


@click.group()
def catalog() -> None:
    """Providers, models, routes and prices as one YAML document."""


@catalog.command("import")
@click.argument("file", type=click.File("rb"))
def import_file(file: BinaryIO) -> None:
    """Bring FILE (- for standard input) into the catalog.

    Providers and models of the file are made what the file says; all others are left alone. Prices are only
    added. Running gateways follow within two seconds. Nothing is changed when the file has a problem."""
    document = _read(file)
    for warning in document.warnings:
        click.echo(f"warning: {warning}", err=True)
    try:
        report = import_catalog(document, actor=ACTOR)
    except (Conflict, InvalidInput) as error:
        _fail(error.message)
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    for line in _summary(report):
        click.echo(line)


@catalog.command("export")
def export() -> None:
    """Write the whole catalog to standard output, without API keys."""
    click.echo(render_catalog(export_catalog()), nl=False)


def _read(file: BinaryIO) -> CatalogDocument:
    source = str(getattr(file, "name", "<stdin>"))
    content = file.read()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        _fail(f"{source}:{line}: is not UTF-8 text")
    known_providers = set(Provider.objects.values_list("id", flat=True))
    try:
        return parse_catalog(text, source=source, known_providers=known_providers)
    except CatalogDocumentError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    click.echo("Nothing was imported.", err=True)
    sys.exit(1)


def _summary(report: ImportReport) -> list[str]:
    return [
        f"{kind:<10}{_sentence(tally)}"
        for kind, tally in (
            ("providers", report.providers),
            ("models", report.models),
            ("routes", report.routes),
            ("prices", report.prices),
        )
    ]


def _sentence(tally: Tally) -> str:
    counts = [f"{tally.created} created", f"{tally.updated} updated", f"{tally.unchanged} unchanged"]
    return ", ".join([*counts, f"{tally.removed} removed"] if tally.removed else counts)
