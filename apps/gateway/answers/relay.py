"""Carrying an upstream's answer to the client, counting on the way. Settles before the last byte is sent."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from apps.core.crash_points import crash_point
from apps.core.money import NANOS_PER_USD
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.chat_stream import ChatStream, output_of
from apps.gateway.dialects.published import public_chat
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import CONTENT_POLICY, GATEWAY_STOPPING, SERVER_ERROR, UPSTREAM_FAILED, GatewayError
from apps.gateway.guardrails.answering import answer_guarding, guard_answer, stream_guard
from apps.gateway.guardrails.streaming import StreamGuard
from apps.gateway.metering.growth import Growth
from apps.gateway.metering.token_usage import (
    ToldUsage,
    estimate_tokens,
    read_usage,
    served_tier,
    to_openai,
)
from apps.gateway.providers import PROVIDERS, whole_answer
from apps.gateway.providers.base import StreamTranslator
from apps.gateway.providers.transport import UpstreamBroken
from apps.gateway.server.cancellation import told_to_client
from apps.gateway.server.deadline import CLIENT, FIRST_BYTE, NEXT_BYTES, Deadline
from apps.gateway.server.direct import Client, DirectSource
from apps.policies.guarding import Guarding
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts

Given = tuple[bytes, RequestClosed]
Turn = Callable[[str, int], Awaitable[None]]
"""Of an organization, for so many bytes."""
Give = Callable[[Exchange, bytes], Given | Awaitable[Given]]
"""Closes the record of a whole answer, and makes what the client gets of it: at once, or in steps that let others run
where that takes long. Raises GatewayError for no answer."""
Left = Callable[[Exchange, bytes], None]
"""Closes the record of a whole answer that is here, and whose client has left."""

log = logging.getLogger(__name__)


def stream(exchange: Exchange, translator: StreamTranslator | None = None) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events; kept for the response cache on its way, if that is wanted. `translator` as in
    RelayedStream."""
    source = RelayedStream(exchange, translator)
    return source if exchange.keeping is None else exchange.keeping.stream(source, exchange)


async def rendered(
    exchange: Exchange, chat: AsyncGenerator[bytes, None], render: Callable[[bytes], bytes]
) -> AsyncGenerator[bytes, None]:
    """The events of a chat in the shape of another dialect. A mistake of ours in that shape costs nobody anything, and
    is told as the last event."""
    async with aclosing(chat):
        async for block in chat:
            try:
                ready = render(block)
            except Exception as error:  # noqa: BLE001 - process edge: after the first byte every failure is an event of the stream
                failure = _bug(error, exchange.admission.request_id)
                exchange.meter.close(Outcome.FAILED, TokenCounts(), error_code=SERVER_ERROR.code or "")
                yield render(failure.stream_event())
                return
            if ready:
                yield ready


