"""Adding to what is never changed: new price versions of the list, and new rules of organizations' price books."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.billing.models import PriceRule
from apps.billing.pricing.loading import amounts_of
from apps.catalog.models import Model, PriceVersion
from apps.catalog.price_entries import PriceEntry, variants_as_json
from apps.core.changes import announce_on_commit
from apps.core.errors import Conflict, InvalidInput, NotFound

START_TOLERANCE: Final = timedelta(minutes=5)
"""How long ago a start may lie that is meant as "now"."""


def whole_second(moment: datetime) -> datetime:
    """The moment without its fraction: starts are printed in seconds, and what is printed must be what is kept."""
    return moment.replace(microsecond=0)


@dataclass(frozen=True, kw_only=True)
class RuleDraft:
    """A rule to be: `percent` or `amounts` (USD, by the names of `price_entries.AMOUNTS`), for a model or for all."""

    organization_id: str
    model_id: str | None
    starts_at: datetime | None = None
    percent: Decimal | None = None
    amounts: Mapping[str, Decimal] | None = None
    note: str = ""


def draft_version(model_id: str, entry: PriceEntry) -> PriceVersion:
    """A price version that is not saved. Raises NotFound for the model and InvalidInput for an amount out of range."""
    model = Model.objects.filter(pk=model_id).first()
    if model is None:
        raise NotFound(f"there is no model {model_id!r}: crun catalog export lists them")
    row = PriceVersion(
        model=model,
        starts_at=entry.starts_at,
        **entry.given(),
        variants=variants_as_json(entry.variants),
        note=entry.note,
    )
    _check(row, exclude=["model", "starts_at"])
    return row


@transaction.atomic
def add_version(model_id: str, entry: PriceEntry, *, actor: str, allow_past: bool = False) -> PriceVersion:
    """A new list price, which running gateways follow within two seconds.

    Raises as `draft_version`, InvalidInput for a start in the past unless `allow_past`, and Conflict when a version
    with this start exists. A version in the past changes no bill by itself: that is what a re-rating is for."""
    row = draft_version(model_id, entry)
    row.starts_at = _start(entry.starts_at, allow_past)
    row.created_by = actor
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        start = f"{row.starts_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        problem = f"{model_id} has a version from {start} UTC; it is never replaced: choose another start"
        raise Conflict(problem) from None
    announce_on_commit("catalog")
    return row


@transaction.atomic
def add_rule(draft: RuleDraft, *, actor: str, allow_past: bool = False) -> PriceRule:
    """A new rule of an organization's price book, which running gateways follow within two seconds.

    Raises InvalidInput, NotFound for the model, and Conflict when a rule with this start exists, as `add_version`."""
    if draft.model_id is not None and not Model.objects.filter(pk=draft.model_id).exists():
        raise NotFound(f"there is no model {draft.model_id!r}: crun catalog export lists them")
    amounts = None
    if draft.amounts is not None:
        amounts = {name: f"{amount.normalize():f}" for name, amount in draft.amounts.items()}
    row = PriceRule(
        organization_id=draft.organization_id,
        model_id=draft.model_id,
        starts_at=_start(draft.starts_at or whole_second(timezone.now()), allow_past),
        percent=draft.percent,
        amounts=amounts,
        note=draft.note,
        created_by=actor,
    )
    check_rule(row)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        start = f"{row.starts_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        raise Conflict(f"a rule from {start} UTC exists; it is never replaced: choose another start") from None
    announce_on_commit("catalog")
    return row


def replaced_at(row: PriceVersion | PriceRule) -> datetime | None:
    """Since when a later version of its model, or a rule for the same, counts in its place; None while it counts.

    So what is added in the past may correct nothing, or only a moment of it."""
    if isinstance(row, PriceVersion):
        same = PriceVersion.objects.filter(model_id=row.model_id)
        return _next_start(same.filter(starts_at__gt=row.starts_at))
    rules = PriceRule.objects.for_organization(row.organization_id).filter(model_id=row.model_id)
    return _next_start(rules.filter(starts_at__gt=row.starts_at))


def _next_start(later: QuerySet[Any]) -> datetime | None:
    begun = later.filter(starts_at__lte=timezone.now()).order_by("starts_at")
    start: datetime | None = begun.values_list("starts_at", flat=True).first()
    return start


def check_rule(row: PriceRule) -> None:
    """Raises InvalidInput for a rule without a meaning or with an amount out of range."""
    if (row.percent is None) == (row.amounts is None):
        raise InvalidInput("a rule is either a change in percent or fixed prices")
    if row.amounts is not None:
        if row.model_id is None:
            raise InvalidInput("fixed prices are for one model")
        if not {"input", "output"} <= row.amounts.keys():
            raise InvalidInput("fixed prices need at least those of input and output")
        _check(PriceVersion(**amounts_of(row)), exclude=["model", "starts_at"])
    _check(row, exclude=["organization", "model", "starts_at"])


def _start(wanted: datetime, allow_past: bool) -> datetime:
    now = timezone.now()
    if allow_past or wanted > now:
        return wanted
    if wanted < now - START_TOLERANCE:
        raise InvalidInput(
            "the start lies in the past, and what was used since then is rated already: to correct it, say so and"
            " re-rate the window afterwards"
        )
    return whole_second(now)


def _check(row: PriceVersion | PriceRule, *, exclude: list[str]) -> None:
    try:
        row.clean_fields(exclude=exclude)
    except ValidationError as error:
        said = "; ".join(f"{name}: {' '.join(messages)}" for name, messages in error.message_dict.items())
        raise InvalidInput(said) from None
