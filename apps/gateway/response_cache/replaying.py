"""A kept answer in the place of an upstream's: admitted and billed as a request of its own, relayed as any other."""

import copy
import time
from collections.abc import Callable

import msgspec
import orjson
from django.conf import settings

from apps.billing.admission import Admitted, Allowance, Demand
from apps.billing.pricing.book import as_fee, at_share
from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Target
from apps.gateway.admission.decision import Admission, admit
from apps.gateway.admission.refusals import refusal
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.dispatch import Exchange, judge, opened_record, unrecorded
from apps.gateway.errors import GatewayError
from apps.gateway.metering.record import Meter
from apps.gateway.response_cache.answers import CachedAnswer
from apps.gateway.response_cache.assembly import as_stream
from apps.gateway.runtime import Runtime
from apps.gateway.server.deadline import Deadline
from apps.keys.contracts import KeyGrant
from apps.policies.guarding import Guarding
from apps.usage.contracts import RESPONSE_CACHE, CacheHit, Outcome, TokenCounts
from apps.usage.journal import JournalFull

_TARGET = Target(provider=RESPONSE_CACHE, dialect="openai", base_url="", upstream_model="", weight=1, api_key="")


class KeptResponse:
    """What a kept answer looks like where an upstream's is expected: all of it is there."""

    status = 200

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.taker: Callable[[bytes], bool] | None = None
        """Never called: nothing comes by itself."""

    async def read(self, limit: int = 0) -> bytes:
        """The whole body, whose size is known to be small."""
        return await self.read_some()

    async def read_some(self) -> bytes:
        """All that there is, then b""."""
        content, self._content = self._content, b""
        return content

    async def finish(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Nothing is held."""


class Hit(msgspec.Struct, frozen=True):
    """A request that a kept answer serves: who asks, at which price, what it costs and what it would have cost."""

    admission: Admission
    answer: CachedAnswer
    terms: CacheHit
    cost_nanos: int


def hit_of(
    runtime: Runtime, grant: KeyGrant, asked: ModelRequest, answer: CachedAnswer, *, request_id: str
) -> Hit | None:
    """The request as one for the kept answer; None when its model cannot be used now: the ordinary way says why."""
    if answer.model != asked.model:
        asked = copy.copy(asked)
        asked.model = answer.model
    try:
        admission = admit(
            grant, asked, runtime.snapshot, book=runtime.book, request_id=request_id, own_keys=runtime.own_keys
        )
    except GatewayError:
        return None
    share = admission.model.cache.share_ppm
    share = settings.CACHE_PRICE_PPM if share is None else share
    whole = admission.price
    if answer.fee_ppm is not None and whole.fee_ppm is None:  # it cost a fee, and would again
        whole = as_fee(whole, answer.fee_ppm)
    price = at_share(whole, share)
    tier, images = answer.service_tier, admission.images
    full, cost = (
        cost_nanos(answer.tokens, each, request_id=request_id, service_tier=tier, images=images)
        for each in (whole, price)
    )
    admission.price = price
    return Hit(admission, answer, CacheHit(share, full), cost)


async def replay(runtime: Runtime, hit: Hit) -> tuple[Exchange, Allowance]:
    """Admit the request for exactly what it costs, and give it the kept answer. Raises GatewayError when a limit says
    no, Unavailable without the store of money."""
    admission = hit.admission
    demand = _demand(hit)
    verdict = await runtime.reservations.reserve(demand)
    if admission.grant.sandbox:
        verdict = verdict.without_money()
    if not isinstance(verdict, Admitted):
        raise refusal(verdict, demand)
    # As in dispatch: until there is a meter nobody else gives the hold back.
    try:
        admission.hold_nanos, admission.balance_nanos = verdict.hold_nanos, verdict.balance_nanos
        content = _content(hit)
        record = msgspec.structs.replace(opened_record(admission, _TARGET), cache_hit=hit.terms)
        meter = Meter(runtime.journal, record, settle=runtime.reservations.settle)
    except JournalFull as error:
        runtime.reservations.release(demand)
        raise unrecorded() from error
    except BaseException:  # a hold without a meter is settled by nobody
        runtime.reservations.release(demand)
        raise
    exchange = Exchange(admission, meter, KeptResponse(content), _TARGET, Deadline(), dropped=hit.answer.dropped)
    if (guarding := admission.asked.guarding) is not None:
        await _judged(exchange, guarding)
    return exchange, verdict.allowance


async def _judged(exchange: Exchange, guarding: Guarding) -> None:
    """As in dispatch: the moderation model may think otherwise of the request than when its answer was kept."""
    try:
        await judge(exchange.meter, guarding)
    except BaseException as error:  # a cancellation too: a record that stays open holds money
        if isinstance(error, GatewayError):
            status, code = error.kind.status, error.code or ""
            exchange.meter.close(Outcome.FAILED, TokenCounts(), http_status=status, error_code=code)
        exchange.abandon()
        raise


def _demand(hit: Hit) -> Demand:
    """Exactly its price, and no tokens of anybody's minute: no model is asked."""
    admission = hit.admission
    cost = 0 if admission.grant.sandbox else hit.cost_nanos
    return msgspec.structs.replace(admission.demand, most_nanos=cost, least_nanos=cost, tokens=0, least_tokens=None)


def _content(hit: Hit) -> bytes:
    """What an upstream would send: the answer in one piece, made now, or as a stream."""
    plain = hit.answer.plain
    if hit.admission.asked.stream:
        return as_stream(orjson.loads(plain))
    return b'{"created":%d,' % int(time.time()) + plain[1:]


def age_s(answer: CachedAnswer) -> int:
    """How long ago it was answered, in whole seconds."""
    return max(0, int(time.time() - answer.created_at))
