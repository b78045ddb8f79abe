"""Answers on their way to a client of the Messages API: Anthropic's own as they came, all others by way of a chat."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from apps.gateway.answers import relay
from apps.gateway.dialects.messages.answer import MessagesStream, messages_counts, messages_usage, whole_message
from apps.gateway.dialects.messages.blocks import Blocks
from apps.gateway.dialects.messages.native import NativeMessages, native_message, tools_used
from apps.gateway.dialects.messages.request import MessagesRequest
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.dispatch import Exchange
from apps.gateway.providers import passes_as_it_came
from apps.gateway.providers.anthropic_answer import AnthropicStream
from apps.usage.contracts import RequestClosed, TokenCounts


def give_message(exchange: Exchange, body: bytes) -> tuple[bytes, RequestClosed]:
    """A message under our names."""
    if is_native := _is_native(exchange):
        exchange.keeping = None  # the chat beside it says less than the message
    answer, closed = relay.close_chat(exchange, body)
    names = {"request_id": exchange.admission.request_id, "model": exchange.admission.model.id}
    blocks = _blocks(exchange)
    ours = native_message(read_json(body), **names) if is_native else whole_message(answer, blocks, **names)
    usage = {**messages_usage(closed.tokens, closed.service_tier), **relay.cost_for_client(closed)}
    if is_native:
        usage |= tools_used(answer.get("usage"))
    return write_json({**ours, "usage": usage}), closed


def stream(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events, as `relay.stream` but for their shape."""
    chat, render = _native(exchange) if _is_native(exchange) else _translated(exchange)
    return relay.rendered(exchange, chat, render)


def _native(exchange: Exchange) -> tuple[AsyncGenerator[bytes, None], Callable[[bytes], bytes]]:
    admission = exchange.admission
    native = NativeMessages(
        request_id=admission.request_id,
        model=admission.model.id,
        usage=lambda: _last_usage(exchange.meter.closed),
    )
    return relay.RelayedStream(exchange, AnthropicStream(native)), native.passed


def _translated(exchange: Exchange) -> tuple[AsyncGenerator[bytes, None], Callable[[bytes], bytes]]:
    admission = exchange.admission
    translation = MessagesStream(
        _blocks(exchange),
        request_id=admission.request_id,
        model=admission.model.id,
        opening=messages_usage(TokenCounts(input=admission.asked.input_estimate())),
        usage=lambda: _last_usage(exchange.meter.closed),
    )
    return relay.stream(exchange), translation.feed


def _is_native(exchange: Exchange) -> bool:
    """Whether the upstream got the request as it came, and answers as the client expects it."""
    return passes_as_it_came(exchange.admission.asked, exchange.target)


def _last_usage(closed: RequestClosed | None) -> dict[str, Any]:
    """What the end of a stream says of the record; that of an answer that is whole is closed before its end is told."""
    if closed is None:
        raise ValueError("a record that is still open")
    return {**messages_counts(closed.tokens), **relay.cost_for_client(closed)}


def _blocks(exchange: Exchange) -> Blocks:
    asked = exchange.admission.asked
    request_id = exchange.admission.request_id
    stops = tuple(asked.body.get("stop") or ())
    shows_thoughts = isinstance(asked, MessagesRequest) and asked.shows_thoughts
    return Blocks(request_id.partition("_")[2], shows_thoughts=shows_thoughts, stops=stops)
