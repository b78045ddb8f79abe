"""What the data path and the stored responses say to each other: plain values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResponseOwner:
    """Whose a stored response is: nobody else can find it, not even another project of the same organization."""

    organization_id: str
    project_id: str
    sandbox: bool
    """Sandbox and live are kept apart, as everywhere."""


@dataclass(frozen=True, slots=True)
class OpenedResponse:
    """A stored response as it was given to be kept."""

    id: str
    chain_id: str
    """The first response of its conversation."""
    content: bytes


class ChainTooLong(Exception):
    """A conversation has more turns, or it or what is referred to is larger, than can be read again."""
