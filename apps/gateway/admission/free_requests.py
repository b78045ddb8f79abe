"""Requests that cost nothing and have no record: they count against rates of requests, and against nothing else."""

import msgspec

from apps.billing.admission import NO_LIMITS, Admitted, Allowance, Demand
from apps.catalog.contracts import OfferedModel
from apps.core.limits import Limits
from apps.gateway.admission.refusals import refusal
from apps.gateway.admission.reservations import Reservations
from apps.keys.contracts import KeyGrant


async def take_request(
    reservations: Reservations, grant: KeyGrant, model: OfferedModel | None = None, *, request_id: str
) -> Allowance:
    """Count one request of its key, project, organization and, where it is about one, model. Needs no credit; nothing
    stays held.

    Raises GatewayError (429) when a rate of requests says no, Unavailable without the store."""
    demand = Demand(
        request_id=request_id,
        organization_id=grant.organization_id,
        key_id=grant.key_id,
        project_id=grant.project_id,
        most_nanos=0,
        least_nanos=0,
        tokens=0,
        key_limits=_rates_of_requests(grant.key_limits),
        project_limits=_rates_of_requests(grant.project_limits),
        organization_limits=_rates_of_requests(grant.organization_limits),
        model="" if model is None else model.id,
        model_limits=NO_LIMITS if model is None else _rates_of_requests(model.limits),
    )
    answer = await reservations.reserve(demand)
    if grant.sandbox:
        answer = answer.without_money()
    if not isinstance(answer, Admitted):
        raise refusal(answer, demand)
    reservations.release(demand)
    return answer.allowance


def _rates_of_requests(limits: Limits) -> Limits:
    """The same without what only those need who ask a model. Budgets stay: the caller is told what is left of them."""
    return msgspec.structs.replace(limits, tokens_per_minute=None, concurrency=None)
