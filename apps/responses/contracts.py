"""What the data path and the stored responses say to each other: plain values."""

from dataclasses import dataclass
from datetime import datetime


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


@dataclass(frozen=True, slots=True)
class OpenedConversation:
    """A conversation without its items."""

    id: str
    created_at: datetime
    metadata: bytes


@dataclass(frozen=True, slots=True)
class OpenedItem:
    """An item of a conversation as it was given to be kept."""

    id: str
    content: bytes


@dataclass(frozen=True, slots=True)
class ReadItems:
    """All items of a conversation that stand before a place, in their order."""

    items: list[OpenedItem]
    end: int
    """That place."""


class ConversationFull(Exception):
    """A conversation has no room for so much more."""


class ItemsThere(Exception):
    """Items that are to be added are in the conversation already."""
