"""`crun ledger`: proofs that the money adds up."""

import getpass
import sys

import click

from apps.billing.models import RunCause
from apps.billing.reconciliation.running import reconcile


@click.group()
def ledger() -> None:
    """The books."""


@ledger.command("verify")
def verify_ledger() -> None:
    """Prove the whole ledger against itself, usage, Redis and its chain of hashes: one line a rule.

    The run is kept and stands in the console. Exit code 1 when a rule does not hold.
    """
    run = reconcile(RunCause.SHELL, actor=getpass.getuser())
    for found in run.results.all():
        note = f" ({found.detail})" if found.detail else ""
        click.echo(f"ok      {found.name}{note}" if found.holds else f"FAILED  {found.name}: {found.detail}")
    sys.exit(0 if run.holds else 1)
