"""`crun rerate`: correcting what was billed to the prices that are in force for that time now."""

import getpass
from datetime import datetime

import click

from apps.billing.pricing.records import Window
from apps.billing.pricing.rerating import organization_changes, preview_rerating, rerate
from apps.core.errors import InvalidInput
from apps.core.money import format_usd
from crun.cli.credit import Moment
from crun.cli.prices import capped_note, print_changes


@click.command("rerate")
@click.option("--model", required=True, help="Model whose requests are rated again.")
@click.option("--from", "start", type=Moment(), required=True, help="First moment of the window, ISO 8601, UTC.")
@click.option("--to", "end", type=Moment(), required=True, help="First moment after the window.")
@click.option("--reason", default="", help="Why; customers see it. Needed to apply.")
@click.option("--apply", "is_meant", is_flag=True, help="Do it. Without this the difference is only printed.")
def rerate_window(model: str, *, start: datetime, end: datetime, reason: str, is_meant: bool) -> None:
    """Rate the requests of a window again and charge or give back the difference, organization by organization.

    Without --apply nothing is written. What broke off is finished by the same command, or by the worker within seconds.
    Doing it twice changes nothing the second time."""
    window = Window(model, start, end)
    if not is_meant:
        print_changes(preview_rerating(window))
        click.echo("Nothing was changed: --apply with --reason does it.", err=True)
        return
    if not reason.strip():
        raise InvalidInput("say why with --reason: customers see it in their statements")
    done = rerate(window, reason=reason, actor=getpass.getuser())
    if done is None:
        click.echo("Nothing to correct: what was billed is what the prices of now say. Nothing was written.", err=True)
        _tell_capped(window)
        return
    changes = organization_changes(done)
    click.echo("organization\tcorrected\tdifference_usd")
    for name, number, nanos in [*changes, ("TOTAL", *_sum(changes))]:
        click.echo(f"{name}\t{number}\t{format_usd(nanos)}")
    click.echo(f"{done.id}: {done.status}", err=True)
    _tell_capped(window)


def _tell_capped(window: Window) -> None:
    table = preview_rerating(window)
    if table.total.capped:
        click.echo(capped_note(table), err=True)


def _sum(changes: list[tuple[str, int, int]]) -> tuple[int, int]:
    return sum(number for _, number, _ in changes), sum(nanos for _, _, nanos in changes)
