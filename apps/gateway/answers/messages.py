"""Answers of Chat Completions on their way to a client of the Messages API."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from apps.gateway.answers import relay
from apps.gateway.dialects.messages.answer import MessagesStream, messages_usage, whole_message
from apps.gateway.dialects.messages.blocks import Blocks
from apps.gateway.dialects.messages.request import MessagesRequest
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.dispatch import Exchange
from apps.usage.contracts import RequestClosed, TokenCounts


def give_message(exchange: Exchange, body: bytes) -> tuple[bytes, RequestClosed]:
    """A message under our names."""
    answer, closed = relay.close_chat(exchange, body)
    admission = exchange.admission
    ours = whole_message(answer, _blocks(exchange), request_id=admission.request_id, model=admission.model.id)
    return write_json({**ours, "usage": _usage(closed)}), closed


async def stream(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events, as `relay.RelayedStream` but for their shape."""
    admission = exchange.admission
    translation = MessagesStream(
        _blocks(exchange),
        request_id=admission.request_id,
        model=admission.model.id,
        opening=messages_usage(TokenCounts(input=admission.asked.input_estimate())),
        usage=lambda: _usage(exchange.meter.closed),
    )
    async with aclosing(relay.RelayedStream(exchange)) as chat:
        async for block in chat:
            if ready := translation.feed(block):
                yield ready


def _usage(closed: RequestClosed | None) -> dict[str, Any]:
    """What the record says; the record of an answer that is whole is closed before its end is told."""
    if closed is None:
        raise ValueError("a record that is still open")
    return {**messages_usage(closed.tokens, closed.service_tier), **relay.cost_for_client(closed)}


def _blocks(exchange: Exchange) -> Blocks:
    asked = exchange.admission.asked
    request_id = exchange.admission.request_id
    stops = tuple(asked.body.get("stop") or ())
    shows_thoughts = isinstance(asked, MessagesRequest) and asked.shows_thoughts
    return Blocks(request_id.partition("_")[2], shows_thoughts=shows_thoughts, stops=stops)
