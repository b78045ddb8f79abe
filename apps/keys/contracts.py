"""What the data path knows of a key: frozen values."""

import msgspec

from apps.core.limits import Limits
from apps.core.priorities import Priority
from apps.policies.contracts import Policy


class KeyGrant(msgspec.Struct, frozen=True):
    """What a valid key allows. Times are Unix seconds. `digest` is the owner's mark that every reader compares.

    The limits of key, project and organization hold side by side; the organization's already include its plan's."""

    key_id: str
    organization_id: str
    organization_slug: str
    project_id: str
    project_slug: str
    name: str
    digest: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    key_limits: Limits = Limits()
    project_limits: Limits = Limits()
    organization_limits: Limits = Limits()
    sandbox: bool = False
    """It calls sandbox models only, spends no money, and its requests are kept apart."""
    paused_at: float | None = None
    """Set while its brake or its owner holds it: it is known and refused."""
    priority: int = Priority.NORMAL
    """While a gateway sends requests away: its own, never above its organization's."""
    policy: Policy | None = None
    """What its organization decided for its requests; None, as for most, when nothing was."""

    def is_usable(self, now: float) -> bool:
        """Neither revoked nor expired at `now` (Unix seconds)."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
