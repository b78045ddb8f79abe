"""What a key has and has left, for the endpoints that tell it: one script call, after a rebuild where needed."""

from typing import Final

from apps.billing.balance_cache import money_key
from apps.billing.standing import LOOK, Looker, Standing, read_standing
from apps.core.errors import Unavailable
from apps.gateway.runtime import Runtime
from apps.keys.contracts import KeyGrant

TRIES: Final = 3


async def standing_of(runtime: Runtime, grant: KeyGrant) -> Standing:
    """The live figures, with everything that is settled. A sandbox key sees no money. Raises Unavailable."""
    looker = Looker(
        organization_id=grant.organization_id,
        key_id=grant.key_id,
        project_id=grant.project_id,
        key_limits=grant.key_limits,
        project_limits=grant.project_limits,
        organization_limits=grant.organization_limits,
    )
    for _ in range(TRIES):
        reply = await runtime.store.call(LOOK, money_key(grant.organization_id), *looker.arguments())
        standing = read_standing(reply)
        if standing is not None:
            return standing.without_money() if grant.sandbox else standing
        await runtime.reservations.wait_for_money(grant.organization_id)
    raise Unavailable("the money of your organization is being counted again")
