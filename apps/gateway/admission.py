"""Whether a request may go on: its model, its price, its input, then money and limits. Frozen facts or GatewayError."""

import time
from dataclasses import dataclass, replace
from functools import cached_property

from apps.billing.admission import Admitted, Allowance, Demand
from apps.billing.holding import LEAST_OUTPUT_TOKENS, output_covered, worst_cost_nanos
from apps.catalog.contracts import CatalogSnapshot, OfferedModel, Price
from apps.gateway.chat import ChatRequest, check_modalities
from apps.gateway.errors import MODEL_NOT_FOUND, UNPRICED, GatewayError
from apps.gateway.refusals import check_rate_can_fit, refusal
from apps.gateway.reservations import Reservations
from apps.keys.contracts import KeyGrant


@dataclass(frozen=True)
class Admission:
    """An admitted request: who asks, for what, at which price, and the most that it can cost."""

    request_id: str
    grant: KeyGrant
    chat: ChatRequest
    model: OfferedModel
    price: Price
    hold_nanos: int = 0

    @property
    def token_bound(self) -> int:
        """More tokens than this can neither go in nor come out: a larger usage is an upstream's mistake.

        Twice the context, because operators' figures and vendors' counting differ a little."""
        return 2 * max(self.model.context_length, self.model.max_output_tokens * self.chat.choices)

    @cached_property
    def demand(self) -> Demand:
        """What it needs before it may run: the worst case, or the least that it can be cut to.

        A caller that set no bound on the output can be cut; also to what its rates allow at most."""
        grant, chat, price = self.grant, self.chat, self.price
        input_bound = chat.input_bound(self.model.context_length)
        per_choice = self.model.max_output_tokens
        least = min(per_choice, LEAST_OUTPUT_TOKENS)
        if chat.asked_output is not None:
            per_choice = least = min(chat.asked_output, per_choice)
        else:
            per_choice = max(least, min(per_choice, (self._rate_bound - input_bound) // chat.choices))
        return Demand(
            request_id=self.request_id,
            organization_id=grant.organization_id,
            key_id=grant.key_id,
            project_id=grant.project_id,
            most_nanos=worst_cost_nanos(input_bound, per_choice * chat.choices, price),
            least_nanos=worst_cost_nanos(input_bound, least * chat.choices, price),
            tokens=input_bound + per_choice * chat.choices,
            key_limits=grant.key_limits,
            project_limits=grant.project_limits,
            organization_limits=grant.organization_limits,
        )

    @property
    def _rate_bound(self) -> int:
        """The fewest tokens a minute that anybody allows; the model's own bound where nobody does."""
        grant = self.grant
        limits = (grant.key_limits, grant.project_limits, grant.organization_limits)
        rates = [each.tokens_per_minute for each in limits if each.tokens_per_minute is not None]
        return min(rates, default=self.token_bound)

    def held(self, admitted: Admitted) -> "Admission":
        """The same with its hold. What that does not cover of the worst case, or the rates forbid, the output loses."""
        input_bound = self.chat.input_bound(self.model.context_length)
        if self.chat.asked_output is None:
            by_rate = (self.demand.tokens - input_bound) // self.chat.choices
            by_money = output_covered(admitted.hold_nanos, input_bound, self.price) // self.chat.choices
            covered = by_rate if admitted.hold_nanos >= self.demand.most_nanos else min(by_rate, by_money)
            if covered < self.model.max_output_tokens:
                self.chat.cut_output(covered)
        return replace(self, hold_nanos=admitted.hold_nanos)


def admit(grant: KeyGrant, chat: ChatRequest, snapshot: CatalogSnapshot, *, request_id: str) -> Admission:
    """Check model, modalities and price. The price version in force now is the one that is billed."""
    model = snapshot.models.get(chat.model)
    if model is None:
        message = f"The model '{chat.model}' does not exist or you do not have access to it."
        raise GatewayError(MODEL_NOT_FOUND, message, param="model")
    check_modalities(chat, model)
    price = model.price_at(time.time())
    if price is None:
        raise GatewayError(UNPRICED, f"The model '{model.id}' has no price yet, so it cannot be used.", param="model")
    return Admission(request_id, grant, chat, model, price)


async def reserve(reservations: Reservations, admission: Admission) -> tuple[Admission, Allowance]:
    """Take money and limits for the request. Raises GatewayError when a limit says no, Unavailable without the store.

    Once this returns, `dispatch.open_exchange` must follow without anything awaited in between: it settles."""
    check_rate_can_fit(admission.demand)
    answer = await reservations.reserve(admission.demand)
    if isinstance(answer, Admitted):
        return admission.held(answer), answer.allowance
    raise refusal(answer, admission.demand)
