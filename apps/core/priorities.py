"""Priorities: whose requests are served longest by a gateway that cannot keep up. Pure."""

from enum import IntEnum


class Priority(IntEnum):
    """The lower goes first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2

    @property
    def spoken(self) -> str:
        """As people and clients read it: `low`."""
        return self.name.lower()


def priority_of_organization(own: int | None, plan: int | None) -> Priority:
    """What the organization has by itself, or by its plan."""
    return Priority(next((each for each in (own, plan) if each is not None), Priority.NORMAL))


def priority_of_key(own: int | None, organization: Priority) -> Priority:
    """A key has its organization's, or its own where that is lower: never more than the operator gave."""
    return organization if own is None else min(Priority(own), organization)
