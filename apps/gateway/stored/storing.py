"""Storing the answer of one request: after it is whole and billed, before its client is told that it is over."""

from functools import partial
from typing import Any

from apps.catalog.contracts import Target
from apps.gateway.dialects.responses.answer import response_id
from apps.gateway.dialects.responses.history import (
    Before,
    Turn,
    as_left,
    items_that_left,
    kept_input,
    without_seals,
)
from apps.gateway.dialects.responses.request import ResponsesRequest
from apps.gateway.dispatch import Exchange
from apps.gateway.stored.recalling import Recalled
from apps.gateway.stored.room import ResponseRoom, owner_of
from apps.usage.contracts import RESPONSE_CACHE


class Storing:
    """Made for a request that is to be stored, or belongs to a conversation."""

    def __init__(self, room: ResponseRoom, asked: ResponsesRequest, recalled: Recalled) -> None:
        self._room = room
        self._asked = asked
        self._recalled = recalled

    async def keep(self, exchange: Exchange, answer: dict[str, Any], carried: dict[str, str]) -> bool:
        """Store the answer, with what its vendor wants back, and add it to its conversation; whether another request
        can go on from it."""
        admission, recalled = exchange.admission, self._recalled
        target = exchange.target
        is_cached = target.provider == RESPONSE_CACHE
        route = recalled.pinned if is_cached else (target.provider, target.upstream_model)
        name = response_id(admission.request_id)
        owner, before = owner_of(admission.grant), recalled.before
        make = partial(_turn, self._asked, answer, carried, route, before, target=target)
        if before is not None:
            return await self._room.keep_turn(
                owner, name, make, conversation_id=before.conversation_id, is_stored=recalled.is_stored
            )
        return await self._room.keep(
            owner, name, make, chain_id=recalled.chain_id or name, previous_id=recalled.previous_id
        )


def _turn(
    asked: ResponsesRequest,
    answer: dict[str, Any],
    carried: dict[str, str],
    route: tuple[str, str] | None,
    before: Before | None,
    *,
    target: Target,
) -> Turn:
    """What is stored: what left, where that is not what came."""
    given: Any = asked.told["input"]
    if asked.is_redacted:
        answer = as_left(answer, asked.body)
        given = items_that_left(asked.body["messages"], first=asked.earlier_messages)
    elif asked.earlier:
        given = given[asked.earlier :]
    items = kept_input(given, answer["id"].partition("_")[2])
    if asked.sealed_by:  # what was left out because another account had sealed it did not leave
        items = without_seals(items, lambda sealed: asked.can_open(sealed, target))
    return Turn(answer, items, carried, route, before, target.credential_id)
