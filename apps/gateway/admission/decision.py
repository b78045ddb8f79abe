"""Whether a request may go on: its model, its price, its input, then money and limits. Frozen facts or GatewayError."""

import time
from dataclasses import dataclass, replace
from typing import Final

from django.utils.functional import cached_property  # the one of functools takes a lock before Python 3.12
from msgspec.structs import replace as replaced

from apps.billing.admission import Admitted, Allowance, Demand, Refused
from apps.billing.holding import FIRST_OUTPUT_TOKENS, LEAST_OUTPUT_TOKENS, output_covered, worst_cost_nanos
from apps.billing.pricing.book import PriceBook
from apps.catalog.contracts import CatalogSnapshot, OfferedModel, Price, Target
from apps.gateway.admission.offers import check_allowed, offered
from apps.gateway.admission.refusals import check_rate_can_fit, refusal
from apps.gateway.admission.reservations import Reservations
from apps.gateway.dialects.chat import check_service_tier
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.errors import CONTEXT_TOO_LONG, UNPRICED, GatewayError
from apps.gateway.metering.counting import SLICE, TOKENS, bound_of, measure_of
from apps.gateway.routing.maintenance import in_service
from apps.gateway.routing.own_credentials import OwnKeys, OwnRoutes
from apps.keys.contracts import KeyGrant

DENSEST_BYTES_PER_TOKEN: Final = 8
"""Text with fewer tokens than one for so many bytes is not worth a thought when money or a rate is short."""
LONG_BYTES_PER_TOKEN: Final = 3
"""Text with more bytes than so many for each token of the context may be too long for it."""


