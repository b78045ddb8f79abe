"""`crun payments`: what came in, refunds, and events to try again."""

from datetime import UTC
from hashlib import sha256

import click
from django.utils import timezone

from apps.billing.models import Payment, Refund
from apps.billing.payments.inbox import replay
from apps.billing.payments.refunds import refund_payment, refunded_nanos
from apps.core.money import format_usd
from crun.cli.credit import Dollars
from crun.cli.keys import organization

ACTOR = "crun payments refund"


@click.group()
def payments() -> None:
    """Money that customers pay."""


@payments.command("list")
@click.option("--organization", "slug", required=True, help="Slug of the organization.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
def list_payments(slug: str, limit: int) -> None:
    """List payments, the newest first: id, moment, kind, status, USD paid, USD refunded, the provider's reference."""
    for row in Payment.objects.for_organization(organization(slug).id)[:limit]:
        begun = f"{row.created_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        amounts = [format_usd(row.amount_nanos), format_usd(refunded_nanos(row))]
        click.echo("\t".join([row.id, begun, row.kind, row.status, *amounts, row.provider_reference or "-"]))


@payments.command()
@click.argument("payment_id")
@click.option("--amount-usd", "amount_nanos", type=Dollars(), required=True, help="How much, in whole cents.")
@click.option("--reason", required=True, help="Why; the customer sees it.")
@click.option(
    "--idempotency-key", "key", help="The same key is the same refund. [default: payment, amount, reason, UTC day]"
)
def refund(payment_id: str, amount_nanos: int, reason: str, key: str | None) -> None:
    """Send unused credit of a payment back to who paid; print the refund's id and status.

    The same command twice on one UTC day is one refund, so it can be repeated when its answer got lost. For a second
    refund of the same amount and reason on one day, give another --idempotency-key.
    """
    refund_id = _refund_id(key or f"{payment_id}:{amount_nanos}:{reason}:{timezone.now().astimezone(UTC):%Y-%m-%d}")
    if Refund.objects.filter(pk=refund_id).exists():
        click.echo("this refund was asked for before: nothing more is sent", err=True)
    made = refund_payment(payment_id, amount_nanos, reason=reason, actor=ACTOR, refund_id=refund_id)
    click.echo(f"{made.id}\t{made.status}")


def _refund_id(key: str) -> str:
    return f"rfd_{sha256(key.encode()).hexdigest()[:32]}"


@payments.command("replay")
@click.argument("event_id")
def replay_event(event_id: str) -> None:
    """Work again on an event that was refused, parked or given up; print what became of it."""
    click.echo(replay(event_id))
