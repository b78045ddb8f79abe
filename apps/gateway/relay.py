"""Carrying an upstream's answer to the client, counting on the way. Settles before the last byte is sent."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from apps.core.money import format_usd
from apps.gateway.chat_stream import ChatStream
from apps.gateway.deadline import Deadline, Wait
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import UPSTREAM_FAILED, UPSTREAM_TIMEOUT, GatewayError
from apps.gateway.providers.transport import UpstreamBroken
from apps.gateway.token_usage import UsageInvalid, estimate_tokens, from_openai, to_openai
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts

log = logging.getLogger(__name__)


async def stream(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events. A failure on the way is the last event, and no `[DONE]` follows it.

    When the client leaves, this is cancelled or closed: the upstream is cut and the record closed all the same."""
    admission, meter = exchange.admission, exchange.meter
    chat_stream = ChatStream(
        completion_id=completion_id(admission.request_id),
        model=admission.model.id,
        token_bound=admission.token_bound,
    )
    deadline = exchange.deadline
    deadline.adopt()
    try:
        deadline.expect(Wait.FIRST_BYTE)
        while received := await exchange.response.read_some():
            if ready := chat_stream.feed(received):
                meter.received(len(received), chat_stream.output_count)
                deadline.expect(Wait.CLIENT)
                yield ready
            if chat_stream.failure is not None:
                raise chat_stream.failure
            deadline.expect(Wait.NEXT_BYTES)
        rest = chat_stream.end()
        if chat_stream.failure is not None:
            raise chat_stream.failure
        closed = _close_whole_stream(exchange, chat_stream)
        deadline.expect(Wait.CLIENT)
        yield rest + chat_stream.closing_events(usage_for_client(closed))
    except (GatewayError, UpstreamBroken, asyncio.CancelledError) as error:
        failure = _failure_of(error, deadline)
        if failure is None:
            raise
        code = failure.code or ""
        meter.close_partial(Outcome.FAILED, chat_stream.tokens, chat_stream.output_count, error_code=code)
        yield failure.stream_event()
    finally:
        meter.close_partial(Outcome.CANCELLED, chat_stream.tokens, chat_stream.output_count, error_code="client_closed")
        exchange.abandon()


async def whole(exchange: Exchange) -> tuple[bytes, RequestClosed]:
    """A complete answer as JSON in our shape, and its record. Raises GatewayError; the record is closed either way."""
    meter = exchange.meter
    deadline = exchange.deadline
    try:
        answer = _parse_answer(await exchange.response.read())
        closed = _close_whole_answer(exchange, answer)
        return _as_ours(answer, exchange, closed), closed
    except (GatewayError, UpstreamBroken, asyncio.CancelledError) as error:
        failure = _failure_of(error, deadline)
        if failure is None:
            raise
        meter.close(Outcome.FAILED, TokenCounts(), http_status=failure.kind.status, error_code=failure.code or "")
        raise failure from error
    finally:
        exchange.abandon()


def completion_id(request_id: str) -> str:
    """The id of an answer: the request's, in the form that clients of Chat Completions know."""
    return f"chatcmpl-{request_id.partition('_')[2]}"


def usage_for_client(closed: RequestClosed) -> dict[str, Any]:
    """OpenAI's usage object with what it cost in USD, to the nano-dollar."""
    cost = orjson.Fragment(format_usd(closed.cost_nanos))
    return {**to_openai(closed.tokens), "cost": cost, "cost_details": {"estimated": closed.estimated}}


def _failure_of(error: BaseException, deadline: Deadline) -> GatewayError | None:
    """What the client is told; None when nobody is there to be told."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, UpstreamBroken):
        return GatewayError(UPSTREAM_FAILED, "The upstream broke off before the answer was complete.")
    if deadline.expired is not Wait.CLIENT and deadline.took_effect():
        return GatewayError(UPSTREAM_TIMEOUT, f"The upstream took too long ({deadline.expired_wait}).")
    return None


def _close_whole_stream(exchange: Exchange, chat_stream: ChatStream) -> RequestClosed:
    if chat_stream.skipped_events:
        log.warning(
            "skipped events that are no JSON",
            extra={"request_id": exchange.admission.request_id, "events": chat_stream.skipped_events},
        )
    tokens = chat_stream.tokens
    if tokens is None:
        estimate = TokenCounts(input=exchange.admission.chat.input_estimate(), output=chat_stream.output_count)
        return exchange.meter.close(
            Outcome.COMPLETED, estimate, estimated=True, finish_reason=chat_stream.finish_reason
        )
    return exchange.meter.close(Outcome.COMPLETED, tokens, finish_reason=chat_stream.finish_reason)


def _close_whole_answer(exchange: Exchange, answer: dict[str, Any]) -> RequestClosed:
    admission = exchange.admission
    choices = answer["choices"]
    finish_reason = str(choices[0].get("finish_reason") or "") if choices else ""
    exchange.meter.received(0, 0)
    try:
        tokens = from_openai(answer.get("usage"), bound=admission.token_bound)
    except UsageInvalid as error:
        log.warning("usage cannot be billed: %s", error, extra={"request_id": admission.request_id})
        output = sum(_text_bytes(choice) for choice in choices)
        tokens = TokenCounts(input=admission.chat.input_estimate(), output=estimate_tokens(output))
        return exchange.meter.close(Outcome.COMPLETED, tokens, estimated=True, finish_reason=finish_reason)
    return exchange.meter.close(Outcome.COMPLETED, tokens, finish_reason=finish_reason)


def _parse_answer(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise GatewayError(UPSTREAM_FAILED, "The upstream's answer is not valid JSON.") from error
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise GatewayError(UPSTREAM_FAILED, "The upstream's answer is no chat completion.")
    return dict(answer)


def _as_ours(answer: dict[str, Any], exchange: Exchange, closed: RequestClosed) -> bytes:
    """The answer under our names: nothing that tells which upstream it came from."""
    answer.pop("system_fingerprint", None)
    answer["id"] = completion_id(exchange.admission.request_id)
    answer["model"] = exchange.admission.model.id
    answer["usage"] = usage_for_client(closed)
    return orjson.dumps(answer)


def _text_bytes(choice: dict[str, Any]) -> int:
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return len(content.encode()) if isinstance(content, str) else 0
