"""Items of conversations: as callers add them, as they are kept, and as a request takes them along. Pure.

Source: `Conversation` and `ConversationItem` in the reference of OpenAI's Conversations API.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from apps.gateway.dialects.chat import media_length
from apps.gateway.dialects.chat_fields import check_fields
from apps.gateway.dialects.responses.history import (
    Account,
    Item,
    Turn,
    holder_of,
    is_reference,
    kept_input,
    sealed_in,
    with_carried,
)
from apps.gateway.dialects.responses.items import Conversation
from apps.gateway.dialects.strict_json import MAX_TEXT_BYTES, too_much_text
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.errors import bad_field

MAX_ADDED: Final = 20
"""Items that can be added at once; OpenAI's own figure."""


class HeldItem(msgspec.Struct):
    """An item of a conversation: all that there is to be known of it."""

    item: Item
    """As it is listed."""
    carried: str = ""
    """What a vendor wants back with it."""
    route: tuple[str, str] | None = None
    """Provider and upstream model that answered it; None for an item of the caller's."""
    credential_id: str = ""
    """The organization's own provider key that was used; "" for the operator's."""

    @property
    def id(self) -> str:
        """Of the item."""
        return str(self.item["id"])

    def written(self) -> bytes:
        """As bytes, to be stored."""
        return write_json(msgspec.structs.asdict(self))


class Added(NamedTuple):
    """What a caller adds to a conversation."""

    items: list[HeldItem]
    given: list[str]
    """Their ids that the caller said, and that are kept."""


def read_held(content: bytes) -> HeldItem:
    """What was written."""
    told = read_json(content)
    route = told["route"]
    return HeldItem(
        told["item"],
        told["carried"],
        None if route is None else (route[0], route[1]),
        told.get("credential_id", ""),
    )


def items_of_turn(turn: Turn, answer_id: str) -> list[HeldItem]:
    """What a turn adds to its conversation: its own input, and what was answered."""
    answered = [
        HeldItem(_whole(item), turn.carried.get(item["id"], ""), turn.route, turn.credential_id)
        for item in turn.response["output"]
    ]
    return [*added(turn.input, answer_id).items, *answered]


def as_input(held: Iterable[HeldItem]) -> list[Item]:
    """The items as a request sends them, with what vendors want back."""
    return [item for each in held for item in with_carried(each.item, each.carried)]


def held_seals(held: Iterable[HeldItem]) -> dict[str, Account]:
    """What stands sealed in answers of a conversation -> the account that can open it."""
    return {
        sealed: (each.route[0], each.credential_id)
        for each in held
        if each.route is not None
        for item in with_carried(each.item, each.carried)
        for sealed in sealed_in(item)
    }


def last_route(held: list[HeldItem]) -> tuple[str, str] | None:
    """Who answered last in a conversation."""
    return next((each.route for each in reversed(held) if each.route is not None), None)


def added(items: list[Item], made_by: str) -> Added:
    """Items in the shape in which they are listed. Ids that were made here stay; all others are made anew."""
    plain = [item if holder_of(item.get("id")) is not None else _without_id(item) for item in items]
    given = [item["id"] for item in plain if "id" in item]
    return Added([HeldItem(_whole(item)) for item in kept_input(plain, made_by)], given)


def told_conversation(name: str, created_at: int, metadata: dict[str, str]) -> dict[str, Any]:
    """A conversation as it is told; made at Unix seconds."""
    return {"id": name, "object": "conversation", "created_at": created_at, "metadata": metadata}


def deleted_conversation(name: str) -> dict[str, Any]:
    """That it is deleted."""
    return {"id": name, "object": "conversation.deleted", "deleted": True}


def told_page(held: list[HeldItem], *, has_more: bool) -> dict[str, Any]:
    """A list of items."""
    return {
        "object": "list",
        "data": [each.item for each in held],
        "first_id": held[0].id if held else None,
        "last_id": held[-1].id if held else None,
        "has_more": has_more,
    }


def checked_items(told: dict[str, Any], *, size: int) -> list[Item]:
    """The items of a body of so many bytes. Raises GatewayError (400, 413) naming the first that is wrong."""
    items = told.get("items")
    if type(items) is not list or len(items) > MAX_ADDED:
        raise bad_field("items", f"items must be a list of {MAX_ADDED} items at most.")
    conversation = Conversation([])
    for index, item in enumerate(items):
        conversation.add(item, f"items[{index}]")
    if size > MAX_TEXT_BYTES and size - media_length(conversation.end()) > MAX_TEXT_BYTES:
        raise too_much_text()
    return items


def references_of(told: dict[str, Any]) -> list[Any]:
    """Those of the items that are only named."""
    items = told.get("items")
    return list(filter(is_reference, items)) if type(items) is list else []


def checked_metadata(told: dict[str, Any]) -> dict[str, str]:
    """The metadata of a body, {} for none. Raises GatewayError (400)."""
    if told.get("metadata") is None:
        return {}
    check_fields({"metadata": told["metadata"]})
    return dict(told["metadata"])


def named_conversation(told: dict[str, Any]) -> str | None:
    """The id of the conversation that a request belongs to; None for none. Raises GatewayError (400)."""
    named = told.get("conversation")
    if type(named) is dict:
        named = named.get("id")
    if told.get("conversation") is None:
        return None
    if type(named) is not str:
        raise bad_field("conversation", "conversation must be the id of one, or an object with its id.")
    if told.get("previous_response_id") is not None:
        message = "A request goes on from a conversation or from a previous_response_id, not from both."
        raise bad_field("conversation", message)
    return named


def _without_id(item: Item) -> Item:
    return {name: value for name, value in item.items() if name != "id"}


def _whole(item: Item) -> Item:
    return {"summary": [], **item} if item["type"] == "reasoning" else item
