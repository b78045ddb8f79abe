"""The `crun` command: one file a subject, loaded when it is called."""

import importlib
import sys

import click
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from apps.core.errors import DomainError
from crun import __version__
from crun.cli.setup import use_django

WITHOUT_DJANGO = {"up": "crun.cli.up:up", "sandbox": "crun.cli.sandbox:sandbox"}
WITH_DJANGO = {
    "catalog": "crun.cli.catalog:catalog",
    "credit": "crun.cli.credit:credit",
    "database": "crun.cli.database:database",
    "doctor": "crun.cli.doctor:doctor",
    "invoice": "crun.cli.invoices:invoice",
    "key": "crun.cli.keys:key",
    "ledger": "crun.cli.ledger:ledger",
    "org": "crun.cli.organizations:org",
    "payments": "crun.cli.payments:payments",
    "prepare": "crun.cli.prepare:prepare",
    "price": "crun.cli.prices:price",
    "reconcile": "crun.cli.reconcile:reconcile",
    "rerate": "crun.cli.rerate:rerate_window",
    "usage": "crun.cli.usage:usage",
}
DATABASE_AWAY = "PostgreSQL cannot be reached. Start it with `crun up`, or set DATABASE_URL; `crun doctor` tells more."


class Commands(click.Group):
    """Imports a command's module only when it is asked for; Django is ready by then where it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*WITHOUT_DJANGO, *WITH_DJANGO])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in WITH_DJANGO:
            use_django()
        where = WITHOUT_DJANGO.get(cmd_name) or WITH_DJANGO.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crun")
def commands() -> None:
    """Run and operate CRUN: one API in front of many language models."""


def main() -> None:
    """The console script. Exit codes: 0 done, 1 refused or failed, 2 wrong usage."""
    try:
        commands(prog_name="crun")
    except DomainError as error:
        _fail(error.message)
    except ImproperlyConfigured as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough; nobody is there to be told
    except OSError as error:
        _fail(str(error))
    except OperationalError as error:
        _fail(f"{DATABASE_AWAY}\n({str(error).splitlines()[0]})")


def _fail(message: str) -> None:
    click.echo(f"crun: {message}", err=True)
    sys.exit(1)
