"""What one request used: frozen values that travel through the journal."""

from enum import StrEnum
from typing import Final

import msgspec

from apps.catalog.contracts import Price

RESPONSE_CACHE: Final = "(cache)"
"""What stands for the provider of a request that the response cache answered: no provider can have this id."""


class Outcome(StrEnum):
    """How a request ended; the `status` of its record."""

    COMPLETED = "completed"
    FAILED = "failed"
    """The upstream refused, broke or never answered."""
    CANCELLED = "cancelled"
    """The client left before the end."""
    INTERRUPTED = "interrupted"
    """Our own process died; billed from the last checkpoint."""


class TokenCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Disjoint buckets of tokens: no token stands in two of them. All are 0 or more."""

    input: int = 0
    """Text input that no prompt cache served."""
    cache_read: int = 0
    cache_write: int = 0
    """Written to a prompt cache that keeps it for five minutes, or for as long as the vendor likes."""
    output: int = 0
    """Text output without reasoning."""
    reasoning: int = 0
    cache_write_1h: int = 0
    """Written to a prompt cache that keeps it for an hour."""
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0
    image_output: int = 0

    @property
    def all_input(self) -> int:
        """Everything that was read, whether a prompt cache served it or not."""
        plain = self.input + self.cache_read + self.cache_write
        return plain + self.cache_write_1h + self.audio_input + self.image_input

    @property
    def all_output(self) -> int:
        """Everything that was written, with reasoning."""
        return self.output + self.reasoning + self.audio_output + self.image_output


class CacheHit(msgspec.Struct, frozen=True):
    """What a request that the response cache answers pays: `share_ppm` of the price, in parts per million."""

    share_ppm: int
    full_nanos: int
    """What it would cost without the cache."""


class RequestOpened(msgspec.Struct, frozen=True, omit_defaults=True, tag="open"):
    """Written before the upstream is called. Everything that recovery needs to make a record of it.

    Written again, with the same id, when it goes on with another model or at somebody else's expense: the last one
    counts."""

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
    images: int = 0
    """Images in the request, for prices per image."""
    sandbox: bool = False
    """Test traffic: its cost is computed and shown, never charged."""
    balance_nanos: int | None = None
    """The organization's credit at admission, not counting what running requests hold. None where nobody asked."""
    credential_id: str = ""
    """The organization's own provider key that its upstream is asked with; "" for the operator's credential."""
    endpoint: str = ""
    """Where it was asked, as in its path: `chat/completions`. "" in journals of versions that did not say."""
    cache_hit: CacheHit | None = None
    """Set when a kept answer serves it and no upstream is called; `price` is what it pays then."""

    @property
    def is_byok(self) -> bool:
        """Whether its cost here is a fee: the vendor bills the organization itself, or did so for the kept answer."""
        return bool(self.credential_id) or self.price.fee_ppm is not None

    @property
    def ceiling_nanos(self) -> int | None:
        """No more than this is billed. None: no bound, as for test traffic, which holds and pays nothing."""
        return None if self.sandbox else self.hold_nanos

    def split(self, cost_nanos: int) -> tuple[int, int]:
        """What of a cost is billed, and what lies beyond its hold and is billed to nobody."""
        billed = cost_nanos if self.ceiling_nanos is None else min(cost_nanos, self.ceiling_nanos)
        return billed, cost_nanos - billed


class RequestProgress(msgspec.Struct, frozen=True, tag="progress"):
    """A checkpoint of an open stream: output tokens received from the upstream so far, by our own count."""

    request_id: str
    output_tokens: int
    hold_nanos: int | None = None
    """What is held by now, where the hold has grown since it was opened."""


def with_hold_of(opened: RequestOpened, progress: RequestProgress) -> RequestOpened:
    """The request with what it held at this checkpoint."""
    if progress.hold_nanos is None:
        return opened
    return msgspec.structs.replace(opened, hold_nanos=progress.hold_nanos)


class AttemptMade(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call of an upstream among several for one request. Times are in milliseconds from the request's `open`."""

    model: str
    provider: str
    """The operator's id of it: for the operator, never shown to the caller."""
    started_ms: int
    duration_ms: int
    outcome: Outcome
    http_status: int
    error_code: str = ""
    paid_by: str = "operator"
    """`customer`, `operator` or `nobody`, as on the receipt: whatever failed before another was tried is free."""
    credential_id: str = ""
    """The organization's own provider key that it was made with; "" for the operator's credential."""


class GuardrailVerdict(msgspec.Struct, frozen=True):
    """What a guardrail of the organization did with a request or its answer: never what it found there."""

    rule: str
    """Its id. Rules can be deleted: the name is the one that it had."""
    name: str
    direction: str
    """`input` or `output`."""
    action: str
    """`blocked`, `redacted`, `logged`, or `unchecked` where nobody could judge and the rule lets that pass."""

    @property
    def words(self) -> str:
        """What the rule did, for people: `refused the request`."""
        return verdict_in_words(self.action, self.direction)


_IN_WORDS: Final = {
    "blocked": {"input": "refused the request", "output": "withheld the answer"},
    "redacted": {"input": "redacted the request", "output": "redacted the answer"},
    "logged": {"input": "matched the request, and only notes it", "output": "matched the answer, and only notes it"},
    "unchecked": {"input": "could not judge the request", "output": "could not judge the answer"},
}


def verdict_in_words(action: str, direction: str) -> str:
    """What a rule did, for people. What no rule of this version does stays as it is."""
    return _IN_WORDS.get(action, {}).get(direction, f"{action} ({direction})")


class RequestClosed(msgspec.Struct, frozen=True, omit_defaults=True, tag="close"):
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
    service_tier: str = ""
    """The tier it was served and billed at: the customer asked for it and the upstream confirmed it. "" is standard."""
    raw_usage: str = ""
    """The upstream's usage as it was told, in JSON, cut at 2 KiB; "" when it told nothing."""
    review: str = ""
    """Why a human should look: what the upstream told breaks a rule. What cannot be billed is estimated instead."""
    attempts: tuple[AttemptMade, ...] = ()
    """All calls of upstreams in their order, the last one too, where there was more than one."""
    guardrails: tuple[GuardrailVerdict, ...] = ()
    """Those that found something."""

    @property
    def charged_nanos(self) -> int:
        """What it takes from the organization's credit and budgets: its cost, nothing for test traffic."""
        return 0 if self.opened.sandbox else self.cost_nanos

    @property
    def saved_nanos(self) -> int:
        """What the response cache saved: what the same tokens would cost without it, less the cost."""
        hit = self.opened.cache_hit
        if hit is None or self.estimated or not (self.tokens.all_input or self.tokens.all_output):
            return 0
        return hit.full_nanos - self.cost_nanos


class ShadowMade(msgspec.Struct, frozen=True, omit_defaults=True, tag="shadow"):
    """A copy of a request that went to a route on trial. The operator pays for it; nobody is charged, and no sum of an
    organization has it."""

    shadow_id: str
    organization_id: str
    of_request: str
    model: str
    provider: str
    upstream_model: str
    outcome: Outcome
    tokens: TokenCounts
    duration_ms: int
    error_code: str = ""


JournalEntry = RequestOpened | RequestProgress | RequestClosed | ShadowMade
