"""Pausing a key and resuming it, and the brake that says when. A pause reaches every gateway as a revocation does."""

from django.db import transaction
from django.utils import timezone

from apps.core.brake_fields import BRAKE_FIELDS, DEFAULT_MINUTES, check_brake
from apps.core.changes import announce_on_commit
from apps.core.errors import Conflict
from apps.core.limits import usd_text
from apps.keys.models import ApiKey

REASON_LENGTH = 200


@transaction.atomic
def pause_key(key_id: str, *, reason: str) -> ApiKey | None:
    """Refuse the key with 403 `key_paused` until it is resumed, in every gateway within a second.

    None when somebody paused, resumed-and-paused or revoked it first: of two who ask, one is answered."""
    locked: ApiKey | None = (
        ApiKey.objects.select_for_update(of=("self",)).filter(pk=key_id, paused_at=None, revoked_at=None).first()
    )
    if locked is None:
        return None
    locked.paused_at = timezone.now()
    locked.pause_reason = reason[:REASON_LENGTH]
    locked.save(update_fields=["paused_at", "pause_reason"])
    announce_on_commit(f"key:{locked.digest}")
    return locked


@transaction.atomic
def resume_key(key: ApiKey) -> ApiKey:
    """Let a paused key work again. What it spent so far no longer counts for its brake.

    Resuming a key that is not paused changes nothing. Raises Conflict for a key that is revoked."""
    locked: ApiKey = ApiKey.objects.select_for_update(of=("self",)).get(pk=key.pk)
    if locked.revoked_at is not None:
        raise Conflict("a revoked key cannot be resumed")
    if locked.paused_at is not None:
        locked.paused_at = None
        locked.pause_reason = ""
        locked.brake_counts_from = timezone.now()
        locked.save(update_fields=["paused_at", "pause_reason", "brake_counts_from"])
    announce_on_commit(f"key:{locked.digest}")
    return locked


@transaction.atomic
def set_brake(key: ApiKey, nanos: int | None, *, minutes: int = DEFAULT_MINUTES) -> ApiKey:
    """Pause the key when it spends more than `nanos` within `minutes`: None follows the plan, 0 is no brake.

    Raises InvalidInput for a brake that cannot be."""
    check_brake(nanos, minutes)
    locked: ApiKey = ApiKey.objects.select_for_update(of=("self",)).get(pk=key.pk)
    locked.brake_nanos, locked.brake_minutes = nanos, minutes
    locked.save(update_fields=BRAKE_FIELDS)
    return locked


def spoken_brake(nanos: int | None, minutes: int) -> str:
    """The brake in words: `pauses above 5.00 USD in 10 minutes`; empty for none."""
    if not nanos:
        return ""
    return f"pauses above {usd_text(nanos)} USD in {minutes} minute{'' if minutes == 1 else 's'}"
