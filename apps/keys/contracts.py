"""What the data path knows of a key: frozen values."""

import msgspec


class KeyGrant(msgspec.Struct, frozen=True):
    """What a valid key allows. Times are Unix seconds. `digest` is the owner's mark that every reader compares."""

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

    def is_usable(self, now: float) -> bool:
        """Neither revoked nor expired at `now` (Unix seconds)."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
