"""`crun reconcile`: what vendors say they charged, beside our own records."""

import getpass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click
from django.conf import settings

from apps.billing.reconciliation.drift import Drift, read_drift
from apps.billing.reconciliation.vendor_costs import import_report
from apps.core.money import format_usd

DAYS_SHOWN = 30


@click.group()
def reconcile() -> None:
    """Vendors' bills beside our own records."""


@reconcile.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--provider", required=True, help="id of the provider whose bill it is")
def import_file(file: Path, provider: str) -> None:
    """Import OpenAI's costs (JSON) or Anthropic's usage or costs (CSV), and print where they differ from our records.

    The same file twice changes nothing; a newer file replaces what an older one said of the same day and model.
    """
    report, is_new = import_report(provider, file.read_bytes(), name=file.name, actor=getpass.getuser())
    if is_new:
        counts = f"{report.new_rows} new, {report.changed_rows} changed, {report.known_rows} known rows"
        click.echo(f"{counts}, {report.first_day} to {report.last_day}", err=True)
    else:
        click.echo(f"imported before, {report.imported_at:%Y-%m-%d %H:%M} UTC: nothing changed", err=True)
    _print(read_drift(provider, report.first_day, report.last_day))


@reconcile.command("drift")
@click.option("--provider", required=True, help="id of the provider")
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="first day; default: 30 days ago")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="last day; default: yesterday")
def drift(provider: str, first: datetime | None, last: datetime | None) -> None:
    """Print tokens and money per day and model: the vendor's and ours. `!` marks what is worth an alert."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    end: date = last.date() if last else yesterday
    start: date = first.date() if first else end - timedelta(days=DAYS_SHOWN - 1)
    _print(read_drift(provider, start, end))


def _print(rows: list[Drift]) -> None:
    click.echo("day\tmodel\tour_tokens\tvendor_tokens\tcharged_usd\tvendor_usd\tworth_a_look")
    for row in rows:
        mark = "!" if row.reasons(settings.VENDOR_DRIFT_PERCENT) else ""
        counts = (_number(row.our_tokens), _number(row.vendor_tokens), _usd(row.charged_nanos), _usd(row.vendor_nanos))
        click.echo("\t".join([str(row.day), row.model, *counts, mark]).rstrip("\t"))


def _number(count: int | None) -> str:
    return "-" if count is None else str(count)


def _usd(nanos: int | None) -> str:
    return "-" if nanos is None else format_usd(nanos)
