"""Answers of Chat Completions on their way to a client of legacy Completions."""

from collections.abc import AsyncGenerator

from apps.gateway.answers import relay
from apps.gateway.dialects.completions import CompletionsRequest, CompletionsStream, text_completion
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.dispatch import Exchange
from apps.gateway.providers import translator_of
from apps.usage.contracts import RequestClosed


def give_completion(exchange: Exchange, body: bytes) -> tuple[bytes, RequestClosed]:
    """A text completion under our names."""
    answer, closed = relay.close_chat(exchange, body)
    admission = exchange.admission
    ours = text_completion(
        answer, request_id=admission.request_id, model=admission.model.id, echoed=_asked(exchange).echoed
    )
    return write_json({**ours, "usage": relay.usage_for_client(closed)}), closed


def stream(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events, as `relay.stream` but for their shape."""
    admission, asked = exchange.admission, _asked(exchange)
    translation = CompletionsStream(request_id=admission.request_id, model=admission.model.id, echoed=asked.echoed)
    chat = relay.stream(exchange, translator_of(asked, exchange.target))
    return relay.rendered(exchange, chat, translation.feed)


def _asked(exchange: Exchange) -> CompletionsRequest:
    asked = exchange.admission.asked
    if not isinstance(asked, CompletionsRequest):
        raise TypeError("not a request of Completions")
    return asked