@dataclass(eq=False)
class Admission:
    """An admitted request: who asks, for what, at which price, and the most that it costs. After `admit` only `held`
    changes it."""

    request_id: str
    grant: KeyGrant
    asked: ModelRequest
    model: OfferedModel
    price: Price
    """The dearest that it can come to: with the operator's credential, unless only own provider keys may be used."""
    hold_nanos: int = 0
    balance_nanos: int | None = None
    """The organization's credit when it was admitted, not counting what other requests held."""
    is_again: bool = False
    """It was admitted for another model before, and goes on with this one."""
    own: OwnRoutes | None = None
    """The routes with the organization's own provider keys, which are tried first."""
    own_price: Price | None = None
    """The fee for those."""

    def price_with(self, target: Target) -> Price:
        """What the request costs when this route answers it."""
        return self.own_price if target.credential_id and self.own_price is not None else self.price

    def served_by(self, target: Target) -> "Admission":
        """The same once this route answers: its price is the only one left."""
        price = self.price_with(target)
        return self if price is self.price else replace(self, price=price)

    def with_own_keys_alone(self) -> "Admission":
        """The same without a way to the operator's credential, so that no more than the fee is held."""
        if self.own is None or self.own.is_exclusive or self.own_price is None:
            return self
        return replace(self, own=replaced(self.own, is_exclusive=True), price=self.own_price)

    def without_own_keys(self) -> "Admission":
        """The same where the caller wants none of their providers."""
        return replace(self, own=None, own_price=None)

    @property
    def token_bound(self) -> int:
        """More tokens than this can neither go in nor come out: a larger usage is an upstream's mistake.

        Twice the context, because operators' figures and vendors' counting differ a little."""
        return 2 * max(self.model.context_length * self.asked.inputs, self.model.max_output_tokens * self.asked.choices)

    @cached_property
    def demand(self) -> Demand:
        """What it needs before it may run: the worst case, or the least that it can be cut to. Test traffic needs no
        money. Of a stream that sets no bound on its output, the worst case of its beginning: the rest grows."""
        grant, first, least = self.grant, self.first_output, self.least_output
        most_nanos = self.worst_nanos(first)
        return Demand(
            request_id=self.request_id,
            organization_id=grant.organization_id,
            key_id=grant.key_id,
            project_id=grant.project_id,
            most_nanos=most_nanos,
            least_nanos=most_nanos if least == first else self.worst_nanos(least),
            tokens=self.input_bound + first,
            least_tokens=self.input_bound + least,
            key_limits=grant.key_limits,
            project_limits=grant.project_limits,
            organization_limits=grant.organization_limits,
            model=self.model.id,
            model_limits=self.model.limits,
            is_again=self.is_again,
        )

    @cached_property
    def input_bound(self) -> int:
        """No more tokens than this can go in."""
        return self.asked.input_bound(self.model.context_length, image_tokens=self.model.image_tokens)

    @cached_property
    def most_output(self) -> int:
        """No more tokens than this can come out, of all choices: by the caller, the model, and what its rates allow.

        Rates cut only an output that the caller set no bound to."""
        asked, per_choice = self.asked, self.model.max_output_tokens
        if asked.asked_output is not None:
            return min(asked.asked_output, per_choice) * asked.choices
        by_rate = max((self.rate_bound - self.input_bound) // asked.choices, LEAST_OUTPUT_TOKENS)
        return min(per_choice, by_rate) * asked.choices

    @property
    def first_output(self) -> int:
        """The output that is held for at the door."""
        if self.asked.stream and self.asked.asked_output is None and not self.grant.sandbox:
            return min(self.most_output, FIRST_OUTPUT_TOKENS * self.asked.choices)
        return self.most_output

    @property
    def least_output(self) -> int:
        """The least output for which it is worth to begin."""
        if self.asked.asked_output is not None:
            return self.most_output
        return min(self.model.max_output_tokens, LEAST_OUTPUT_TOKENS) * self.asked.choices

    @property
    def grows(self) -> bool:
        """Whether its hold must grow while it runs."""
        is_open = self.asked.stream and self.asked.asked_output is None and not self.grant.sandbox
        return is_open and self.hold_nanos < self.worst_nanos(self.most_output)

    def worst_nanos(self, output: int) -> int:
        """The most that it costs with so much output, of all choices together. Test traffic costs nothing."""
        if self.grant.sandbox:
            return 0
        return worst_cost_nanos(
            self.input_bound, output, self.price, service_tier=self.asked.asked_tier, images=self.images
        )

    def output_covered(self, hold_nanos: int) -> int:
        """The most output, of all choices together, that costs no more than this."""
        return output_covered(
            hold_nanos, self.input_bound, self.price, service_tier=self.asked.asked_tier, images=self.images
        )

    @cached_property
    def images(self) -> int:
        """How many images the request brings; 0 where they have no price of their own."""
        return self.asked.images if self.price.charges_images else 0

    @cached_property
    def rate_bound(self) -> int:
        """The fewest tokens a minute that anybody allows; the model's own bound where nobody does."""
        grant = self.grant
        limits = (grant.key_limits, grant.project_limits, grant.organization_limits, self.model.limits)
        rates = [each.tokens_per_minute for each in limits if each.tokens_per_minute is not None]
        return min(rates, default=self.token_bound)

    def held(self, admitted: Admitted) -> "Admission":
        """With its hold. What rates forbid of the worst case the output loses, and what the hold does not cover, unless
        that grows."""
        self.hold_nanos, self.balance_nanos = admitted.hold_nanos, admitted.balance_nanos
        if self.asked.asked_output is None:
            allowed = self.most_output
            if (taken := admitted.tokens) < self.demand.tokens:
                allowed = min(allowed, taken - self.input_bound)
            if admitted.hold_nanos < self.demand.most_nanos and not self.grows:
                allowed = min(allowed, self.output_covered(admitted.hold_nanos))
            if allowed // self.asked.choices < self.model.max_output_tokens:
                self.asked.cut_output(allowed // self.asked.choices)
        return self

    async def counted(self) -> "Admission":
        """The same with a closer bound on its input, if there is one to be had."""
        measure = measure_of(self.model)
        count = await TOKENS.count(
            self.asked.countable_text(), measure, enough=self.model.context_length * self.asked.inputs
        )
        if count is not None:
            self.asked.text_tokens = bound_of(count, measure)
        return replace(self)

    def may_fit(self, refused: Refused) -> bool:
        """Whether counting its input, or cutting its output, can bring it below the limit that said no."""
        least_input = self.asked.input_bound(
            self.model.context_length,
            image_tokens=self.model.image_tokens,
            text_tokens=self.asked.text_bytes // DENSEST_BYTES_PER_TOKEN,
        )
        left = refused.allowance
        if refused.what == "tokens_per_minute":
            return left.tokens is None or least_input + self.least_output <= left.tokens.left
        if refused.what not in ("balance", "budget") or left.left_nanos is None:
            return False
        tier = self.asked.asked_tier
        least = worst_cost_nanos(least_input, self.least_output, self.price, service_tier=tier, images=self.images)
        return least <= left.left_nanos


def admit(
    grant: KeyGrant,
    asked: ModelRequest,
    snapshot: CatalogSnapshot,
    *,
    book: PriceBook,
    request_id: str,
    own_keys: OwnKeys,
) -> Admission:
    """Check model, modalities and price. The price version in force now, as the organization's price book has it, is
    the one that is held for and billed."""
    model = offered(snapshot, asked.model, grant=grant)
    if asked.guarding is not None:
        check_allowed(model, asked.guarding)
    asked.check_model(model)
    now = time.time()
    if model.has_maintenance:
        in_service(model.id, model.targets, now)
    listed = model.price_at(now)
    if listed is None:
        raise GatewayError(UNPRICED, f"The model '{model.id}' has no price yet, so it cannot be used.", param="model")
    price = book.price_for(grant.organization_id, model.id, listed, moment=now)
    check_service_tier(asked, model, price)
    admission = Admission(request_id, grant, asked, model, price)
    if grant.policy is not None and (own := own_keys.routes(grant, model)) is not None:
        admission.own, admission.own_price = own, book.fee_for(grant.organization_id, price, moment=now)
        if own.is_exclusive:
            admission.price = admission.own_price
    return admission


async def reserve(reservations: Reservations, admission: Admission) -> tuple[Admission, Allowance]:
    """Take money and limits for the request. Raises GatewayError when a limit says no, Unavailable without the store.

    Once this returns, `dispatch.open_exchange` must follow without anything awaited in between: it settles."""
    await _check_context(admission)
    if _is_over_rate(admission):
        admission = await admission.counted()
    check_rate_can_fit(admission.demand)
    answer = await reservations.reserve(admission.demand.uncut())
    if isinstance(answer, Refused) and admission.own is not None and answer.what in ("balance", "budget"):
        # Too little for the operator's credential may be enough for the fee.
        admission = admission.with_own_keys_alone()
        answer = await reservations.reserve(admission.demand.uncut())
    if isinstance(answer, Refused) and admission.may_fit(answer):
        admission = await admission.counted()
        answer = await reservations.reserve(admission.demand)
    if admission.grant.sandbox:
        answer = answer.without_money()
    if isinstance(answer, Admitted):
        return admission.held(answer), answer.allowance
    raise refusal(answer, admission.demand)


def _is_over_rate(admission: Admission) -> bool:
    """Whether the cheap bound on the input is what makes the request too large for a minute, or cuts its output."""
    asked, most = admission.asked, admission.model.max_output_tokens
    wanted = (most if asked.asked_output is None else min(asked.asked_output, most)) * asked.choices
    if admission.rate_bound >= admission.input_bound + wanted:
        return False
    return admission.asked.text_bytes // DENSEST_BYTES_PER_TOKEN <= admission.rate_bound


async def _check_context(admission: Admission) -> None:
    """400 for text that is certainly too long for the model, in its own encoding. The upstream knows the rest."""
    model, measure = admission.model, measure_of(admission.model)
    if not measure.is_exact or admission.asked.body_bytes <= LONG_BYTES_PER_TOKEN * model.context_length:
        return
    text = admission.asked.longest_text()
    if len(text.encode()) <= LONG_BYTES_PER_TOKEN * model.context_length:
        return
    most = model.context_length + len(text) // SLICE
    count = await TOKENS.count(text, measure, enough=most)
    if count is not None and count > most:
        raise GatewayError(
            CONTEXT_TOO_LONG,
            f"The request has more tokens than the {model.context_length:,} that the model {model.id} can take.",
            param=admission.asked.content_field,
        )
