"""GET /key."""

from datetime import UTC, datetime

from django.http import HttpResponse
from rest_framework.request import Request

from apps.gateway.http import AsyncAPIView, json_response


class Key(AsyncAPIView):
    """What the calling key is: `id` is what exports call `key_id`."""

    async def get(self, request: Request) -> HttpResponse:
        grant = self.grant
        content = {
            "id": grant.key_id,
            "label": grant.name,
            "organization": {"id": grant.organization_id, "slug": grant.organization_slug},
            "project": {"id": grant.project_id, "slug": grant.project_slug},
            "created_at": _moment(grant.created_at),
            "expires_at": _moment(grant.expires_at),
        }
        return json_response({"id": grant.key_id, "data": content})


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
