"""How many tokens a request of the Messages API has: exactly, where its upstream tells, else by our own estimate."""

import asyncio
from collections import Counter
from typing import Final, NamedTuple

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.messages.request import MessagesRequest
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.errors import GatewayError
from apps.gateway.metering.counting import TOKENS, measure_of
from apps.gateway.metering.token_usage import estimate_tokens
from apps.gateway.providers import NATIVE_OF_MESSAGES
from apps.gateway.providers.anthropic_native import count_request
from apps.gateway.providers.transport import Transport, UpstreamBroken, UpstreamUnreachable
from apps.gateway.routing.health import Upstreams
from apps.gateway.routing.order import in_order, is_wanted
from apps.gateway.routing.wishes import wishes_of
from apps.keys.contracts import KeyGrant

PATIENCE_S: Final = 10.0
"""So long an upstream may count; then we estimate. It costs nobody anything."""
MAX_AT_ONCE: Final = 16
"""Upstreams that count in one process: nobody pays for that, so it must not take the connections of those who pay."""
MAX_OF_ONE: Final = 4
"""Of them for one organization: beyond that it gets estimates, and nobody else does."""
MAX_ANSWER_BYTES: Final = 4_096
MEDIA_TOKENS: Final = 1_500
"""An image, or a page or two of a document, as Claude counts it."""
TURN_TOKENS: Final = 4
"""Role and separators of a message."""


class Count(NamedTuple):
    """Tokens, and whether the upstream told them."""

    tokens: int
    is_exact: bool


class TokenCounts:
    """The counts of one process."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        """Counts by upstreams, by organization."""

    async def of(
        self,
        asked: MessagesRequest,
        model: OfferedModel,
        *,
        grant: KeyGrant,
        transport: Transport,
        upstreams: Upstreams,
        may_ask: bool,
    ) -> Count:
        """`may_ask`: whether an upstream may be asked. Raises GatewayError (400, 503) for what could not be asked
        either."""
        targets = in_order(model, asked, grant.organization_id, upstreams=upstreams)
        native = [target for target in targets if target.dialect == NATIVE_OF_MESSAGES]
        if "provider" in asked.body:
            wanted = wishes_of(asked).preferences
            native = [target for target in native if is_wanted(target, wanted)]
        if grant.policy is not None:  # its rules may forbid that the text goes there as it is
            native = []
        if native and may_ask and self._takes(owner := grant.organization_id):
            self._running[owner] += 1
            try:
                told = await _told(asked, model, native[0], transport)
            finally:
                self._running -= Counter((owner,))
            if told is not None:
                return Count(told, is_exact=True)
        return Count(await _estimated(asked, model), is_exact=False)

    def _takes(self, organization_id: str) -> bool:
        return self._running[organization_id] < MAX_OF_ONE and self._running.total() < MAX_AT_ONCE


async def _told(asked: MessagesRequest, model: OfferedModel, target: Target, transport: Transport) -> int | None:
    """What the upstream counts; None when it does not tell."""
    request = count_request(asked, model, target)
    try:
        async with asyncio.timeout(PATIENCE_S):
            response = await transport.post(request, on_send=_nothing)
            try:
                body = await response.read(MAX_ANSWER_BYTES)
            finally:
                response.close()
        answer = read_json(body) if response.status == 200 else None
    except (UpstreamUnreachable, UpstreamBroken, GatewayError, TimeoutError, ValueError):
        return None
    tokens = answer.get("input_tokens") if isinstance(answer, dict) else None
    return tokens if type(tokens) is int and tokens >= 0 else None


def _nothing() -> None:
    """Counting is free: there is no record that must know when it was asked for."""


async def _estimated(asked: MessagesRequest, model: OfferedModel) -> int:
    body = asked.body
    calls = [message["tool_calls"] for message in body["messages"] if "tool_calls" in message]
    extras = [each for each in (calls, body.get("tools"), body.get("response_format")) if each]
    text = asked.longest_text() + "".join(write_json(each).decode() for each in extras)
    count = await TOKENS.count(text, measure_of(model))
    tokens = estimate_tokens(len(text.encode())) if count is None else count
    return tokens + TURN_TOKENS * len(body["messages"]) + MEDIA_TOKENS * asked.media


COUNTS: Final = TokenCounts()
"""The one of this process."""
