"""`crun credit`: an organization's credit."""

from datetime import UTC, datetime

import click

from apps.billing.grants import Credit, grant_credit, in_order_of_use
from apps.billing.ledger import balance_nanos
from apps.billing.models import Grant, GrantSource
from apps.core.amount_fields import plain_amount
from apps.core.ids import new_id
from apps.core.money import format_usd, nanos_from_usd
from crun.cli.keys import organization

ACTOR = "crun credit grant"
SOURCES = [source.value for source in GrantSource]


class Dollars(click.ParamType[int]):
    """An exact amount in USD, as nano-USD."""

    name = "amount"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return nanos_from_usd(plain_amount(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[datetime]):
    """An ISO 8601 moment; without an offset it is UTC."""

    name = "moment"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no ISO 8601 moment such as 2027-01-31T00:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group()
def credit() -> None:
    """What organizations have to spend."""


@credit.command()
@click.option("--organization", "slug", required=True, help="Slug of the organization, such as `demo`.")
@click.option("--amount-usd", "amount_nanos", type=Dollars(), required=True, help="How much, such as 10 or 0.25.")
@click.option("--reason", required=True, help="Why; the customer sees it.")
@click.option("--expires-at", type=Moment(), help="ISO 8601 moment after which the rest is void. Never when absent.")
@click.option("--source", type=click.Choice(SOURCES), default=GrantSource.MANUAL.value, show_default=True)
@click.option("--idempotency-key", help="Repeating a command with the same key grants nothing again.")
def grant(
    slug: str,
    amount_nanos: int,
    reason: str,
    expires_at: datetime | None,
    source: str,
    idempotency_key: str | None,
) -> None:
    """Grant credit and print the grant's id. A debt of the organization is paid from it at once."""
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise click.BadParameter("credit cannot end in the past", param_hint="--expires-at")
    made = grant_credit(
        organization(slug).id,
        Credit(amount_nanos, GrantSource(source), expires_at),
        idempotency_key=idempotency_key or new_id("cli"),
        reason=reason,
        actor=ACTOR,
    )
    click.echo(made.id)


@credit.command()
@click.option("--organization", "slug", required=True, help="Slug of the organization.")
def balance(slug: str) -> None:
    """Print the balance in USD, all nine places; below zero is a debt."""
    click.echo(format_usd(balance_nanos(organization(slug).id)))


@credit.command("list")
@click.option("--organization", "slug", required=True, help="Slug of the organization.")
def list_grants(slug: str) -> None:
    """List grants in the order of use: id, source, USD left, USD granted, expiry, reason."""
    grants = in_order_of_use(Grant.objects.for_organization(organization(slug).id)).select_related("transaction")
    for row in grants:
        expiry = f"{row.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if row.expires_at else "never"
        left, amount = format_usd(row.remaining_nanos), format_usd(row.amount_nanos)
        click.echo("\t".join([row.id, row.source, left, amount, expiry, row.transaction.reason]))
