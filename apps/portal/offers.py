"""What a customer may know of the models on offer: limits and prices, nothing of the upstream."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils import timezone

from apps.billing.pricing.book import PriceBook
from apps.billing.pricing.loading import load_book
from apps.catalog.contracts import CONTAINING, OfferedModel, Price, Rates
from apps.catalog.snapshot import load_snapshot

_PER_TOKENS = {
    "cache_write_1h": "cache write for an hour",
    "audio_input": "audio input",
    "image_input": "image input",
    "audio_output": "audio output",
    "image_output": "image output",
}
_EACH_REQUEST = "each request"
_EACH_IMAGE = "each image sent"


@dataclass(frozen=True)
class Extra:
    """A price that few models have: nano-USD per million tokens, or flat."""

    label: str
    nanos: int


def extras_of(rates: Rates) -> list[Extra]:
    """What is charged beyond the usual buckets, or at another price than the bucket that contains it."""
    extras = [
        Extra(label, rates.of(bucket))
        for bucket, label in _PER_TOKENS.items()
        if rates.of(bucket) != rates.of(CONTAINING[bucket])
    ]
    if rates.per_request:
        extras.append(Extra(_EACH_REQUEST, rates.per_request))
    if rates.per_image:
        extras.append(Extra(_EACH_IMAGE, rates.per_image))
    return extras


@dataclass(frozen=True)
class Tier:
    """Other prices, for requests that meet conditions. `extras` are those that differ from the usual ones."""

    conditions: str
    price: Rates
    extras: list[Extra]


@dataclass(frozen=True)
class Announced:
    """A price that is known but not in force yet. `rule` says how it differs from the list, "" when it does not."""

    starts_at: datetime
    price: Price
    extras: list[Extra]
    tiers: list[Tier]
    rule: str


@dataclass(frozen=True)
class Offer:
    """A model that can be called now, at the organization's own price.

    `listed` and `rule` are the list price and how its own differs from it; None and "" when it does not."""

    id: str
    name: str
    vendor: str
    description: str
    context_length: int
    max_output_tokens: int
    input_modalities: tuple[str, ...]
    output_modalities: tuple[str, ...]
    price: Price
    extras: list[Extra]
    tiers: list[Tier]
    announced: tuple[Announced, ...]
    listed: Price | None = None
    rule: str = ""

    @property
    def search_text(self) -> str:
        return f"{self.id} {self.name} {self.vendor}".casefold()


@dataclass(frozen=True)
class Wanted:
    """What the visitor filters by; an empty word does not filter."""

    text: str = ""
    vendor: str = ""
    modality: str = ""

    def admits(self, offer: Offer) -> bool:
        return (
            all(word in offer.search_text for word in self.text.casefold().split())
            and self.vendor in ("", offer.vendor)
            and (not self.modality or self.modality in offer.input_modalities)
        )


@dataclass(frozen=True)
class _Prices:
    """What one organization pays for a model at any moment (Unix seconds)."""

    organization_id: str
    model: OfferedModel
    book: PriceBook

    def at(self, moment: float) -> tuple[Price, Price] | None:
        """The list price and its own; None before the first price."""
        listed = self.model.price_at(moment)
        if listed is None:
            return None
        return listed, self.book.price_for(self.organization_id, self.model.id, listed, moment=moment)

    def words_at(self, moment: float) -> str:
        """How its own price differs from the list; "" when it does not."""
        rule = self.book.rule_for(self.organization_id, self.model.id, moment=moment)
        return rule.in_words() if rule is not None and rule.is_change else ""

    def announced(self, now: float) -> Iterator[Announced]:
        """What changes from now on, soonest first: new list prices, and rules that begin."""
        moments = {price.starts_at for price in self.model.prices}
        moments.update(self.book.starts(self.organization_id, self.model.id))
        before = self.at(now)
        for moment in sorted(moment for moment in moments if moment > now):
            found = self.at(moment)
            if found is not None and found != before:
                starts_at, own = datetime.fromtimestamp(moment, UTC), found[1]
                yield Announced(starts_at, own, extras_of(own), _tiers(own), self.words_at(moment))
            before = found


def current_offers(organization_id: str) -> list[Offer]:
    """All models with a usable route and a price in force, by vendor and id, at the organization's own prices."""
    now = timezone.now().timestamp()
    book = load_book(organization_id=organization_id)
    models = load_snapshot().models.values()
    offers = (_offer(_Prices(organization_id, model, book), now) for model in models)
    return sorted(filter(None, offers), key=lambda offer: (offer.vendor.casefold(), offer.id))


def _offer(prices: _Prices, now: float) -> Offer | None:
    found, model = prices.at(now), prices.model
    if found is None:
        return None
    (listed, price), words = found, prices.words_at(now)
    return Offer(
        id=model.id,
        name=model.name,
        vendor=model.vendor,
        description=model.description,
        context_length=model.context_length,
        max_output_tokens=model.max_output_tokens,
        input_modalities=model.input_modalities,
        output_modalities=model.output_modalities,
        price=price,
        extras=extras_of(price),
        tiers=_tiers(price),
        announced=tuple(prices.announced(now)),
        listed=listed if words else None,
        rule=words,
    )


def _tiers(price: Price) -> list[Tier]:
    usual = _by_label(price)
    tiers = []
    for variant in price.variants:
        own = _by_label(variant)
        labels = dict.fromkeys(extra.label for extra in (*extras_of(price), *extras_of(variant)))
        differing = [Extra(label, own[label]) for label in labels if own[label] != usual[label]]
        tiers.append(Tier(variant.conditions, variant, differing))
    return tiers


def _by_label(rates: Rates) -> dict[str, int]:
    tokens = {label: rates.of(bucket) for bucket, label in _PER_TOKENS.items()}
    return {**tokens, _EACH_REQUEST: rates.per_request, _EACH_IMAGE: rates.per_image}
