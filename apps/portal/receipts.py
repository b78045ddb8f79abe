"""How one request's cost came about: tokens of each bucket times the price that was in force."""

from dataclasses import dataclass

from apps.catalog.contracts import Price
from apps.catalog.models import PriceVersion
from apps.catalog.snapshot import price_from_version
from apps.usage.models import UsageRecord

LABELS = {
    "input": "Input",
    "cache_read": "Input read from the prompt cache",
    "cache_write": "Input written to the prompt cache",
    "output": "Output",
    "reasoning": "Reasoning output",
}


@dataclass(frozen=True)
class ReceiptLine:
    """One bucket. `unit_nanos` is nano-USD per million tokens; tokens times that are 10^-15 USD, not rounded."""

    label: str
    tokens: int
    unit_nanos: int
    exact_femtos: int


@dataclass(frozen=True)
class Receipt:
    """The lines of a request and the version of the prices that they use."""

    version: PriceVersion
    lines: list[ReceiptLine]
    exact_femtos: int


def receipt_of(record: UsageRecord) -> Receipt | None:
    """The receipt of a record; None when its price version is unknown here (an imported record)."""
    version = PriceVersion.objects.filter(pk=record.price_version_id).first()
    if version is None:
        return None
    price: Price = price_from_version(version)
    lines = []
    for bucket, label in LABELS.items():
        tokens = getattr(record, f"{bucket}_tokens")
        unit = getattr(price, bucket)
        lines.append(ReceiptLine(label, tokens, unit, tokens * unit))
    return Receipt(version, lines, sum(line.exact_femtos for line in lines))
