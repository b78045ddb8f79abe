"""Answers on their way to a client of the Responses API: of upstreams that speak it as they came, all others by way of
a chat."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from apps.gateway.answers import relay
from apps.gateway.dialects.responses.answer import (
    ResponsesStream,
    begun_response,
    ended,
    not_kept,
    output_of,
    responses_usage,
    whole_output,
)
from apps.gateway.dialects.responses.native import Names, NativeResponses, native_response
from apps.gateway.dialects.responses.request import ResponsesRequest
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.dispatch import Exchange
from apps.gateway.providers import passes_as_it_came
from apps.gateway.providers.openai_responses_answer import ResponsesAnswerStream
from apps.usage.contracts import RequestClosed

Keep = Callable[[Exchange, dict[str, Any], dict[str, str]], Awaitable[bool]]
"""Stores an answer, with what its vendor wants back with its items; whether it is stored."""


class WholeAnswer:
    """What is left to be done with a whole answer that is to be stored, once it is billed."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._answered: tuple[Exchange, dict[str, Any], dict[str, str]] | None = None

    def give(self, exchange: Exchange, body: bytes) -> tuple[bytes, RequestClosed]:
        """A response under our names, as `give_response`."""
        answer, carried, closed = _answer(exchange, body)
        self._answered = exchange, answer, carried
        return write_json(answer), closed

    async def stored(self, content: bytes) -> bytes:
        """The answer to be sent: as it was given, or saying that it is not stored."""
        if self._answered is None or await self._keep(*self._answered):
            return content
        return write_json(not_kept(self._answered[1]))


def give_response(exchange: Exchange, body: bytes) -> tuple[bytes, RequestClosed]:
    """A response under our names."""
    answer, _, closed = _answer(exchange, body)
    return write_json(answer), closed


def _answer(exchange: Exchange, body: bytes) -> tuple[dict[str, Any], dict[str, str], RequestClosed]:
    """(the response, what its vendor wants back with its items, the record)."""
    asked, request_id = _asked(exchange), exchange.admission.request_id
    begun = begun_response(asked, request_id=request_id, model=exchange.admission.model.id)
    if passes_as_it_came(asked, exchange.target):
        exchange.keeping = None  # the chat beside it says less than the response
        _, closed = relay.close_chat(exchange, body)
        usage, tier = _usage(closed), closed.service_tier
        told = native_response(read_json(body), begun, Names(request_id), usage=usage, service_tier=tier)
        return told, {}, closed  # what the vendor wants back stands in its items
    answer, closed = relay.close_chat(exchange, body)
    output = output_of(asked, request_id)
    whole_output(answer, output)
    answer = ended(begun, output, _usage(closed), service_tier=closed.service_tier)
    return answer, output.carried, closed


def stream(exchange: Exchange, keep: Keep | None = None) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events, as `relay.stream` but for their shape; stored before its end is told."""
    asked, request_id = _asked(exchange), exchange.admission.request_id
    begun = begun_response(asked, request_id=request_id, model=exchange.admission.model.id)

    def usage() -> dict[str, Any]:
        return _usage(_closed(exchange))

    def service_tier() -> str:
        return _closed(exchange).service_tier

    if passes_as_it_came(asked, exchange.target):
        native = NativeResponses(begun, request_id=request_id, usage=usage, service_tier=service_tier)
        events = relay.rendered(exchange, relay.RelayedStream(exchange, ResponsesAnswerStream(native)), native.passed)
        return events if keep is None else _stored(events, native, lambda answer: keep(exchange, answer, {}))
    output = output_of(asked, request_id)
    translation = ResponsesStream(begun, output, usage=usage, service_tier=service_tier)
    events = relay.rendered(exchange, relay.stream(exchange), translation.feed)
    return (
        events if keep is None else _stored(events, translation, lambda answer: keep(exchange, answer, output.carried))
    )


async def _stored(
    events: AsyncGenerator[bytes, None],
    translation: ResponsesStream | NativeResponses,
    keep: Callable[[dict[str, Any]], Awaitable[bool]],
) -> AsyncGenerator[bytes, None]:
    """The same events. The last one waits until the answer is stored, and says so if it could not be."""
    is_over = False
    async with aclosing(events):
        async for block in events:
            if translation.answer is not None and not is_over:
                is_over, last = True, translation.last
                if not await keep(translation.answer):
                    yield block.removesuffix(last) + translation.not_stored()
                    continue
            yield block


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
