"""`crun ledger`: proofs that the money adds up."""

import sys

import click

from apps.billing.proofs import verify


@click.group()
def ledger() -> None:
    """The books."""


@ledger.command("verify")
def verify_ledger() -> None:
    """Prove the whole ledger against itself and against usage: one line a rule. Exit code 1 when one does not hold."""
    proofs = verify()
    for proof in proofs:
        click.echo(f"ok      {proof.name}" if proof.holds else f"FAILED  {proof.name}: {proof.detail}")
    sys.exit(0 if all(proof.holds for proof in proofs) else 1)
