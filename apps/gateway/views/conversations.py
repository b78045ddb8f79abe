"""POST /conversations; GET, POST and DELETE /conversations/{id}; the same of its items."""

from typing import Any

from apps.gateway.dialects.large_body import LARGE_BYTES
from apps.gateway.dialects.responses.conversations import (
    added,
    checked_items,
    checked_metadata,
    references_of,
)
from apps.gateway.dialects.strict_json import read_object
from apps.gateway.errors import (
    BAD_REQUEST,
    ITEM_IN_CONVERSATION,
    ITEM_NOT_FOUND,
    NOT_FOUND,
    GatewayError,
    bad_field,
)
from apps.gateway.server.answer import Answer, JsonBytes
from apps.gateway.server.lean_request import LeanRequest
from apps.gateway.stored.conversations import ConversationRoom, is_conversation_id
from apps.gateway.stored.recalling import check_keeping, conversation_not_found, resolve
from apps.gateway.stored.room import owner_of
from apps.gateway.views.counted import CountedView
from apps.gateway.views.stored_responses import page_wanted
from apps.responses.contracts import ConversationFull, ItemsThere, ResponseOwner


class OfConversations(CountedView):
    """What the endpoints of conversations have in common: one is the caller's, or it is not there."""

    async def authenticate(self, request: LeanRequest) -> None:
        """Find out who asks and whether it may, and wait for the turn of its organization. Raises GatewayError, or
        Unavailable."""
        await super().authenticate(request)
        doorway, owner, size = self.runtime.doorway, self.grant.organization_id, len(request.body)
        if not doorway.lets_in(owner, size):
            await doorway.wait(owner, size)
        if size > LARGE_BYTES:
            await request.cut_body()

    def check_place(self) -> None:
        """No endpoint is beneath what can be no conversation."""
        if not is_conversation_id(self.kwargs["conversation_id"]):
            raise GatewayError(NOT_FOUND, f"There is no endpoint at {self.request.path}.")

    @property
    def room(self) -> ConversationRoom:
        """Where they are."""
        return self.runtime.stored.conversations

    @property
    def owner(self) -> ResponseOwner:
        """Whose the caller's are."""
        return owner_of(self.grant)

    def read(self, request: LeanRequest) -> tuple[dict[str, Any], int]:
        """What a body says, and how many bytes it had. Raises GatewayError (400, 413)."""
        body = request.take_body()
        return (read_object(body) if len(body) else {}), len(body)

    async def items(self, told: dict[str, Any], *, size: int) -> list[dict[str, Any]]:
        """The items of a body, those that were only named as well. Raises GatewayError (400, 413)."""
        if references := references_of(told):
            found = await resolve(told["items"], references, self.grant, self.runtime.stored)
            told["items"] = found.items
            check_keeping(told, self.grant, param="items", size=size + found.size)
        return checked_items(told, size=size)


class Conversations(OfConversations):
    """All of them. There is no list: OpenAI has none."""

    def check_place(self) -> None:
        """It is there."""

    async def post(self, request: LeanRequest) -> Answer:
        told, size = self.read(request)
        metadata = checked_metadata(told)
        check_keeping(told, self.grant, param="items" if told.get("items") else "metadata", size=size)
        items = await self.items(told, size=size) if told.get("items") is not None else []
        adding = added(items, self.request_id.partition("_")[2])
        if len(set(adding.given)) < len(adding.given):
            raise _there_already()
        return JsonBytes(await self.room.create(self.owner, metadata, adding.items))


class Conversation(OfConversations):
    """One of them, without its items."""

    async def get(self, request: LeanRequest, conversation_id: str) -> Answer:
        return _found(conversation_id, await self.room.told(self.owner, conversation_id))

    async def post(self, request: LeanRequest, conversation_id: str) -> Answer:
        told, size = self.read(request)
        if "metadata" not in told:
            raise bad_field("metadata", "metadata is missing: say what the conversation is to have from now on.")
        metadata = checked_metadata(told)
        check_keeping(told, self.grant, param="metadata", size=size)
        return _found(conversation_id, await self.room.describe(self.owner, conversation_id, metadata))

    async def delete(self, request: LeanRequest, conversation_id: str) -> Answer:
        return _found(conversation_id, await self.room.delete(self.owner, conversation_id))


class ConversationItems(OfConversations):
    """The items of a conversation."""

    async def post(self, request: LeanRequest, conversation_id: str) -> Answer:
        told, size = self.read(request)
        check_keeping(told, self.grant, param="items", size=size)
        items = await self.items(told, size=size)
        if not items:
            raise bad_field("items", "items must have at least one.")
        adding = added(items, self.request_id.partition("_")[2])
        if len(set(adding.given)) < len(adding.given):
            raise _there_already()
        try:
            return _found(conversation_id, await self.room.add(self.owner, conversation_id, adding))
        except ItemsThere:
            raise _there_already() from None
        except ConversationFull:
            message = "The conversation has no room for that: begin another one with what matters of it."
            raise GatewayError(BAD_REQUEST, message, param="items") from None

    async def get(self, request: LeanRequest, conversation_id: str) -> Answer:
        wanted = page_wanted(request.query)
        try:
            page = await self.room.page(
                self.owner,
                conversation_id,
                limit=wanted.limit,
                is_ascending=wanted.order == "asc",
                after=wanted.after,
            )
        except KeyError:
            raise _item_not_found(wanted.after, param="after") from None
        return _found(conversation_id, page)


class ConversationItem(OfConversations):
    """One item of a conversation."""

    async def get(self, request: LeanRequest, conversation_id: str, item_id: str) -> Answer:
        item = await self.room.item(self.owner, conversation_id, item_id)
        return await self._found(conversation_id, item_id, item)

    async def delete(self, request: LeanRequest, conversation_id: str, item_id: str) -> Answer:
        left = await self.room.delete_item(self.owner, conversation_id, item_id)
        return await self._found(conversation_id, item_id, left)

    async def _found(self, conversation_id: str, item_id: str, told: bytes | None) -> Answer:
        if told is None:
            _found(conversation_id, await self.room.told(self.owner, conversation_id))
            raise _item_not_found(item_id)
        return JsonBytes(told)


def _found(conversation_id: str, told: bytes | None) -> Answer:
    if told is None:
        raise conversation_not_found(conversation_id)
    return JsonBytes(told)


def _item_not_found(item_id: str, *, param: str | None = None) -> GatewayError:
    return GatewayError(ITEM_NOT_FOUND, f"There is no item '{item_id[:100]}' in the conversation.", param=param)


def _there_already() -> GatewayError:
    message = "An item is in the conversation already: add only what is new."
    return GatewayError(ITEM_IN_CONVERSATION, message, param="items")
