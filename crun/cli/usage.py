"""`crun usage`: usage records as files."""

import csv
import sys
from datetime import UTC, datetime

import click
import orjson

from apps.usage.export import COLUMNS, csv_cell, iter_rows
from crun.cli.keys import organization

_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]


@click.group()
def usage() -> None:
    """What was used."""


@usage.command()
@click.option("--organization", "slug", required=True, help="Slug of the organization.")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--since", type=click.DateTime(_MOMENTS), help="From this UTC moment on.")
@click.option("--until", type=click.DateTime(_MOMENTS), help="Before this UTC moment.")
@click.option("--sandbox", is_flag=True, help="The test traffic of sandbox keys instead of the live traffic.")
def export(slug: str, form: str, *, since: datetime | None, until: datetime | None, sandbox: bool) -> None:
    """Write one row a request to standard output, oldest first. Token columns are disjoint; costs are exact USD."""
    rows = iter_rows(organization(slug).id, since=_utc(since), until=_utc(until), sandbox=sandbox)
    if form == "jsonl":
        for row in rows:
            sys.stdout.buffer.write(orjson.dumps(row) + b"\n")
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: csv_cell(value) for name, value in row.items()})


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment else None
