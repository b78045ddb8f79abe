"""What one request used: frozen values that travel through the journal."""

from enum import StrEnum

import msgspec

from apps.catalog.contracts import Price


class Outcome(StrEnum):
    """How a request ended; the `status` of its record."""

    COMPLETED = "completed"
    FAILED = "failed"
    """The upstream refused, broke or never answered."""
    CANCELLED = "cancelled"
    """The client left before the end."""
    INTERRUPTED = "interrupted"
    """Our own process died; billed from the last checkpoint."""


class TokenCounts(msgspec.Struct, frozen=True):
    """Disjoint buckets of tokens: no token stands in two of them. All are 0 or more."""

    input: int = 0
    """Input that no prompt cache served."""
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    """Output without reasoning."""
    reasoning: int = 0


class RequestOpened(msgspec.Struct, frozen=True, tag="open"):
    """Written before the upstream is called. Everything that recovery needs to make a record of it."""

    request_id: str
    organization_id: str
    project_id: str
    key_id: str
    model: str
    provider: str
    upstream_model: str
    streamed: bool
    price: Price
    input_estimate: int
    """Tokens, for requests whose usage the upstream never told."""
    hold_nanos: int | None = None
    """The most that it may cost: what was held for it. None in journals of versions that held nothing."""


class RequestProgress(msgspec.Struct, frozen=True, tag="progress"):
    """A checkpoint of an open stream: output tokens received from the upstream so far, by our own count."""

    request_id: str
    output_tokens: int


class RequestClosed(msgspec.Struct, frozen=True, tag="close"):
    """The end of a request: one usage record. Durations are in milliseconds."""

    opened: RequestOpened
    outcome: Outcome
    http_status: int
    tokens: TokenCounts
    cost_nanos: int
    estimated: bool
    duration_ms: int
    first_byte_ms: int | None = None
    finish_reason: str = ""
    error_code: str = ""
    overage_nanos: int = 0
    """What its tokens would have cost beyond its hold; nobody is billed for it."""


JournalEntry = RequestOpened | RequestProgress | RequestClosed