class RelayedStream(DirectSource):
    """The answer as server-sent events. A failure on the way is the last event, and no `[DONE]` follows it.

    When the client leaves, this is cancelled or closed: the upstream is cut and the record closed all the same. Once it
    is connected to its client, what needs no waiting goes there as it comes, and nobody is woken for it."""

    def __init__(self, exchange: Exchange, translator: StreamTranslator | None = None) -> None:
        """`translator` stands in for that of the upstream's dialect."""
        admission, growth = exchange.admission, exchange.growth
        self._exchange = exchange
        self._meter, self._deadline, self._growth = exchange.meter, exchange.deadline, growth
        self._chat_stream = ChatStream(
            completion_id=completion_id(admission.request_id),
            model=admission.model.id,
            choices=admission.asked.choices,
            token_bound=admission.token_bound,
            note_output=growth.output.add if growth is not None else None,
        )
        self._translator = translator or PROVIDERS[exchange.target.dialect].translator()
        self._guard = stream_guard(admission.asked)
        # Not what is still to be put into another dialect's words: the record must be open for a mistake in that.
        self._holds_last = self._guard is None and admission.asked.endpoint == ChatRequest.endpoint
        super().__init__(self._relayed())

    def connect(self, client: Client) -> None:
        """Whoever sends the parts has sent the start of the answer, and awaits the next part between any two."""
        if self._translator is None and self._guard is None:
            self._client = client
            self._exchange.response.taker = self._pass_on

    def _pass_on(self, received: bytes) -> bool:
        """Send a read on at once, if that is all there is to do about it; False for what the relay must look at."""
        client, growth = self._client, self._growth
        if not client.is_ready or (growth is not None and growth.is_due_with(len(received))):
            return False
        ready = self._chat_stream.pass_on(received)
        if ready is None:
            return False
        self._meter.received(len(received), self._chat_stream.output_count)
        crash_point("P6")
        client.write(ready)
        crash_point("P5")
        self._deadline.expect(NEXT_BYTES)
        return True

    async def _relayed(self) -> AsyncGenerator[bytes, None]:
        exchange, chat_stream, translator = self._exchange, self._chat_stream, self._translator
        meter, deadline, growth, guard = self._meter, self._deadline, self._growth, self._guard
        last = b""  # what came with the end of the answer: it leaves in one write with the events that are ours
        is_begun = False
        deadline.adopt()
        deadline.expect(FIRST_BYTE)
        try:
            while not chat_stream.is_done and (received := await exchange.response.read_some()):
                usage = chat_stream.usage
                if translator is not None:
                    received = translator.feed(received)
                ready = chat_stream.feed(received)
                if guard is not None and ready:
                    ready = await guard.judged(guard.feed(ready))
                if ready:
                    if growth is not None and growth.is_due:
                        await _keep_up(growth, chat_stream, delivered=meter.output_count, usage=usage)
                    meter.received(len(received), chat_stream.output_count if guard is None else guard.output_count)
                    if is_begun and self._holds_last and chat_stream.is_done and chat_stream.failure is None:
                        last = ready
                        break
                    deadline.expect(CLIENT)
                    crash_point("P6")
                    yield ready
                    is_begun = True
                    crash_point("P5")
                if guard is not None:
                    self._check(guard)
                chat_stream.check()
                received = ready = b""  # the next read may be long in coming
                deadline.expect(NEXT_BYTES)
            exchange.response.taker = None
            rest = chat_stream.feed(translator.end()) if translator is not None else b""
            rest += chat_stream.end()
            chat_stream.check()
            if guard is not None:
                rest = await guard.judged(guard.feed(rest) + guard.end(), is_last=True)
                if guard.failure is not None and rest:
                    yield rest
                self._check(guard)
            if growth is not None and chat_stream.tokens is not None:
                _note_usage(exchange, chat_stream.told, chat_stream.service_tier)
                await growth.cover(meter.cost_of(chat_stream.tokens))
            closed = _close_whole_stream(exchange, chat_stream)
            deadline.expect(CLIENT)
            self.is_over, rest, last = True, last + rest, b""
            yield rest + chat_stream.closing_events(usage_for_client(closed))
            crash_point("P12")
            await exchange.response.finish()  # raises nothing: the answer is complete, and no error may follow it
        except asyncio.CancelledError as error:
            failure = _failure_of(error, deadline)
            if failure is None or meter.closed is not None:
                raise
            yield last + self._held_back() + _close_broken_stream(exchange, chat_stream, failure)
        except Exception as error:  # noqa: BLE001 - process edge: after the first byte every failure is an event of the stream
            failure = _failure_of(error, deadline) or _bug(error, exchange.admission.request_id)
            yield last + self._held_back() + _close_broken_stream(exchange, chat_stream, failure)
        finally:
            exchange.response.taker = None
            _close_part(exchange, chat_stream, Outcome.CANCELLED, error_code="client_closed")
            exchange.abandon()

    def _check(self, guard: StreamGuard) -> None:
        """Raises GatewayError when a rule blocks the answer: only what was delivered is billed, by our own count."""
        if guard.failure is not None:
            self._chat_stream.output_count, self._chat_stream.usage = guard.output_count, None
            raise guard.failure

    def _held_back(self) -> bytes:
        """What waited for a rule when the answer broke off, and may go on: it is billed."""
        return b"" if self._guard is None else self._guard.left()


def give_chat(exchange: Exchange, body: bytes) -> Given:
    """A chat completion under our names."""
    answer, closed = close_chat(exchange, body)
    return _as_ours(answer, exchange, closed), closed


def close_chat(exchange: Exchange, body: bytes) -> tuple[dict[str, Any], RequestClosed]:
    """A chat completion as the upstream's dialect tells it, and its record. Raises GatewayError for what is none."""
    answer = exchange.answer or _parse_answer(exchange, body)
    closed = _close_whole_answer(exchange, answer)
    if exchange.keeping is not None:
        exchange.keeping.chat(exchange, answer, closed)
    return answer, closed


