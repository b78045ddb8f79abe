"""What a request wants of stored responses: whether it is to be stored itself, and what it goes on from."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from django.conf import settings

from apps.gateway.dialects.responses.conversations import named_conversation
from apps.gateway.dialects.responses.history import (
    Account,
    Before,
    Turn,
    holder_of,
    is_reference,
    items_of,
    resolved,
    seals_of,
)
from apps.gateway.errors import (
    BAD_REQUEST,
    BODY_TOO_LARGE,
    CONVERSATION_NOT_FOUND,
    ITEM_IN_CONVERSATION,
    PREVIOUS_NOT_FOUND,
    STORAGE_FORBIDDEN,
    GatewayError,
    bad_field,
)
from apps.gateway.kept.permission import forbids_keeping
from apps.gateway.stored.room import TOO_LARGE, ReadChain, ResponseRoom, owner_of
from apps.keys.contracts import KeyGrant
from apps.responses.contracts import ChainTooLong

MAX_REFERENCES: Final = 100
"""Responses that the references of one request may lead to."""
_PREVIOUS: Final = "previous_response_id"
_CONVERSATION: Final = "conversation"


@dataclass(slots=True)
class Recalled:
    """What became of it. With an empty `chain_id` the answer begins a conversation of its own."""

    is_stored: bool
    chain_id: str = ""
    previous_id: str = ""
    earlier: int = 0
    """So many items were put before the input."""
    pinned: tuple[str, str] | None = None
    before: Before | None = None
    """What the conversation had that the answer is to be added to; None for an answer of none."""
    sealed_by: dict[str, Account] = field(default_factory=dict)
    """What stands sealed in it -> whose account can open it."""


class Resolved(NamedTuple):
    """Items with those themselves that were only named."""

    items: list[Any]
    size: int
    """Bytes of what came with that."""
    sealed_by: dict[str, Account]


async def recall(told: dict[str, Any], grant: KeyGrant, room: ResponseRoom, *, size: int) -> Recalled:
    """Put what the request goes on from before its input. The database is asked only where there is something.

    Raises GatewayError (400) for what is not there, may not be stored, or is too large for it; Unavailable."""
    conversation_id = named_conversation(told)
    recalled = Recalled(_is_stored(told, grant, room, size))
    given = told.get("input")
    previous_id = told.get(_PREVIOUS)
    items: list[Any] = given if type(given) is list else []
    references = list(filter(is_reference, items))
    if previous_id is None and conversation_id is None and not references:
        return recalled
    if _forbids_storage(grant, told):
        raise _forbidden(_named_state(told))
    if references:
        found = await resolve(items, references, grant, room)
        told["input"], recalled.sealed_by = found.items, found.sealed_by
        if recalled.is_stored or conversation_id is not None:
            recalled.is_stored = _is_stored(told, grant, room, size + found.size)
    if conversation_id is not None:
        await _join(told, recalled, grant, room, conversation_id)
    elif previous_id is not None:
        await _go_on(told, recalled, grant, room)
    return recalled


def check_keeping(told: dict[str, Any], grant: KeyGrant, *, param: str, size: int) -> None:
    """Raises GatewayError for what somebody wants to be kept that may not be (400), or is too large (413)."""
    if _forbids_storage(grant, told):
        raise _forbidden(param)
    if size > settings.RESPONSES_MAX_BYTES:
        raise _too_large(param)


def _is_stored(told: dict[str, Any], grant: KeyGrant, room: ResponseRoom, size: int) -> bool:
    """Whether the answer to a request of so many bytes, with what it refers to, is to be stored. Who needs that gets an
    error where it cannot be, before anybody is asked."""
    wanted = told.get("store")
    is_needed = told.get(_PREVIOUS) is not None or told.get(_CONVERSATION) is not None
    if wanted is False and (size <= settings.RESPONSES_MAX_BYTES or told.get(_CONVERSATION) is None):
        return False
    if _forbids_storage(grant, told):
        if wanted:
            raise _forbidden("store")
        return False
    if size <= settings.RESPONSES_MAX_BYTES:
        return True
    if wanted or is_needed:
        raise _too_large("store")
    room.not_stored[TOO_LARGE] += 1
    return False


def _too_large(param: str) -> GatewayError:
    most = f"{settings.RESPONSES_MAX_BYTES / (1 << 20):g} MB"
    message = (
        f"What is stored may have {most}, with all that it refers to: send a request that is larger with store set to"
        " false."
    )
    return GatewayError(BODY_TOO_LARGE, message, param=param)


def _named_state(told: dict[str, Any]) -> str:
    """The field of a request that names what is stored."""
    return next((name for name in (_PREVIOUS, _CONVERSATION) if told.get(name) is not None), "input")


def _forbids_storage(grant: KeyGrant, told: dict[str, Any]) -> bool:
    data = None if grant.policy is None else grant.policy.data
    return not settings.RESPONSES_DAYS or forbids_keeping(grant, told) or (data is not None and data.forbids_storage)


def _forbidden(param: str) -> GatewayError:
    if not settings.RESPONSES_DAYS:
        message = "This installation stores no responses: send the whole input, with store set to false."
    else:
        message = (
            "Your organization, or the provider field of the request, does not let responses be stored here:"
            " send the whole input, with store set to false."
        )
    return GatewayError(STORAGE_FORBIDDEN, message, param=param)


async def resolve(given: list[Any], references: list[Any], grant: KeyGrant, room: ResponseRoom) -> Resolved:
    """Items with those themselves that were only named. What is not found stays, and is refused.

    Each can be named once, as in OpenAI's API: else a short request could be made as large as anybody likes."""
    named = [item_id for item in references if type(item_id := item.get("id")) is str]
    if len(set(named)) < len(named):
        raise bad_field("input", "An item is referred to more than once.")
    holders = {holder for item_id in named if (holder := holder_of(item_id)) is not None}
    if len(holders) > MAX_REFERENCES:
        raise bad_field("input", f"Items of more than {MAX_REFERENCES} responses are referred to.")
    if not holders:
        return Resolved(given, 0, {})
    try:
        return await room.read(owner_of(grant), sorted(holders), partial(_with_items, given))
    except ChainTooLong:
        raise bad_field("input", "The responses whose items are referred to are too large together.") from None


