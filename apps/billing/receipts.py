"""The receipt of one request: how its cost came about, line by line, exactly. Pure; API and portal show the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from apps.billing.pricing.book import PERCENT_UNIT, BookRule, as_fee, at_share
from apps.billing.rating import exact_cost, rates_for
from apps.catalog.contracts import BUCKETS, Price, PriceVariant, Rates
from apps.core.money import TOKENS_PER_PRICE_UNIT, round_half_even
from apps.usage.contracts import AttemptMade, Outcome, RequestClosed

PER_REQUEST: Final = "request"
PER_IMAGE: Final = "image"
"""Lines that count no tokens; their unit price is for one."""


class Rule(StrEnum):
    """Which row of the published table (docs/metering.md) says what was counted."""

    REPORTED = "reported_usage"
    ESTIMATED_ANSWER = "estimated_answer"
    CLIENT_LEFT = "estimated_until_client_left"
    UPSTREAM_BROKE = "estimated_until_upstream_failed"
    CHECKPOINT = "estimated_at_last_checkpoint"
    CACHED = "response_cache"
    NOTHING = "nothing_delivered"


RULE_WORDS: Final = {
    Rule.REPORTED: "Counted by the model's provider: its own report of usage.",
    Rule.ESTIMATED_ANSWER: "The provider reported no usage that can be believed: input and output are our estimate.",
    Rule.CLIENT_LEFT: "The caller left before the end: estimated input, and the output that had arrived until then.",
    Rule.UPSTREAM_BROKE: "The answer broke off: estimated input, and the output that had arrived until then.",
    Rule.CHECKPOINT: "CRUN was interrupted: estimated input, and the output of the last checkpoint.",
    Rule.CACHED: "The answer was kept from an earlier request, whose tokens these are: no provider was asked.",
    Rule.NOTHING: "Nothing usable came back, so nothing is billed.",
}
_ESTIMATES: Final = {
    Outcome.COMPLETED: Rule.ESTIMATED_ANSWER,
    Outcome.CANCELLED: Rule.CLIENT_LEFT,
    Outcome.FAILED: Rule.UPSTREAM_BROKE,
    Outcome.INTERRUPTED: Rule.CHECKPOINT,
}


class Payer(StrEnum):
    """Who pays for an attempt."""

    CUSTOMER = "customer"
    """With its own provider key the vendor's bill, beside the cost here, which is a fee."""
    OPERATOR = "operator"
    """Whatever the upstream may have charged for it."""
    NOBODY = "nobody"
    """Test traffic: sandbox upstreams cost nothing."""


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """`item` is a bucket of tokens, PER_REQUEST or PER_IMAGE. `unit_nanos` is nano-USD per million tokens, or for one.

    `exact_femtos` is in 10^-15 USD, not rounded."""

    item: str
    quantity: int
    unit_nanos: int
    exact_femtos: int

    @property
    def is_tokens(self) -> bool:
        return self.item not in (PER_REQUEST, PER_IMAGE)


CACHE_DISCOUNT: Final = "response_cache"
"""What stands for the rule where the response cache takes something off."""


@dataclass(frozen=True, slots=True)
class Discount:
    """What a rule of the organization's price book takes off, in 10^-15 USD; below zero what it adds. Or what the
    response cache takes off the rest."""

    rule_id: str
    words: str
    exact_femtos: int

    @property
    def negative_femtos(self) -> int:
        return -self.exact_femtos


