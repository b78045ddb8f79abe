"""GET /key."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson
from django.http import HttpResponse
from rest_framework.request import Request

from apps.core.limits import RATES, Limits
from apps.core.money import format_usd
from apps.gateway.http import AsyncAPIView, json_response

LIMIT_RESETS: Final = {"day": "daily", "week": "weekly", "month": "monthly", "lifetime": None}
"""OpenRouter's words for a budget's period."""


class Key(AsyncAPIView):
    """What the calling key is and may use: `id` is what exports call `key_id`.

    `limit` and `limit_reset` are the key's own budget, named as OpenRouter names them. The rate limits of all three
    levels hold side by side."""

    async def get(self, request: Request) -> HttpResponse:
        grant = self.grant
        content = {
            "id": grant.key_id,
            "label": grant.name,
            "organization": {"id": grant.organization_id, "slug": grant.organization_slug},
            "project": {"id": grant.project_id, "slug": grant.project_slug},
            "created_at": _moment(grant.created_at),
            "expires_at": _moment(grant.expires_at),
            **_budget(grant.key_limits),
            "rate_limits": {
                "key": _rates(grant.key_limits),
                "project": _rates(grant.project_limits),
                "organization": _rates(grant.organization_limits),
            },
        }
        return json_response({"id": grant.key_id, "data": content})


def _budget(limits: Limits) -> dict[str, Any]:
    """In USD as a number, to the nano-dollar; null for none."""
    if limits.budget_nanos is None:
        return {"limit": None, "limit_reset": None}
    return {
        "limit": orjson.Fragment(format_usd(limits.budget_nanos)),
        "limit_reset": LIMIT_RESETS[limits.budget_period],
    }


def _rates(limits: Limits) -> dict[str, int | None]:
    return {name: getattr(limits, name) for name in RATES}


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