def _with_items(given: list[Any], turns: dict[str, Turn]) -> Resolved:
    return Resolved(*resolved(given, turns), seals_of(turns.values()))


async def _go_on(told: dict[str, Any], recalled: Recalled, grant: KeyGrant, room: ResponseRoom) -> None:
    previous_id = told[_PREVIOUS]
    try:
        chain, seals = await room.read_chain(owner_of(grant), previous_id, _with_seals)
    except ChainTooLong:
        message = "The conversation is too long to go on from: begin another one with what matters of it."
        raise GatewayError(BAD_REQUEST, message, param=_PREVIOUS) from None
    if not chain.is_whole:
        message = f"There is no stored response '{previous_id[:100]}' to go on from."
        if chain.turns:
            message = f"A response before '{previous_id[:100]}' is deleted, so nothing can go on from it."
        raise GatewayError(PREVIOUS_NOT_FOUND, message, param=_PREVIOUS)
    last = chain.turns[-1]
    if last.response["status"] == "failed":
        message = "The response failed: go on from the one before it, or send the whole input."
        raise GatewayError(BAD_REQUEST, message, param=_PREVIOUS)
    now = _said_now(told.get("input"))
    if not now:
        return  # it is refused for that
    earlier = [*chain.earlier, *items_of(chain.turns)]
    told["input"] = [*earlier, *now]
    recalled.chain_id, recalled.previous_id = chain.chain_id, previous_id
    recalled.earlier, recalled.pinned = len(earlier), last.route
    recalled.sealed_by |= seals


def _with_seals(chain: ReadChain) -> tuple[ReadChain, dict[str, Account]]:
    return chain, seals_of(chain.turns) | chain.earlier_seals


async def _join(
    told: dict[str, Any], recalled: Recalled, grant: KeyGrant, room: ResponseRoom, conversation_id: str
) -> None:
    """Put what a conversation has before the input. Without an input it is all that the model is told."""
    try:
        taken = await room.conversations.taken(owner_of(grant), conversation_id)
    except ChainTooLong:
        message = "The conversation is too long to go on: begin another one with what matters of it."
        raise GatewayError(BAD_REQUEST, message, param=_CONVERSATION) from None
    if taken is None:
        raise conversation_not_found(conversation_id, param=_CONVERSATION)
    recalled.before = Before(conversation_id, taken.end, len(taken.ids))
    given = told.get("input")
    now = _said_now(given)
    if not now and (given is not None or not taken.input):
        return  # it is refused for that
    ids = [item["id"] for item in now if type(item) is dict and type(item.get("id")) is str]
    if len(set(ids)) < len(ids) or not taken.ids.isdisjoint(ids):
        message = "An item of the input is in the conversation already: send only what is new."
        raise GatewayError(ITEM_IN_CONVERSATION, message, param="input")
    told["input"] = [*taken.input, *now]
    recalled.earlier, recalled.pinned = len(taken.input), taken.route
    recalled.sealed_by |= taken.sealed_by


def conversation_not_found(conversation_id: str, *, param: str | None = None) -> GatewayError:
    """404 for whatever this key cannot find."""
    return GatewayError(CONVERSATION_NOT_FOUND, f"There is no conversation '{conversation_id[:100]}'.", param=param)


def _said_now(given: Any) -> list[Any]:
    """The input as items; none for what is no input. An empty text is one, as it is where nothing goes before it."""
    if type(given) is str:
        return [{"role": "user", "content": given}]
    return given if type(given) is list else []
