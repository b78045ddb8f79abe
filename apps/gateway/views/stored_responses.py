"""GET and DELETE /responses/{id}, GET /responses/{id}/input_items, POST /responses/{id}/cancel."""

from functools import partial
from typing import Any, Final, NamedTuple

from apps.gateway.dialects.responses.history import Turn, items_of
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.errors import BAD_REQUEST, NOT_FOUND, RESPONSE_NOT_FOUND, GatewayError, bad_field
from apps.gateway.server.answer import Answer, JsonBytes
from apps.gateway.server.lean_request import LeanRequest
from apps.gateway.stored.room import ReadChain, is_response_id, owner_of
from apps.gateway.views.counted import CountedView
from apps.responses.contracts import ChainTooLong

DEFAULT_PAGE: Final = 20
MAX_PAGE: Final = 100
"""OpenAI's own figures."""
_ORDERS: Final = ("asc", "desc")


class OfStoredResponse(CountedView):
    """What the endpoints of one stored response have in common: it is the caller's, or it is not there."""

    def check_place(self) -> None:
        """Other endpoints of OpenAI's are beneath the same path: `responses/compact` is no response."""
        if not is_response_id(self.kwargs["response_id"]):
            raise GatewayError(NOT_FOUND, f"There is no endpoint at {self.request.path}.")

    async def _told(self, response_id: str) -> bytes:
        """The response as JSON. Raises GatewayError (404), the same whether it never was, is gone, or is somebody
        else's; Unavailable."""
        return await self.runtime.stored.read(owner_of(self.grant), [response_id], partial(_told, response_id))


class StoredResponse(OfStoredResponse):
    """One response, as it was answered."""

    async def get(self, request: LeanRequest, response_id: str) -> Answer:
        query = request.query
        if query.get("stream", "false").lower() != "false" or "starting_after" in query:
            raise bad_field("stream", "A stored response is given in one piece: ask for it without stream.")
        return JsonBytes(await self._told(response_id))

    async def delete(self, request: LeanRequest, response_id: str) -> Answer:
        if not await self.runtime.stored.delete(owner_of(self.grant), response_id):
            raise not_found(response_id)
        return JsonBytes(write_json({"id": response_id, "object": "response", "deleted": True}))


class InputItems(OfStoredResponse):
    """What a response was made of: all items before it in its conversation, and those of its own request."""

    async def get(self, request: LeanRequest, response_id: str) -> Answer:
        page = partial(_page_of, response_id, page_wanted(request.query))
        try:
            return JsonBytes(await self.runtime.stored.read_chain(owner_of(self.grant), response_id, page))
        except ChainTooLong:
            raise GatewayError(BAD_REQUEST, "The conversation is too long to be listed.") from None


class CancelResponse(OfStoredResponse):
    """Nothing can be cancelled: no response is made in the background."""

    async def post(self, request: LeanRequest, response_id: str) -> Answer:
        await self._told(response_id)
        message = "Only a response that is made in the background can be cancelled; this one is over."
        raise GatewayError(BAD_REQUEST, message)


def not_found(response_id: str) -> GatewayError:
    """404 for whatever this key cannot find."""
    return GatewayError(RESPONSE_NOT_FOUND, f"There is no stored response '{response_id[:100]}'.")


class Wanted(NamedTuple):
    """Which page of a list."""

    limit: int
    order: str
    after: str


def page_wanted(query: dict[str, str]) -> Wanted:
    """The page that a query asks for. Raises GatewayError (400)."""
    text = query.get("limit", str(DEFAULT_PAGE))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PAGE)) else 0
    if not 1 <= limit <= MAX_PAGE:
        raise bad_field("limit", f"limit must be a number from 1 to {MAX_PAGE}.")
    order = query.get("order", "desc")
    if order not in _ORDERS:
        raise bad_field("order", f"order must be one of: {', '.join(_ORDERS)}.")
    return Wanted(limit, order, query.get("after", ""))


def _told(response_id: str, found: dict[str, Turn]) -> bytes:
    if response_id not in found:
        raise not_found(response_id)
    return write_json(found[response_id].response)


def _page_of(response_id: str, wanted: Wanted, chain: ReadChain) -> bytes:
    """A page of what was said before the answer, as JSON. Made where it was read: it may have 20 MB."""
    if not chain.turns:
        raise not_found(response_id)
    *before, last = chain.turns
    items = [item for item in (*chain.earlier, *items_of(before), *last.input) if "id" in item]
    if wanted.order == "desc":
        items.reverse()
    if wanted.after:
        place = next((index for index, item in enumerate(items) if item["id"] == wanted.after), None)
        if place is None:
            raise bad_field("after", "There is no such item in this list.")
        items = items[place + 1 :]
    return write_json(_listed(items, wanted.limit))


def _listed(items: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > limit,
    }
