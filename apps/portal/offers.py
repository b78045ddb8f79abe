"""What a customer may know of the models on offer: limits and prices, nothing of the upstream."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils import timezone

from apps.catalog.contracts import OfferedModel, Price
from apps.catalog.snapshot import load_snapshot


@dataclass(frozen=True)
class Announced:
    """A price that is known but not in force yet."""

    starts_at: datetime
    price: Price


@dataclass(frozen=True)
class Offer:
    """A model that can be called now."""

    id: str
    name: str
    vendor: str
    description: str
    context_length: int
    max_output_tokens: int
    input_modalities: tuple[str, ...]
    output_modalities: tuple[str, ...]
    price: Price
    announced: tuple[Announced, ...]

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


def current_offers() -> list[Offer]:
    """All models with a usable route and a price in force, by vendor and id."""
    now = timezone.now().timestamp()
    offers = (_offer(model, now) for model in load_snapshot().models.values())
    return sorted(filter(None, offers), key=lambda offer: (offer.vendor.casefold(), offer.id))


def _offer(model: OfferedModel, now: float) -> Offer | None:
    price = model.price_at(now)
    if price is None:
        return None
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
        announced=tuple(
            Announced(datetime.fromtimestamp(later.starts_at, UTC), later)
            for later in reversed(model.prices)
            if later.starts_at > now
        ),
    )
