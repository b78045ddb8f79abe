"""Answers of Chat Completions on their way to a client of legacy Completions."""

from collections.abc import AsyncGenerator

from apps.gateway.answers import relay
from apps.gateway.dialects.completions import CompletionsRequest, CompletionsStream, text_completion
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.dispatch import Exchange
from apps.usage.contracts import RequestClosed


def give_completion(exchange: Exchange, body: bytes) -> tuple[bytes, RequestClosed]:
    """A text completion under our names."""
    answer, closed = relay.close_chat(exchange, body)
    admission = exchange.admission
    ours = text_completion(answer, request_id=admission.request_id, model=admission.model.id, echoed=_echoed(exchange))
    return write_json({**ours, "usage": relay.usage_for_client(closed)}), closed


def stream(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events, as `relay.stream` but for their shape."""
    admission = exchange.admission
    translation = CompletionsStream(request_id=admission.request_id, model=admission.model.id, echoed=_echoed(exchange))
    return relay.rendered(exchange, relay.stream(exchange), translation.feed)


def _echoed(exchange: Exchange) -> str:
    asked = exchange.admission.asked
    return asked.echoed if isinstance(asked, CompletionsRequest) else ""
