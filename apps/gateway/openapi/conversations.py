"""OpenAI's Conversations in the API document: what is asked, checked and answered. Pure."""

from typing import Final

from apps.gateway.openapi import chat
from apps.gateway.openapi.making import JSON, PAGE, counted, errors, operation, parameter
from apps.gateway.openapi.shapes import Schema, integer, listing, nullable, ref, taken, text

_TAG: Final = "Conversations"
_MAX_ITEMS: Final = 20
_METADATA: Final = chat.REQUEST["properties"]["metadata"]
_ITEMS: Final = listing(ref("ResponsesItem"), "Up to 20 at a time.", maxItems=_MAX_ITEMS)
CONVERSATION: Final = taken(
    "A conversation, without its items.",
    required=("id", "object", "created_at", "metadata"),
    id=text(pattern="^conv_[0-9a-f]{32}$"),
    object={"const": "conversation"},
    created_at=integer("Unix seconds."),
    metadata=taken("As it was given."),
)
SCHEMAS: Final[dict[str, Schema]] = {
    "NewConversation": taken("All of it can be left out.", items=nullable(_ITEMS), metadata=_METADATA),
    "ConversationChange": taken("What it has is replaced.", required=("metadata",), metadata=_METADATA),
    "NewConversationItems": taken(
        "They stand behind those that are there.", required=("items",), items={**_ITEMS, "minItems": 1}
    ),
    "Conversation": CONVERSATION,
    "DeletedConversation": taken(
        required=("id", "object", "deleted"),
        id=text(),
        object={"const": "conversation.deleted"},
        deleted={"const": True},
    ),
    "ConversationItem": taken(
        "A message, a call, its output, or reasoning.", required=("type", "id"), type=text(), id=text()
    ),
}
_ID: Final = parameter(
    "conversation_id", "path", text(pattern="^[^/]{1,100}$"), "Of a conversation.", required=True,
    example="conv_01a2047828c0e179f1fcfbc952417224",
)  # fmt: skip
_ITEM: Final = parameter(
    "item_id", "path", text(pattern="^[^/]{1,100}$"), "Of an item in it.", required=True,
    example="msg_01a2047828c0e179f1fcfbc952417224i00",
)  # fmt: skip


def _body(name: str, *, is_required: bool = True) -> Schema:
    return {"required": is_required, "content": {JSON: {"schema": ref(name)}}}


OPERATIONS: Final[dict[tuple[str, str], Schema]] = {
    ("/conversations", "post"): operation(
        "createConversation", "Make a conversation", tag=_TAG,
        requestBody=_body("NewConversation", is_required=False),
        answers={"200": counted("The conversation.", ref("Conversation")), **errors(429)},
    ),
    ("/conversations/{conversation_id}", "get"): operation(
        "getConversation", "A conversation", tag=_TAG, parameters=[_ID],
        answers={"200": counted("The conversation.", ref("Conversation")), **errors(404, 429)},
    ),
    ("/conversations/{conversation_id}", "post"): operation(
        "updateConversation", "Give a conversation other metadata", tag=_TAG, parameters=[_ID],
        requestBody=_body("ConversationChange"),
        answers={"200": counted("The conversation.", ref("Conversation")), **errors(404, 429)},
    ),
    ("/conversations/{conversation_id}", "delete"): operation(
        "deleteConversation", "Delete a conversation, its items and its responses", tag=_TAG, parameters=[_ID],
        answers={"200": counted("It is deleted.", ref("DeletedConversation")), **errors(404, 429)},
    ),
    ("/conversations/{conversation_id}/items", "post"): operation(
        "createConversationItems", "Add items to a conversation", tag=_TAG, parameters=[_ID],
        requestBody=_body("NewConversationItems"),
        answers={"200": counted("The items that were added.", ref("InputItems")), **errors(404, 429)},
    ),
    ("/conversations/{conversation_id}/items", "get"): operation(
        "listConversationItems", "The items of a conversation", tag=_TAG, parameters=[_ID, *PAGE],
        answers={"200": counted("A page of items.", ref("InputItems")), **errors(404, 429)},
    ),
    ("/conversations/{conversation_id}/items/{item_id}", "get"): operation(
        "getConversationItem", "An item of a conversation", tag=_TAG, parameters=[_ID, _ITEM],
        answers={"200": counted("The item.", ref("ConversationItem")), **errors(404, 429)},
    ),
    ("/conversations/{conversation_id}/items/{item_id}", "delete"): operation(
        "deleteConversationItem", "Delete an item of a conversation", tag=_TAG, parameters=[_ID, _ITEM],
        answers={"200": counted("The conversation that is left.", ref("Conversation")), **errors(404, 429)},
    ),
}  # fmt: skip
