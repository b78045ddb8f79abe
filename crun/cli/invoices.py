"""`crun invoice`: what was issued, and issuing what is missing."""

from datetime import UTC

import click
from django.utils import timezone

from apps.billing.invoices.monthly import issue_month
from apps.billing.invoices.months import Month
from apps.billing.invoices.payments import issue_missing
from apps.billing.models import Invoice
from crun.cli.keys import organization

ACTOR = "crun invoice issue-month"


class UtcMonth(click.ParamType[Month]):
    """A month such as 2026-11."""

    name = "month"

    def convert(self, value: str | Month, param: click.Parameter | None, ctx: click.Context | None) -> Month:
        try:
            return value if isinstance(value, Month) else Month.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def invoice() -> None:
    """Invoices of organizations."""


@invoice.command("list")
@click.option("--organization", "slug", required=True, help="Slug of the organization.")
def list_invoices(slug: str) -> None:
    """List invoices, the latest first: number, UTC day, kind, month, status, total in USD, id."""
    for row in Invoice.objects.for_organization(organization(slug).id).order_by("-id"):
        month = f"{row.month:%Y-%m}" if row.month else "-"
        total = f"{row.total_cents // 100}.{row.total_cents % 100:02d}"
        day = f"{row.issued_at.astimezone(UTC):%Y-%m-%d}"
        click.echo("\t".join([row.number, day, row.kind, month, row.status, total, row.id]))


@invoice.command("issue-month")
@click.option("--organization", "slug", required=True, help="Slug of the organization.")
@click.option("--month", type=UtcMonth(), required=True, help="A closed UTC month, such as 2026-11.")
def issue_one_month(slug: str, month: Month) -> None:
    """Issue the monthly invoice of an organization and print its number; the task does it every hour anyway.

    Nothing is printed when there is one already or nothing is owed for the month.
    """
    made = issue_month(organization(slug).id, month, now=timezone.now(), actor=ACTOR)
    if made is not None:
        click.echo(made.number)


@invoice.command("issue-payments")
def issue_payments() -> None:
    """Issue what is missing for payments and refunds, and print how many documents; the task does it every minute."""
    click.echo(issue_missing())