@dataclass(frozen=True, slots=True)
class Rerated:
    """What a re-rating changed afterwards, in nano-USD: above zero the organization pays more.

    `overage_nanos` is what the new price would have cost beyond the hold, and nobody pays."""

    rerating_id: str
    reason: str
    created_at: datetime
    delta_nanos: int
    overage_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of an upstream, and who pays for it. `started_ms` counts from the beginning of the request.

    Which provider it was is the operator's to know: it is in the record and not here."""

    number: int
    model: str
    started_ms: int
    duration_ms: int
    outcome: Outcome
    http_status: int
    error_code: str
    paid_by: Payer
    cost_nanos: int
    is_byok: bool = False
    """It was made with the organization's own provider key."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """From the lines to the cost, without a gap:

    lines - discounts = `exact_femtos`; that + `rounding_femtos` = `rounded_nanos`; that - `overage_nanos` +
    `correction_nanos` = the cost of the record. A correction is never expected: see `receipt_of`."""

    lines: Sequence[ReceiptLine]
    discounts: Sequence[Discount]
    exact_femtos: int
    rounding_femtos: int
    rounded_nanos: int
    overage_nanos: int
    correction_nanos: int
    variant: PriceVariant | None

    @property
    def negative_overage_nanos(self) -> int:
        return -self.overage_nanos


@dataclass(frozen=True, slots=True)
class Receipt:
    """A request that has ended. `price` and `arithmetic` are None when this installation does not know its prices."""

    closed: RequestClosed
    price: Price | None
    arithmetic: Arithmetic | None
    rule: Rule
    attempts: Sequence[Attempt]
    reratings: Sequence[Rerated] = ()
    """Oldest first. They are lines of the ledger of their own: all else is as the request ended."""

    @property
    def is_sandbox(self) -> bool:
        return self.closed.opened.sandbox

    @property
    def is_byok(self) -> bool:
        """Whether the cost is a fee: the organization's own provider key served it, or made the kept answer."""
        return self.closed.opened.is_byok

    @property
    def fee_ppm(self) -> int | None:
        """The part per million of the normal price that is the fee; None without an own provider key."""
        return self.closed.opened.price.fee_ppm

    @property
    def charged_nanos(self) -> int:
        """What the organization paid: the cost, nothing for test traffic."""
        return self.closed.charged_nanos

    @property
    def is_cached(self) -> bool:
        """Whether the response cache answered it."""
        return self.closed.opened.cache_hit is not None

    @property
    def saved_nanos(self) -> int:
        """What the response cache saved, by the prices of the request's time."""
        return self.closed.saved_nanos

    @property
    def standing_nanos(self) -> int:
        """What the organization paid, with all that was corrected since."""
        return self.charged_nanos + sum(rerated.delta_nanos for rerated in self.reratings)

    @property
    def balance_before_nanos(self) -> int | None:
        """Credit at admission, not counting what running requests held; None where it was not noted."""
        return self.closed.opened.balance_nanos

    @property
    def balance_after_nanos(self) -> int | None:
        """The credit before, less this request alone: others may have been settled between its beginning and end."""
        before = self.balance_before_nanos
        return None if before is None else before - self.charged_nanos

    @property
    def hold_nanos(self) -> int | None:
        return self.closed.opened.hold_nanos

    @property
    def rule_words(self) -> str:
        return RULE_WORDS[self.rule]


def receipt_of(
    closed: RequestClosed,
    price: Price | None,
    *,
    discounts: Sequence[Discount] = (),
    reratings: Sequence[Rerated] = (),
) -> Receipt:
    """The receipt of an ended request by the price version of its record.

    Should the record say another cost than its tokens and price, the difference stands as a correction: what was
    billed is what was recorded, and it is shown, not hidden."""
    return Receipt(
        closed=closed,
        price=price,
        arithmetic=None if price is None else _arithmetic(closed, price, discounts),
        rule=rule_of(closed),
        attempts=_attempts(closed),
        reratings=reratings,
    )


def discount_of(closed: RequestClosed, listed: Price, rule: BookRule) -> Discount:
    """What the rule makes of the list price for this request: the exact difference of the two."""
    own = rule.applied_to(listed)
    return Discount(rule.rule_id, rule.in_words(), _exact(closed, listed) - _exact(closed, own))


def fee_discount(closed: RequestClosed, price: Price) -> Discount:
    """What an own provider key takes off `price`, which is what the organization pays without one."""
    ppm = closed.opened.price.fee_ppm or 0
    words = f"Own provider key: the fee is {percent_of(ppm)} %"
    return Discount("", words, _exact(closed, price) - _exact(closed, as_fee(price, ppm)))


def cache_discount(closed: RequestClosed, price: Price, share_ppm: int) -> Discount:
    """What the response cache takes off `price`, which is what the organization pays without it."""
    words = f"Answer from the cache: {percent_of(share_ppm)} % of the price"
    return Discount(CACHE_DISCOUNT, words, _exact(closed, price) - _exact(closed, at_share(price, share_ppm)))


