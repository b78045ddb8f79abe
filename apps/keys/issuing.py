"""Making, limiting and revoking API keys."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.accounts.models import Project, User
from apps.core.changes import announce_on_commit
from apps.core.crypto import keyed_digests
from apps.core.errors import InvalidInput
from apps.core.limit_fields import LIMIT_FIELDS, limit_columns
from apps.core.limits import Limits, check_limits
from apps.core.names import check_name
from apps.core.priorities import Priority
from apps.keys.keyformat import VISIBLE_PREFIX_LENGTH, VISIBLE_SUFFIX_LENGTH, new_key
from apps.keys.models import ApiKey

NO_LIMITS: Final = Limits()


@dataclass(frozen=True)
class IssuedKey:
    """A new key with its secret, which is never to be had again."""

    key: ApiKey
    secret: str


def create_key(
    project: Project,
    *,
    name: str,
    created_by: User | None = None,
    expires_at: datetime | None = None,
    limits: Limits = NO_LIMITS,
    sandbox: bool = False,
) -> IssuedKey:
    """A new key of the project; what it is, live or sandbox, it stays. Raises InvalidInput for a name that
    is empty, long or no plain line, an expiry in the past or limits that cannot be."""
    name = check_name(name, of="a key")
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidInput("a key cannot expire in the past")
    _check_limits(limits, sandbox=sandbox)
    secret = new_key(sandbox=sandbox)
    key = ApiKey.objects.create(
        organization_id=project.organization_id,
        project=project,
        name=name,
        prefix=secret[:VISIBLE_PREFIX_LENGTH],
        last_four=secret[-VISIBLE_SUFFIX_LENGTH:],
        digest=keyed_digests(secret, settings.KEY_PEPPERS)[0],
        sandbox=sandbox,
        created_by=created_by,
        expires_at=expires_at,
        **limit_columns(limits),
    )
    return IssuedKey(key, secret)


def _check_limits(limits: Limits, *, sandbox: bool) -> None:
    check_limits(limits)
    if sandbox and limits.budget_nanos is not None:
        raise InvalidInput("a sandbox key spends no money, so it has no budget")


def unknown_peppers() -> set[str]:
    """Peppers that keys in use were stored under and that CRUN_KEY_PEPPERS does not have: their keys cannot work."""
    digests = ApiKey.objects.filter(revoked_at=None).values_list("digest", flat=True)
    return {digest.partition("$")[0] for digest in digests.iterator()} - set(settings.KEY_PEPPERS)


@transaction.atomic
def set_limits(key: ApiKey, limits: Limits) -> ApiKey:
    """Give the key these limits in place of those it has, in every gateway within a second.

    Raises InvalidInput for limits that cannot be."""
    _check_limits(limits, sandbox=key.sandbox)
    columns = limit_columns(limits)
    locked: ApiKey = ApiKey.objects.select_for_update().get(pk=key.pk)
    for name, value in columns.items():
        setattr(locked, name, value)
    locked.save(update_fields=LIMIT_FIELDS)
    announce_on_commit(f"key:{locked.digest}")
    return locked


@transaction.atomic
def set_priority(key: ApiKey, priority: int | None) -> ApiKey:
    """Give the key this priority, None for its organization's, in every gateway within a second. It never counts for
    more than the organization's. Raises InvalidInput for one that there is not."""
    if priority is not None and priority not in list(Priority):
        raise InvalidInput("a priority is low, normal or high")
    locked: ApiKey = ApiKey.objects.select_for_update(of=("self",)).get(pk=key.pk)
    locked.priority = priority
    locked.save(update_fields=["priority"])
    announce_on_commit(f"key:{locked.digest}")
    return locked


@transaction.atomic
def revoke_key(key: ApiKey) -> ApiKey:
    """Refuse the key from now on, in every gateway within a second. Revoking twice changes nothing."""
    locked: ApiKey = ApiKey.objects.select_for_update().get(pk=key.pk)
    if locked.revoked_at is None:
        locked.revoked_at = timezone.now()
        locked.save(update_fields=["revoked_at"])
    announce_on_commit(f"key:{locked.digest}")
    return locked
