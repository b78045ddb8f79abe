"""How the portal words a receipt; what stands in it comes from billing, as in the API."""

from dataclasses import dataclass
from typing import Final

from apps.billing.receipts import PER_IMAGE, PER_REQUEST, Receipt, ReceiptLine

LABELS: Final = {
    "input": "Input",
    "cache_read": "Input read from the prompt cache",
    "cache_write": "Input written to the prompt cache",
    "cache_write_1h": "Input written to the prompt cache for an hour",
    "audio_input": "Audio input",
    "image_input": "Image input",
    "output": "Output",
    "reasoning": "Reasoning output",
    "audio_output": "Audio output",
    "image_output": "Image output",
    PER_REQUEST: "Price of a request",
    PER_IMAGE: "Images in the request",
}


@dataclass(frozen=True)
class Status:
    """How a request ended, for the badge that the table of requests has too."""

    status: str
    get_status_display: str
    http_status: int
    error_code: str


def labelled(receipt: Receipt) -> list[tuple[str, ReceiptLine]]:
    """The lines with their names; none when the prices are unknown here."""
    if receipt.arithmetic is None:
        return []
    return [(LABELS[line.item], line) for line in receipt.arithmetic.lines]


def status_of(receipt: Receipt) -> Status:
    """What the badge shows."""
    closed = receipt.closed
    return Status(closed.outcome.value, closed.outcome.value.title(), closed.http_status, closed.error_code)
