"""Price books out of the database: rows become rules, and recorded prices are found again. Synchronous."""

from collections.abc import Collection, Iterable
from datetime import datetime
from decimal import Decimal

from apps.billing.models import PriceRule, ProviderKeyFee
from apps.billing.pricing.book import ALL_MODELS, EVERYBODY, PERCENT_UNIT, BookRule, FeeRule, PriceBook, as_fee
from apps.catalog.contracts import Price, Rates
from apps.catalog.models import PriceVersion
from apps.catalog.price_entries import frozen_rates
from apps.catalog.snapshot import price_from_version


def book_rule(row: PriceRule) -> BookRule:
    """A stored rule as integers."""
    return BookRule(
        rule_id=row.id,
        organization_id=row.organization_id,
        model_id=row.model_id or ALL_MODELS,
        starts_at=row.starts_at.timestamp(),
        change=0 if row.percent is None else int(row.percent * (PERCENT_UNIT // 100)),
        fixed=None if row.amounts is None else Rates(**frozen_rates(amounts_of(row))),
    )


def amounts_of(row: PriceRule) -> dict[str, Decimal]:
    """The fixed amounts of a rule in USD, by name; none for a rule of percent."""
    return {name: Decimal(amount) for name, amount in (row.amounts or {}).items()}


def load_book(*, organization_id: str | None = None, known_at: datetime | None = None) -> PriceBook:
    """The price book of all organizations or of one; `known_at`: as it stood at that moment."""
    rows = PriceRule.objects.all() if organization_id is None else PriceRule.objects.for_organization(organization_id)
    if known_at is not None:
        rows = rows.filter(created_at__lte=known_at)
    return PriceBook(_rules(rows), map(fee_rule, ProviderKeyFee.objects.all()))


def fee_rule(row: ProviderKeyFee) -> FeeRule:
    """A stored fee as integers."""
    ppm = int(row.percent * (PERCENT_UNIT // 100))
    return FeeRule(row.organization_id or EVERYBODY, row.starts_at.timestamp(), ppm)


def load_prices(wanted: Collection[tuple[int, str, int | None]]) -> dict[tuple[int, str, int | None], Price]:
    """The prices of records by (price version, rule, "" for none, fee in ppm, None for none).

    What does not exist is left out."""
    known = _load_prices({(version_id, rule_id) for version_id, rule_id, _ in wanted})
    return {
        (version_id, rule_id, ppm): price if ppm is None else as_fee(price, ppm)
        for version_id, rule_id, ppm in wanted
        if (price := known.get((version_id, rule_id))) is not None
    }


def _load_prices(wanted: Collection[tuple[int, str]]) -> dict[tuple[int, str], Price]:
    versions = PriceVersion.objects.in_bulk({version_id for version_id, _ in wanted})
    prices = {(version_id, ""): price_from_version(version) for version_id, version in versions.items()}
    if rule_ids := {rule_id for _, rule_id in wanted if rule_id}:
        rules = {rule.rule_id: rule for rule in _rules(PriceRule.objects.filter(pk__in=rule_ids))}
        for version_id, rule_id in wanted:
            if rule_id in rules and version_id in versions:
                prices[version_id, rule_id] = rules[rule_id].applied_to(prices[version_id, ""])
    return prices


def load_versions(model_id: str, *, known_at: datetime | None = None) -> tuple[Price, ...]:
    """All price versions of a model, latest start first; `known_at`: those that existed at that moment."""
    rows = PriceVersion.objects.filter(model_id=model_id)
    if known_at is not None:
        rows = rows.filter(created_at__lte=known_at)
    return tuple(price_from_version(row) for row in rows.order_by("-starts_at"))


def _rules(rows: Iterable[PriceRule]) -> Iterable[BookRule]:
    return (book_rule(row) for row in rows)