def percent_of(ppm: int) -> str:
    """Parts per million as percent: `5`, `0.25`."""
    return f"{ppm * 100 / PERCENT_UNIT:.4f}".rstrip("0").rstrip(".")


def rule_of(closed: RequestClosed) -> Rule:
    """The row of the published table that was applied."""
    tokens = closed.tokens
    if closed.opened.cache_hit is not None and not closed.estimated and (tokens.all_input or tokens.all_output):
        return Rule.CACHED
    if closed.estimated:
        return _ESTIMATES[closed.outcome]
    if closed.outcome is Outcome.COMPLETED or tokens.all_input or tokens.all_output:
        return Rule.REPORTED
    return Rule.NOTHING


def _exact(closed: RequestClosed, price: Price) -> int:
    return exact_cost(closed.tokens, _rates(closed, price), images=closed.opened.images)


def _rates(closed: RequestClosed, price: Price) -> Rates:
    return rates_for(closed.tokens, price, request_id=closed.opened.request_id, service_tier=closed.service_tier)


def _arithmetic(closed: RequestClosed, price: Price, discounts: Sequence[Discount]) -> Arithmetic:
    rates = _rates(closed, price)
    lines = _lines(closed, rates)
    exact = sum(line.exact_femtos for line in lines) - sum(discount.exact_femtos for discount in discounts)
    rounded = round_half_even(exact, TOKENS_PER_PRICE_UNIT)
    return Arithmetic(
        lines=lines,
        discounts=discounts,
        exact_femtos=exact,
        rounding_femtos=rounded * TOKENS_PER_PRICE_UNIT - exact,
        rounded_nanos=rounded,
        overage_nanos=closed.overage_nanos,
        correction_nanos=closed.cost_nanos - (rounded - closed.overage_nanos),
        variant=rates if isinstance(rates, PriceVariant) else None,
    )


def _lines(closed: RequestClosed, rates: Rates) -> list[ReceiptLine]:
    """Every bucket that has tokens or that every request has, then the flat parts where there are any."""
    tokens = closed.tokens
    lines = []
    for bucket in BUCKETS:
        quantity, unit = getattr(tokens, bucket), rates.of(bucket)
        if quantity or bucket in ("input", "output"):
            lines.append(ReceiptLine(bucket, quantity, unit, quantity * unit))
    if tokens.all_input or tokens.all_output:
        flat = ((PER_REQUEST, 1, rates.per_request), (PER_IMAGE, closed.opened.images, rates.per_image))
        lines += [
            ReceiptLine(item, quantity, unit, quantity * unit * TOKENS_PER_PRICE_UNIT)
            for item, quantity, unit in flat
            if quantity and unit
        ]
    return lines


def _attempts(closed: RequestClosed) -> list[Attempt]:
    """All calls of upstreams; the record itself is the one call of most requests. What failed before another was tried
    is free for the customer. A kept answer needed none."""
    if closed.attempts:
        return [
            _attempt(closed, made, number=number, is_last=number == len(closed.attempts))
            for number, made in enumerate(closed.attempts, start=1)
        ]
    if not closed.opened.provider or closed.opened.cache_hit is not None:
        return []  # a guardrail refused it before anybody was called, or nobody had to be
    payer = Payer.CUSTOMER if closed.charged_nanos or closed.opened.is_byok else Payer.OPERATOR
    if closed.opened.sandbox:
        payer = Payer.NOBODY
    only = AttemptMade(
        model=closed.opened.model,
        provider=closed.opened.provider,
        started_ms=0,
        duration_ms=closed.duration_ms,
        outcome=closed.outcome,
        http_status=closed.http_status,
        error_code=closed.error_code,
        paid_by=payer.value,
        credential_id=closed.opened.credential_id,
    )
    return [_attempt(closed, only, number=1, is_last=True)]


def _attempt(closed: RequestClosed, made: AttemptMade, *, number: int, is_last: bool) -> Attempt:
    return Attempt(
        number=number,
        model=made.model,
        started_ms=made.started_ms,
        duration_ms=made.duration_ms,
        outcome=made.outcome,
        http_status=made.http_status,
        error_code=made.error_code,
        paid_by=Payer(made.paid_by),
        cost_nanos=closed.charged_nanos if is_last else 0,
        is_byok=bool(made.credential_id),
    )
