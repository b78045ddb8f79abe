"""`crun prepare`: bring the database up to date and fill a new one. `crun up` calls it before it serves."""

import json
import os

import click
from django.core.management import call_command

from crun.database.roles import apply, wanted_logins
from crun.seeding import seed


@click.command(hidden=True)
def prepare() -> None:
    """Check, migrate, make the database roles, seed; print what a first start made as one JSON line."""
    call_command("check", fail_level="ERROR", verbosity=0)
    call_command("migrate", interactive=False, verbosity=0)
    if logins := wanted_logins():
        apply(logins)
    click.echo(json.dumps(seed(sandbox_url=os.environ.get("SANDBOX_URL"), environment=os.environ)))
