"""`Idempotency-Key`: the same request sent again gets the same answer and is charged once. See docs/idempotency.md."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final, TypeVar

from django.conf import settings

from apps.core.money import format_usd
from apps.gateway.dialects.large_body import STEP_BYTES
from apps.gateway.errors import (
    BAD_IDEMPOTENCY_KEY,
    IDEMPOTENCY_ANSWER_LOST,
    IDEMPOTENCY_IN_PROGRESS,
    IDEMPOTENCY_KEY_REUSED,
    IDEMPOTENCY_KEYS_EXHAUSTED,
    IDEMPOTENCY_OFF,
    STORE_AWAY,
    GatewayError,
)
from apps.gateway.idempotency.answers import Recording, replay
from apps.gateway.idempotency.claims import Claim, Claims, Found, KeyedRequest, State, Why
from apps.gateway.kept.recorded import RecordedStream
from apps.gateway.server.answer import EventStream, Response
from apps.gateway.server.http import AsyncAPIView
from apps.gateway.server.lean_request import LeanRequest
from apps.keys.contracts import KeyGrant

_HEADER: Final = "HTTP_IDEMPOTENCY_KEY"
_SYNTAX: Final = re.compile(r"[ -~]{1,255}")
_PARAM: Final = "Idempotency-Key"
_WHY: Final = {
    Why.LOST: "its answer is lost",
    Why.LARGE: "its answer was too large to be kept",
    Why.DROPPED: "its answer is not kept any longer",
}

View = TypeVar("View", bound=AsyncAPIView)
Handler = Callable[[View, LeanRequest], Awaitable[Response]]


def idempotent(handler: Handler[View]) -> Handler[View]:
    """A handler that obeys `Idempotency-Key`. Without the header it is as it was, for one look-up.

    What it charges for must go through the worker's reservations under the view's request id."""

    @wraps(handler)
    def obeying(view: View, request: LeanRequest) -> Awaitable[Response]:
        key = request.META.get(_HEADER)
        return handler(view, request) if key is None else _answer_once(handler, view, request, key=key)

    return obeying


async def _answer_once(handler: Handler[View], view: View, request: LeanRequest, *, key: str) -> Response:
    """What the handler answers, or what it answered to the first request with this key.

    Raises GatewayError: 400 for a key that is none, 409 for one that cannot be answered again; Unavailable."""
    keys = view.runtime.idempotency_keys
    keyed = await _keyed(view.grant, view.request_id, key, request)
    found = await keys.find(view.grant, keyed)
    if found.state is State.TAKEN:
        return await _first_answer(keys.claims, keyed, handler(view, request))
    if found.request_id:
        view.limit_headers = {"x-crun-generation-id": found.request_id}
    if found.state is State.KEPT and (answer := replay(found, keyed, settings.ENCRYPTION_KEYS)) is not None:
        view.request_id = found.request_id
        return answer
    raise _refusal(found)


async def _first_answer(claims: Claims, keyed: KeyedRequest, answering: Awaitable[Response]) -> Response:
    """Answer, and keep the answer: a whole one before it is sent, a stream as soon as its last part is known."""
    claim = claims.begin(keyed)
    is_to_be_sent = False
    try:
        response = await answering
        if isinstance(response, EventStream):
            _record(response, claims, claim)
            is_to_be_sent = True
        else:
            recording = _recording(response)
            recording.add(response.content)
            _seal(claim, recording)
    finally:
        if not is_to_be_sent:
            claims.finish(claim)
    return response


def _record(response: EventStream, claims: Claims, claim: Claim) -> None:
    """Have the parts of a stream recorded on their way out, and its claim finished at its end."""
    recording = _recording(response)

    def over(is_whole: bool) -> None:
        # A record is closed before the last part is handed over: who leaves after that misses nothing but that part.
        if not claim.is_over and (is_whole or claim.is_whole):
            _seal(claim, recording)
        claims.finish(claim)

    response.source = RecordedStream(response.source, recording.add, over)


def _recording(response: Response) -> Recording:
    return Recording(response, most_bytes=settings.IDEMPOTENCY_MAX_BYTES)


def _seal(claim: Claim, recording: Recording) -> None:
    claim.answer = recording.sealed(claim.keyed, settings.ENCRYPTION_KEYS)
    if claim.answer is None:
        claim.why = Why.LARGE


async def _keyed(grant: KeyGrant, request_id: str, key: str, request: LeanRequest) -> KeyedRequest:
    """The request as the store knows it: digests, from which neither key nor body can be read."""
    if not settings.IDEMPOTENCY:
        message = "This installation does not remember requests: send it without the header Idempotency-Key."
        raise GatewayError(IDEMPOTENCY_OFF, message, param=_PARAM)
    given = set(key.split("\n"))
    if len(given) > 1:
        message = "Two different Idempotency-Keys were given; send one."
        raise GatewayError(BAD_IDEMPOTENCY_KEY, message, param=_PARAM)
    key = given.pop()
    if not _SYNTAX.fullmatch(key):
        message = "An Idempotency-Key has 1 to 255 printable ASCII characters."
        raise GatewayError(BAD_IDEMPOTENCY_KEY, message, param=_PARAM)
    secret = f"{grant.organization_id}\n{grant.key_id}\n{key}".encode()
    body = hmac.new(secret, f"{request.method} {request.path}\n".encode(), "sha256")
    for start in range(0, len(request.body), STEP_BYTES):
        if start:
            await asyncio.sleep(0)
        body.update(memoryview(request.body)[start : start + STEP_BYTES])
    return KeyedRequest(grant.organization_id, hashlib.sha256(secret).hexdigest(), body.hexdigest(), request_id)


def _refusal(found: Found) -> GatewayError:
    """Why a request with this key gets no answer."""
    first = f"The first request with this {_PARAM} ({found.request_id})"
    again = "To have it done again, at its price, use a new key"
    match found.state:
        case State.OTHER_BODY:
            message = f"{first} had another body. A key belongs to one request: use a new one."
            return GatewayError(IDEMPOTENCY_KEY_REUSED, message)
        case State.RUNNING:
            message = f"{first} is still running. Send it again, and its answer will be yours."
            return GatewayError(IDEMPOTENCY_IN_PROGRESS, message)
        case State.SPENT | State.KEPT:
            message = f"{first} has ended and cost {format_usd(found.cost_nanos)} USD, but {_WHY[found.why]}. {again}."
            return GatewayError(IDEMPOTENCY_ANSWER_LOST, message)
        case State.LOST:
            message = f"{first} was interrupted, and whether it cost anything is not known: its receipt will tell it"
            return GatewayError(IDEMPOTENCY_ANSWER_LOST, f"{message} (GET /api/v1/generation?id=...). {again}.")
        case State.FULL:
            message = f"Your organization has more {_PARAM}s than are remembered at the same time."
            return GatewayError(IDEMPOTENCY_KEYS_EXHAUSTED, message)
    message = f"What was known of {_PARAM}s may be lost, so this request could be charged twice."
    return GatewayError(STORE_AWAY, message, retry_after_ms=found.wait_ms)
