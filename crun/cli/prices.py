"""`crun price`: list prices, organizations' price books, and what a new price would have cost."""

import getpass
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click
from django.utils import timezone

from apps.billing.models import PriceRule
from apps.billing.pricing.loading import amounts_of, book_rule
from apps.billing.pricing.preview import preview_price, yesterday
from apps.billing.pricing.totals import ChangeTable
from apps.billing.pricing.versions import (
    RuleDraft,
    add_rule,
    add_version,
    draft_version,
    replaced_at,
    whole_second,
)
from apps.catalog.models import PriceVersion
from apps.catalog.price_document import parse_variants
from apps.catalog.price_entries import AMOUNTS, FLAT, PriceEntry, VariantEntry, variants_from_json
from apps.catalog.snapshot import price_from_version
from apps.core.errors import NotFound
from apps.core.money import format_usd
from crun.cli.credit import Moment
from crun.cli.keys import organization

Decorated = Callable[..., Any]


class Number(click.ParamType[Decimal]):
    """An exact decimal number."""

    name = "number"

    def convert(self, value: str | Decimal, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            number = Decimal(value)
        except InvalidOperation:
            self.fail(f"{value!r} is no decimal number", param, ctx)
        if not number.is_finite():
            self.fail(f"{value!r} is no decimal number", param, ctx)
        return number


class Variants(click.ParamType[tuple[VariantEntry, ...]]):
    """A file with variants as the catalog document writes them."""

    name = "file"

    def convert(
        self, value: str | tuple[VariantEntry, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[VariantEntry, ...]:
        if isinstance(value, tuple):
            return value
        try:
            text = Path(value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value} cannot be read: {error}", param, ctx)
        variants, problems = parse_variants(text)
        if problems:
            self.fail("; ".join(f"line {problem}" for problem in problems), param, ctx)
        return variants


def amount_options(*, required: bool) -> Callable[[Decorated], Decorated]:
    """An option for each amount of a price; input and output may be required."""

    def decorate(command: Decorated) -> Decorated:
        for name in reversed(AMOUNTS):
            unit = f"USD {name.replace('_', ' ')}" if name in FLAT else "USD per million tokens"
            must = required and name in ("input", "output")
            command = click.option(f"--{name.replace('_', '-')}", type=Number(), required=must, help=unit)(command)
        return command

    return decorate


variants_option = click.option(
    "--variants", type=Variants(), default=(), help="YAML file with a list of variants, as in the catalog document."
)
from_option = click.option("--from", "starts_at", type=Moment(), help="ISO 8601 moment, UTC by default. Absent: now.")
past_option = click.option("--allow-past", is_flag=True, help="Let it start in the past, to re-rate what was billed.")


@click.group()
def price() -> None:
    """What models cost, and what organizations pay instead."""


@price.command("set")
@click.argument("model")
@amount_options(required=True)
@variants_option
@from_option
@past_option
@click.option("--note", default="", help="What the version is for.")
def set_price(
    model: str,
    *,
    variants: tuple[VariantEntry, ...],
    starts_at: datetime | None,
    allow_past: bool,
    note: str,
    **amounts: Decimal | None,
) -> None:
    """Add a price version of MODEL and print its number. Versions are never changed; the latest start counts.

    What is not named costs as the bucket that contains it. Running gateways follow within two seconds."""
    entry = _entry(amounts, variants, starts_at, note)
    before = _in_force(model, entry.starts_at)
    made = add_version(model, entry, actor=getpass.getuser(), allow_past=allow_past)
    for lost in _lost(before, made):
        click.echo(f"note: {lost}", err=True)
    click.echo(str(made.pk))
    _warn_of_later(made, "version")
    if made.starts_at <= timezone.now() and allow_past:
        click.echo(f"To correct what was billed since then: crun rerate --model {model} --from ... --to ...", err=True)


@price.command("list")
@click.argument("model")
def list_prices(model: str) -> None:
    """List the price versions of MODEL, latest first: number, start, amounts in USD, variants, note."""
    rows = list(PriceVersion.objects.filter(model_id=model).order_by("-starts_at"))
    if not rows:
        raise NotFound(f"there is no price of a model {model!r}")
    for row in rows:
        amounts = " ".join(f"{name}={_plain(value)}" for name in AMOUNTS if (value := getattr(row, name)) is not None)
        variants = "; ".join(variant.conditions() for variant in variants_from_json(row.variants))
        click.echo("\t".join([str(row.pk), _moment(row.starts_at), amounts, variants, row.note]).rstrip("\t"))


@price.command("preview")
@click.argument("model")
@amount_options(required=True)
@variants_option
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="UTC day whose traffic is rated. Absent: yesterday.")
def preview(model: str, *, variants: tuple[VariantEntry, ...], day: datetime | None, **amounts: Decimal | None) -> None:
    """Print what a day's traffic of MODEL cost and would cost at this list price, by organization. Changes nothing."""
    listed = price_from_version(draft_version(model, _entry(amounts, variants, None, "")))
    wanted: date = day.date() if day else yesterday()
    click.echo(f"{model} on {wanted} (UTC); organizations keep the rules of their price books", err=True)
    print_changes(preview_price(model, listed, wanted))


@price.group()
def rule() -> None:
    """Price books: how what an organization pays differs from the list."""


@rule.command("set")
@click.option("--organization", "slug", required=True, help="Slug of the organization.")
@click.option("--model", help="Model that the rule is for, before any rule for all. Absent: every model.")
@click.option("--percent", type=Number(), help="Change of the list price: -10 is a discount, 20 a markup, 0 the list.")
@amount_options(required=False)
@from_option
@past_option
@click.option("--note", default="", help="What was agreed.")
def set_rule(slug: str, *, model: str | None, percent: Decimal | None, **options: Any) -> None:
    """Add a rule to an organization's price book and print its id: a percentage, or fixed prices of one model.

    Rules are never changed: a later one for the same model, or for all models, replaces it."""
    amounts = {name: options[name] for name in AMOUNTS if options[name] is not None}
    draft = RuleDraft(
        organization_id=organization(slug).id,
        model_id=model,
        starts_at=options["starts_at"],
        percent=percent,
        amounts=amounts or None,
        note=options["note"],
    )
    made = add_rule(draft, actor=getpass.getuser(), allow_past=options["allow_past"])
    click.echo(made.id)
    _warn_of_later(made, "rule")


@rule.command("list")
@click.option("--organization", "slug", help="Slug of one organization.")
def list_rules(slug: str | None) -> None:
    """List rules, latest first: id, organization, model, start, what it says, note."""
    rows = PriceRule.objects.select_related("organization").order_by("organization__slug", "model_id", "-starts_at")
    if slug is not None:
        rows = rows.for_organization(organization(slug).id)
    for row in rows:
        says = " ".join(f"{name}={_plain(amount)}" for name, amount in amounts_of(row).items())
        names = [row.id, row.organization.slug, row.model_id or "every model", _moment(row.starts_at)]
        click.echo("\t".join([*names, says or book_rule(row).in_words(), row.note]).rstrip("\t"))


def print_changes(table: ChangeTable) -> None:
    """One line an organization, largest difference first, and the total; exact USD."""
    click.echo("organization\trequests\tchanged\tbefore_usd\tafter_usd\tdifference_usd")
    for name, change in [*table.rows, ("TOTAL", table.total)]:
        amounts = (change.before_nanos, change.after_nanos, change.difference_nanos)
        click.echo("\t".join([name, str(change.requests), str(change.changed), *map(format_usd, amounts)]))
    if table.unposted:
        click.echo(f"note: {table.unposted} requests wait for posting and are not counted", err=True)
    if table.total.capped:
        click.echo(capped_note(table), err=True)


def capped_note(table: ChangeTable) -> str:
    """That some requests cost no more than was held for them, and how much that leaves out."""
    lost = format_usd(table.total.uncharged_nanos)
    return f"note: {table.total.capped} requests cost no more than was held for them: {lost} USD are not charged"


def _entry(
    amounts: dict[str, Decimal | None], variants: tuple[VariantEntry, ...], starts_at: datetime | None, note: str
) -> PriceEntry:
    given: dict[str, Any] = {name: amount for name, amount in amounts.items() if amount is not None}
    return PriceEntry(starts_at=starts_at or whole_second(timezone.now()), variants=variants, note=note, **given)


def _in_force(model: str, moment: datetime) -> PriceVersion | None:
    started = PriceVersion.objects.filter(model_id=model, starts_at__lte=moment)
    return started.order_by("-starts_at").first()


def _lost(before: PriceVersion | None, made: PriceVersion) -> list[str]:
    """What the version before had and the new one has not: easily forgotten."""
    if before is None:
        return []
    gone = [name for name in AMOUNTS if getattr(before, name) is not None and getattr(made, name) is None]
    said = [f"version {before.pk} had {', '.join(gone)}; this one has not"] if gone else []
    if before.variants and not made.variants:
        said.append(f"version {before.pk} had {len(before.variants)} variants; this one has none")
    return said


def _warn_of_later(made: PriceVersion | PriceRule, what: str) -> None:
    """Say so when what was added in the past has an end already: it may correct less than was meant."""
    if until := replaced_at(made):
        click.echo(
            f"warning: this {what} counts from {_moment(made.starts_at)} to {_moment(until)} only: from then on a later"
            " one does. To correct that time too, add one with a later start.",
            err=True,
        )


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _moment(moment: datetime) -> str:
    """All of it: a start that is printed can be typed in again and means the same."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
