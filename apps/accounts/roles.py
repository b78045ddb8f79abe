"""Roles and what each may do: a pure table."""

from enum import StrEnum


class Role(StrEnum):
    OWNER = "owner"
    DEVELOPER = "developer"
    FINANCE = "finance"
    VIEWER = "viewer"


class Capability(StrEnum):
    VIEW_USAGE = "view_usage"
    MANAGE_KEYS = "manage_keys"
    MANAGE_MEMBERS = "manage_members"
    MANAGE_BILLING = "manage_billing"
    MANAGE_ORGANIZATION = "manage_organization"


CAPABILITIES: dict[Role, frozenset[Capability]] = {
    Role.OWNER: frozenset(Capability),
    Role.DEVELOPER: frozenset({Capability.VIEW_USAGE, Capability.MANAGE_KEYS}),
    Role.FINANCE: frozenset({Capability.VIEW_USAGE, Capability.MANAGE_BILLING}),
    Role.VIEWER: frozenset({Capability.VIEW_USAGE}),
}


def may(role: str, capability: Capability) -> bool:
    """Whether a member with this role has the capability. An unknown role has none."""
    try:
        return capability in CAPABILITIES[Role(role)]
    except ValueError:
        return False
