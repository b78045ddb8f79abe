"""The guardrails of a request: what they read before anything is reserved, and what a model judges after that."""

import logging
from functools import partial

from apps.billing.pricing.book import PriceBook
from apps.catalog.contracts import CatalogSnapshot
from apps.core.errors import InvalidInput, Unavailable
from apps.core.ids import created_at
from apps.gateway.admission.offers import offered
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.errors import CONTENT_POLICY, GatewayError
from apps.gateway.guardrails.moderation import Moderator
from apps.gateway.guardrails.reading import read_texts
from apps.gateway.metering.record import Meter
from apps.gateway.runtime import Runtime
from apps.keys.contracts import KeyGrant
from apps.policies.guarding import Guarding, Judge
from apps.usage.contracts import Outcome, RequestOpened, TokenCounts
from apps.usage.journal import JournalFull

log = logging.getLogger(__name__)


async def guard(asked: ModelRequest, grant: KeyGrant, runtime: Runtime) -> None:
    """Check the request and take out of it what must not go on. From here on it carries what guards its answer.

    The moderation model is the operator's to pay, so it is asked later, of a request that holds its money and its
    limits (`judge_request`).
    Raises GatewayError: 400 for what a rule forbids, 503 when the rules cannot be used."""
    policy = grant.policy
    if policy is None or not policy.guardrails:
        return
    try:
        guarding = Guarding(await runtime.rule_sets.of(policy.guardrails))
    except InvalidInput as error:  # it compiled when it was saved: only another RE2 can see it otherwise
        log.error("a guardrail cannot be used: %s", error.message, extra={"key_id": grant.key_id})
        raise Unavailable("a guardrail of your organization cannot be used") from error
    asked.guarding = guarding
    guards = guarding.guards
    if guards.input or guards.input_moderation:
        if asked.has_unreadable_text:
            message = "Token ids cannot be read by the guardrails of your organization: send the text."
            raise GatewayError(CONTENT_POLICY, message, param=asked.content_field)
        if await read_texts(list(asked.text_places()), guarding, "input"):
            asked.texts_changed()
    if guards.input_moderation or guards.output_moderation:
        guarding.judge = Moderator(runtime.transport, runtime.snapshot.moderation, guarding).judge
        if guards.input_moderation:
            guarding.judge_request = partial(_judge, asked, guarding.judge)


async def _judge(asked: ModelRequest, judge: Judge) -> None:
    await judge([place.text for place in asked.text_places()], "input")


def record_refused(asked: ModelRequest, grant: KeyGrant, runtime: Runtime, *, request_id: str) -> None:
    """Write down that a guardrail refused the request, free of charge, so that it has a receipt with the verdict.

    What names no model on offer has none: nothing could be said of it but its error. What was refused later has one."""
    if asked.guarding is not None and asked.guarding.is_recorded:
        return
    snapshot, book = runtime.snapshot, runtime.book
    try:
        opened = _refused(asked, grant, snapshot, book, request_id=request_id)
        if opened is None:
            return
        meter = Meter(runtime.journal, opened, settle=lambda _: None)  # nothing is held, nothing is to be settled
    except (GatewayError, JournalFull):
        return
    meter.guarding = asked.guarding
    meter.close(Outcome.FAILED, TokenCounts(), http_status=CONTENT_POLICY.status, error_code=CONTENT_POLICY.code or "")


def _refused(
    asked: ModelRequest, grant: KeyGrant, snapshot: CatalogSnapshot, book: PriceBook, *, request_id: str
) -> RequestOpened | None:
    model = offered(snapshot, asked.model, grant=grant)
    moment = created_at(request_id).timestamp()
    listed = model.price_at(moment)
    if listed is None:
        return None
    return RequestOpened(
        request_id=request_id,
        organization_id=grant.organization_id,
        project_id=grant.project_id,
        key_id=grant.key_id,
        model=model.id,
        provider="",
        upstream_model="",
        streamed=asked.stream,
        price=book.price_for(grant.organization_id, model.id, listed, moment=moment),
        input_estimate=0,
        hold_nanos=0,
        sandbox=grant.sandbox,
        endpoint=asked.endpoint,
    )