def close_left(exchange: Exchange, body: bytes) -> None:
    """A chat completion that its client did not wait for costs what the upstream told, as it would have."""
    try:
        answer = exchange.answer or _parse_answer(exchange, body)
    except GatewayError as failure:
        exchange.fail(failure)
        return
    tokens, is_estimated = _usage_of_whole(exchange, answer)
    exchange.meter.close(Outcome.CANCELLED, tokens, estimated=is_estimated, error_code="client_closed")


async def whole(
    exchange: Exchange, give: Give = give_chat, *, turn: Turn | None = None, left: Left = close_left
) -> Given:
    """A complete answer as JSON in our shape, and its record. Raises GatewayError; the record is closed either way.

    `turn` returns when the answer may be worked on: many that come at once keep nobody waiting."""
    meter = exchange.meter
    deadline = exchange.deadline
    body = None
    try:
        body = await exchange.response.read()
        if turn is not None:
            await turn(exchange.admission.grant.organization_id, len(body))
        if (guarding := answer_guarding(exchange.admission.asked)) is not None:
            exchange.answer = await _guarded(exchange, body, guarding)
        given = give(exchange, body)
        return given if isinstance(given, tuple) else await given
    except (GatewayError, UpstreamBroken, asyncio.CancelledError) as error:
        failure = _failure_of(error, deadline)
        if failure is None:
            if body is not None and meter.closed is None:
                left(exchange, body)
            raise
        exchange.fail(failure)
        raise failure from error
    except Exception:  # process edge: a mistake of ours costs nobody anything
        meter.close(Outcome.FAILED, TokenCounts(), http_status=500, error_code=SERVER_ERROR.code or "")
        raise
    finally:
        exchange.abandon()


async def _guarded(exchange: Exchange, body: bytes, guarding: Guarding) -> dict[str, Any]:
    """The answer as its guardrails leave it. Raises GatewayError for one that they withhold: the model wrote it, and
    the organization that does not want it pays for it."""
    answer = _parse_answer(exchange, body)
    try:
        await guard_answer(answer, guarding)
    except GatewayError as withheld:
        if withheld.kind is CONTENT_POLICY:  # that nobody could judge it is not the organization's doing
            _close_whole_answer(exchange, answer, withheld)
        raise
    return answer


def completion_id(request_id: str) -> str:
    """The id of an answer: the request's, in the form that clients of Chat Completions know."""
    return f"chatcmpl-{request_id.partition('_')[2]}"


def usage_for_client(closed: RequestClosed) -> dict[str, Any]:
    """OpenAI's usage object with what it cost in USD, to the nano-dollar. Test traffic says that it is not charged."""
    return {**to_openai(closed.tokens), **cost_for_client(closed)}


def cost_for_client(closed: RequestClosed) -> dict[str, Any]:
    """What the usage object of any endpoint says of the cost."""
    cost_usd = closed.cost_nanos / NANOS_PER_USD  # for display: below a million dollars its digits are exact
    details: dict[str, Any] = {"estimated": closed.estimated} | ({"is_sandbox": True} if closed.opened.sandbox else {})
    if closed.opened.cache_hit is not None:
        details |= {"cached": True, "saved": closed.saved_nanos / NANOS_PER_USD}
    return {"cost": cost_usd, "is_byok": closed.opened.is_byok, "cost_details": details}


