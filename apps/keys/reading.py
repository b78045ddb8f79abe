"""The key behind a digest, as a grant: one query, and one for each kind of decision when there is any.

Synchronous; the gateway calls it through its bridge."""

from collections.abc import Sequence

from apps.accounts.limits import effective_limits, effective_priority
from apps.core.priorities import priority_of_key
from apps.keys.contracts import KeyGrant
from apps.keys.models import ApiKey
from apps.policies.reading import read_policy, something_is_decided


def read_grant(digests: Sequence[str]) -> KeyGrant | None:
    """The key stored under one of these digests, revoked or not; None when there is none."""
    key = (
        ApiKey.objects.select_related("organization__plan", "project")
        .annotate(is_decided=something_is_decided())
        .filter(digest__in=digests)
        .first()
    )
    if key is None:
        return None
    return KeyGrant(
        key_id=key.id,
        organization_id=key.organization_id,
        organization_slug=key.organization.slug,
        project_id=key.project_id,
        project_slug=key.project.slug,
        name=key.name,
        digest=key.digest,
        created_at=key.created_at.timestamp(),
        expires_at=key.expires_at.timestamp() if key.expires_at else None,
        revoked_at=key.revoked_at.timestamp() if key.revoked_at else None,
        key_limits=key.limits,
        project_limits=key.project.limits,
        organization_limits=effective_limits(key.organization),
        sandbox=key.sandbox,
        paused_at=key.paused_at.timestamp() if key.paused_at else None,
        priority=priority_of_key(key.priority, effective_priority(key.organization)),
        policy=read_policy(key.organization_id, key.id) if key.is_decided else None,
    )
