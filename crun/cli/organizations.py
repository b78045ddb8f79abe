"""`crun org`: organizations."""

import click

from apps.accounts.organizations import create_organization


@click.group()
def org() -> None:
    """Organizations: the customers of this installation."""


@org.command()
@click.argument("name")
@click.option("--slug", help="Short name for URLs and commands; made from NAME when absent.")
def create(name: str, slug: str | None) -> None:
    """Create an organization called NAME and print its slug."""
    click.echo(create_organization(name, slug=slug).slug)
