"""Answers of Chat Completions on their way to a client of the Responses API."""

from collections.abc import AsyncGenerator
from typing import Any

from apps.gateway.answers import relay
from apps.gateway.dialects.responses.answer import (
    ResponsesStream,
    begun_response,
    ended,
    output_of,
    responses_usage,
    whole_output,
)
from apps.gateway.dialects.responses.request import ResponsesRequest
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.dispatch import Exchange
from apps.usage.contracts import RequestClosed


def give_response(exchange: Exchange, body: bytes) -> tuple[bytes, RequestClosed]:
    """A response under our names."""
    answer, closed = relay.close_chat(exchange, body)
    asked, request_id = _asked(exchange), exchange.admission.request_id
    output = output_of(asked, request_id)
    whole_output(answer, output)
    begun = begun_response(asked, request_id=request_id, model=exchange.admission.model.id)
    return write_json(ended(begun, output, _usage(closed), service_tier=closed.service_tier)), closed


def stream(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events, as `relay.stream` but for their shape."""
    asked, request_id = _asked(exchange), exchange.admission.request_id
    translation = ResponsesStream(
        begun_response(asked, request_id=request_id, model=exchange.admission.model.id),
        output_of(asked, request_id),
        usage=lambda: _usage(_closed(exchange)),
        service_tier=lambda: _closed(exchange).service_tier,
    )
    return relay.rendered(exchange, relay.stream(exchange), translation.feed)


def _asked(exchange: Exchange) -> ResponsesRequest:
    asked = exchange.admission.asked
    if not isinstance(asked, ResponsesRequest):
        raise TypeError("not a request of the Responses API")
    return asked


def _closed(exchange: Exchange) -> RequestClosed:
    """The record of an answer that is whole is closed before its end is told."""
    if exchange.meter.closed is None:
        raise ValueError("a record that is still open")
    return exchange.meter.closed


def _usage(closed: RequestClosed) -> dict[str, Any]:
    return {**responses_usage(closed.tokens), **relay.cost_for_client(closed)}
