"""GET /key."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson

from apps.billing.standing import Standing
from apps.core.errors import Unavailable
from apps.core.limits import RATES, Limits, budget_window
from apps.core.money import format_usd
from apps.core.priorities import Priority
from apps.gateway.admission.refusals import limit_headers
from apps.gateway.admission.standing import standing_of
from apps.gateway.receipts import usd_number
from apps.gateway.server.answer import Answer
from apps.gateway.server.http import AsyncAPIView, json_response
from apps.gateway.server.lean_request import LeanRequest

LIMIT_RESETS: Final = {"day": "daily", "week": "weekly", "month": "monthly", "lifetime": None}
"""OpenRouter's words for a budget's period."""


class Key(AsyncAPIView):
    """What the calling key is, may use and has left: `id` is what exports call `key_id`.

    `limit`, `limit_remaining`, `limit_reset` and `usage*` are the key's own budget and spend, named as OpenRouter names
    them. The rate limits of all three levels hold side by side. While the store of money is away the live figures are
    null; what the key is and may use is still told."""

    async def get(self, request: LeanRequest) -> Answer:
        grant = self.grant
        standing = await self._standing()
        content = {
            "id": grant.key_id,
            "label": grant.name,
            "is_sandbox": grant.sandbox,
            "priority": Priority(grant.priority).spoken,
            "organization": {"id": grant.organization_id, "slug": grant.organization_slug},
            "project": {"id": grant.project_id, "slug": grant.project_slug},
            "created_at": _moment(grant.created_at),
            "expires_at": _moment(grant.expires_at),
            **_usage(standing),
            **_budget(grant.key_limits, standing),
            "is_free_tier": False,
            "is_management_key": False,
            "is_provisioning_key": False,
            "include_byok_in_limit": False,
            "rate_limits": {
                "key": _rates(grant.key_limits),
                "project": _rates(grant.project_limits),
                "organization": _rates(grant.organization_limits),
            },
            "rate_limits_remaining": _remaining(standing),
        }
        return json_response({"id": grant.key_id, "data": content})

    async def _standing(self) -> Standing | None:
        try:
            standing = await standing_of(self.runtime, self.grant)
        except Unavailable:
            return None
        self.limit_headers = limit_headers(standing.allowance)
        return standing


def _usage(standing: Standing | None) -> dict[str, Any]:
    """What the key has spent and holds, in USD, in the running UTC periods; weeks begin on Monday."""
    if standing is None:
        return dict.fromkeys(("usage", "usage_daily", "usage_weekly", "usage_monthly", "held"))
    spend = standing.key
    return {
        "usage": usd_number(spend.lifetime_nanos),
        "usage_daily": usd_number(spend.day_nanos),
        "usage_weekly": usd_number(spend.week_nanos),
        "usage_monthly": usd_number(spend.month_nanos),
        "held": usd_number(spend.held_nanos),
    }


def _budget(limits: Limits, standing: Standing | None) -> dict[str, Any]:
    """In USD as a number, to the nano-dollar; null for none. What running requests hold does not remain."""
    if limits.budget_nanos is None:
        return {"limit": None, "limit_remaining": None, "limit_reset": None, "limit_reset_at": None}
    left = standing.key_left_nanos if standing else None
    ends_at = budget_window(limits.budget_period, datetime.now(UTC).timestamp()).ends_at
    return {
        "limit": orjson.Fragment(format_usd(limits.budget_nanos)),
        "limit_remaining": None if left is None else usd_number(left),
        "limit_reset": LIMIT_RESETS[limits.budget_period],
        "limit_reset_at": _moment(ends_at),
    }


def _rates(limits: Limits) -> dict[str, int | None]:
    return {name: getattr(limits, name) for name in RATES}


def _remaining(standing: Standing | None) -> dict[str, int | None]:
    """Of the level that has least left; null without such a limit."""
    if standing is None:
        return {"requests": None, "tokens": None}
    requests, tokens = standing.allowance.requests, standing.allowance.tokens
    return {"requests": requests.left if requests else None, "tokens": tokens.left if tokens else None}


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