def _failure_of(error: BaseException, deadline: Deadline) -> GatewayError | None:
    """What the client is told; None when nobody is there to be told."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, UpstreamBroken):
        return GatewayError(UPSTREAM_FAILED, "The upstream broke off before the answer was complete.")
    return told_to_client(error, deadline) if isinstance(error, asyncio.CancelledError) else None


async def _keep_up(growth: Growth, chat_stream: ChatStream, *, delivered: int, usage: object) -> None:
    """Have the output held for before it is delivered. Raises GatewayError: then only what was delivered is billed, by
    the `usage` that was told with that, if there was one."""
    if chat_stream.tokens is not None and chat_stream.is_finished:
        return  # the answer is whole: its usage decides
    try:
        await growth.keep_up()
    except GatewayError:
        chat_stream.output_count, chat_stream.usage = delivered, usage
        raise


def _close_broken_stream(exchange: Exchange, chat_stream: ChatStream, failure: GatewayError) -> bytes:
    """Close the record of an answer that is not whole; returns the event that tells the client."""
    outcome = Outcome.INTERRUPTED if failure.kind is GATEWAY_STOPPING else Outcome.FAILED
    _close_part(exchange, chat_stream, outcome, error_code=failure.code or "")
    return failure.stream_event()


def _close_part(exchange: Exchange, chat_stream: ChatStream, outcome: Outcome, *, error_code: str) -> None:
    _note_usage(exchange, chat_stream.told, chat_stream.service_tier)
    exchange.meter.close_partial(outcome, chat_stream.tokens, chat_stream.output_count, error_code=error_code)


def _note_usage(exchange: Exchange, told: ToldUsage, service_tier: object) -> None:
    tier = served_tier(exchange.admission.asked.asked_tier, service_tier, told.service_tier)
    exchange.meter.note_usage(told, tier)


def _bug(error: Exception, request_id: str) -> GatewayError:
    """What a client is told of a mistake of ours."""
    log.error("bug while relaying", exc_info=error, extra={"request_id": request_id})
    return GatewayError(SERVER_ERROR, f"Internal error; request id {request_id}.")


def _close_whole_stream(exchange: Exchange, chat_stream: ChatStream) -> RequestClosed:
    if chat_stream.skipped_events:
        log.warning(
            "skipped events that are no JSON",
            extra={"request_id": exchange.admission.request_id, "events": chat_stream.skipped_events},
        )
    told = chat_stream.told.beside_output() if chat_stream.output_count else chat_stream.told
    _note_usage(exchange, told, chat_stream.service_tier)
    tokens = told.tokens
    if tokens is None:
        estimate = TokenCounts(input=exchange.admission.asked.input_estimate(), output=chat_stream.output_count)
        return exchange.meter.close(
            Outcome.COMPLETED, estimate, estimated=True, finish_reason=chat_stream.finish_reason
        )
    return exchange.meter.close(Outcome.COMPLETED, tokens, finish_reason=chat_stream.finish_reason)


def _close_whole_answer(
    exchange: Exchange, answer: dict[str, Any], withheld: GatewayError | None = None
) -> RequestClosed:
    choices = answer["choices"]
    finish_reason = str(choices[0].get("finish_reason") or "") if choices else ""
    tokens, is_estimated = _usage_of_whole(exchange, answer)
    return exchange.meter.close(
        Outcome.COMPLETED if withheld is None else Outcome.FAILED,
        tokens,
        estimated=is_estimated,
        http_status=200 if withheld is None else withheld.kind.status,
        error_code="" if withheld is None else withheld.code or "",
        finish_reason=finish_reason,
    )


def _usage_of_whole(exchange: Exchange, answer: dict[str, Any]) -> tuple[TokenCounts, bool]:
    """What is billed for a whole answer, noted with what was told; and whether that is our estimate."""
    admission, choices = exchange.admission, answer["choices"]
    exchange.meter.received(0, 0)
    told = read_usage(answer.get("usage"), bound=admission.token_bound)
    output_bytes = 0
    if told.tokens is None or not told.tokens.all_output:
        output_bytes = sum(_output_bytes(choice) for choice in choices)
        told = told.beside_output() if output_bytes else told
    _note_usage(exchange, told, answer.get("service_tier"))
    if told.tokens is not None:
        return told.tokens, False
    return TokenCounts(input=admission.asked.input_estimate(), output=estimate_tokens(output_bytes)), True


def _parse_answer(exchange: Exchange, body: bytes) -> dict[str, Any]:
    try:
        return whole_answer(exchange.admission.asked, exchange.target, body)
    except ValueError as error:
        raise GatewayError(UPSTREAM_FAILED, "The upstream's answer is no chat completion.") from error


def _as_ours(answer: dict[str, Any], exchange: Exchange, closed: RequestClosed) -> bytes:
    """The answer under our names: nothing that tells which upstream it came from."""
    ours = public_chat(
        {"created": int(time.time()), **answer},
        completion_id=completion_id(exchange.admission.request_id),
        model=exchange.admission.model.id,
        usage=usage_for_client(closed),
    )
    return write_json(ours)


def _output_bytes(choice: dict[str, Any]) -> int:
    """The size of everything in a message that is output: text, tool calls, reasoning, a refusal."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return 0
    pieces = output_of(message)
    written = (piece.encode("utf-8", "replace") if isinstance(piece, str) else write_json(piece) for piece in pieces)
    return sum(map(len, written))
